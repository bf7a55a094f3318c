"""How many lines of one kind are let through, and that none of the others is forgotten."""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.config
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.incidents import AN_INCIDENT
from support.processes import in_child

from seqrpc import logs
from seqrpc.limits import LOG_BURST
from seqrpc.logs import (
    Meter,
    Shortage,
    bounded_traceback,
    get_logger,
    meter,
    new_incident,
    tell_loop,
    withheld_traceback,
)

NEVER = 1_000.0
"""Seconds of a window that no test outlasts."""

SHORT = 0.05
"""Seconds of a window whose end is waited for."""

PATIENCE = 20.0


class Told:
    """Remembers what was told, and lets somebody wait for it."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.came = asyncio.Event()

    def __call__(self, count: int) -> None:
        self.counts.append(count)
        self.came.set()


def admitted(meter: Meter, kind: str, told: Callable[[int], object], events: int) -> int:
    """Return how many of so many events of a kind were admitted."""
    return sum(meter.admits(kind, told) for _ in range(events))


def ignore(count: int) -> None:
    """Be told, where nobody listens."""


class Lines(logging.Handler):
    """Keeps what was logged, as it would have been written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.left_out += getattr(record, "left_out", 0)


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


# The meter


def test_so_many_of_a_kind_are_admitted_and_the_others_counted() -> None:
    meter, told = Meter(3, NEVER), Told()
    assert [meter.admits("kind", told) for _ in range(5)] == [True, True, True, False, False]
    assert admitted(meter, "another", told, 2) == 2
    assert told.counts == []
    meter.tell_due()
    meter.tell_due()
    assert told.counts == [2]


def test_each_window_admits_anew_and_the_count_of_the_last_comes_first() -> None:
    meter = Meter(2, SHORT)
    story: list[object] = []
    events = 0
    deadline = time.monotonic() + PATIENCE
    while len([part for part in story if part is not True]) < 3:
        assert time.monotonic() < deadline
        events += 1
        if meter.admits("kind", story.append):
            story.append(True)
    counts = [part for part in story if part is not True]
    assert story[:2] == [True, True]
    assert all(isinstance(count, int) and count > 0 for count in counts)
    meter.tell_due()
    assert sum(int(str(part)) for part in story if part is not True) + story.count(True) == events


def test_without_a_loop_the_next_event_of_any_kind_tells() -> None:
    meter, told = Meter(1, SHORT), Told()
    admitted(meter, "kind", told, 4)
    deadline = time.monotonic() + PATIENCE
    while not told.counts:
        assert time.monotonic() < deadline
        meter.admits("another", ignore)
    assert told.counts == [3]


def test_in_a_finalizer_nothing_is_told() -> None:
    meter, told = Meter(1, 1e-9), Told()
    meter.admits("kind", told)
    meter._kinds["kind"].left_out = 3
    meter._next_end = 0.0
    meter._kinds["kind"].tell = told
    assert meter.admits("another", ignore, finalizing=True)
    assert told.counts == []
    assert meter.admits("another", ignore)
    assert told.counts == [3]


async def test_a_timer_tells_when_the_flood_is_over() -> None:
    meter, told, other = Meter(1, SHORT), Told(), Told()
    admitted(meter, "kind", told, 4)
    admitted(meter, "another", other, 3)
    async with asyncio.timeout(PATIENCE):
        await told.came.wait()
        await other.came.wait()
    assert (told.counts, other.counts) == ([3], [2])
    admitted(meter, "kind", told, 3)  # and so does the next
    told.came.clear()
    async with asyncio.timeout(PATIENCE):
        await told.came.wait()
    assert sum(told.counts) >= 3 + 1


async def test_events_in_threads_are_told_by_the_loop_that_was_seen_last() -> None:
    meter, told = Meter(1, SHORT), Told()
    meter.admits("here", ignore)
    loop = asyncio.get_running_loop()
    came = asyncio.Event()

    def tell(count: int) -> None:
        told.counts.append(count)
        loop.call_soon_threadsafe(came.set)

    await asyncio.to_thread(admitted, meter, "kind", tell, 4)
    async with asyncio.timeout(PATIENCE):
        await came.wait()
    assert told.counts == [3]


def test_a_loop_that_has_ended_tells_nothing_and_costs_nothing() -> None:
    meter, told = Meter(1, NEVER), Told()

    async def flood() -> weakref.ref[asyncio.AbstractEventLoop]:
        admitted(meter, "kind", told, 3)
        await asyncio.sleep(0)
        return weakref.ref(asyncio.get_running_loop())

    ended = asyncio.run(flood())
    gc.collect()
    assert ended() is None, "it is kept"
    meter.admits("kind", told)

    async def be_seen() -> asyncio.AbstractEventLoop:
        meter.admits("another", told)
        return asyncio.get_running_loop()

    loop = asyncio.run(be_seen())  # seen last, and closed when it is needed
    admitted(meter, "other", told, 3)
    meter.tell_due()
    assert sum(told.counts) == 3 + 2
    assert loop.is_closed()


async def test_a_timer_that_comes_when_all_is_told_is_the_last() -> None:
    meter, told = Meter(1, NEVER), Told()
    admitted(meter, "kind", told, 3)
    meter.tell_due()
    assert told.counts == [2]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(meter._timed) == 0


def test_there_are_only_so_many_kinds() -> None:
    meter, told = Meter(1, NEVER), Told()
    events = [meter.admits(number, told) for number in range(10_000)]
    assert len(meter._kinds) <= 257
    meter.tell_due()
    assert sum(events) + sum(told.counts) == 10_000
    for state in meter._kinds.values():
        state.began = -NEVER  # their windows are over
    assert meter.admits("one more", told)
    assert len(meter._kinds) == 1


def test_no_event_is_lost_between_threads() -> None:
    meter, told = Meter(5, 0.001), Told()
    passed = [0] * 4

    def flood(number: int) -> None:
        passed[number] = admitted(meter, "kind", told.counts.append, 5_000)

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    meter.tell_due()
    assert sum(passed) + sum(told.counts) == 20_000


def test_a_child_begins_anew() -> None:
    told: list[int] = []
    meter.forget()
    admitted(meter, "kind", told.append, LOG_BURST + 7)

    def child() -> tuple[list[int], int]:
        meter.tell_due()
        return told, admitted(meter, "kind", told.append, LOG_BURST)

    with meter._lock:  # as it may be in another thread
        assert in_child(child) == ([], LOG_BURST)
    meter.tell_due()
    assert told == [7]


# Loggers


def test_a_logger_is_the_usual_one_with_one_bound() -> None:
    logger = get_logger("seqrpc.test_logs")
    assert get_logger("seqrpc.test_logs") is logger is logging.getLogger("seqrpc.test_logs")
    assert len(logger.filters) == 1


def test_all_loggers_of_seqrpc_are_bounded() -> None:
    import seqrpc.aio.client
    import seqrpc.aio.server  # noqa: F401

    ours = [
        logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if name.startswith("seqrpc.") and name != "seqrpc.access" and isinstance(logger, logging.Logger)
    ]
    assert len(ours) > 8
    assert [logger.name for logger in ours if not logger.filters] == []


def test_a_kind_is_a_text_before_it_is_filled_in_and_a_level(lines: Lines) -> None:
    logger = get_logger("seqrpc.test_logs")
    for number in range(100):
        logger.error("! %d failed", number)
        logger.warning("! %d failed", number)
        logger.error("! %s was refused", number)
        logger.error(ValueError(number))
    assert len(lines.lines) == 4 * LOG_BURST
    meter.tell_due()
    assert lines.lines[4 * LOG_BURST :] == [
        "= 90 more were left out: '! … failed'",
        "= 90 more were left out: '! … failed'",
        "= 90 more were left out: '! … was refused'",
        "= 90 more were left out: 'ValueError'",
    ]
    assert lines.left_out == 4 * 90


def test_it_holds_whatever_is_configured(lines: Lines) -> None:
    logger = get_logger("seqrpc.test_logs")
    logging.config.dictConfig(
        {"version": 1, "disable_existing_loggers": False, "loggers": {"seqrpc.test_logs": {"level": "DEBUG"}}}
    )
    own = Lines()
    logger.addHandler(own)
    for _ in range(50):
        logger.debug("again")
    meter.tell_due()
    logger.removeHandler(own)
    logger.setLevel(logging.NOTSET)
    assert len(own.lines) == len(lines.lines) == LOG_BURST + 1
    for _ in range(50):
        logger.debug("not wanted")
    meter.tell_due()
    assert len(lines.lines) == LOG_BURST + 1


def test_of_what_is_left_out_no_traceback_is_made(lines: Lines) -> None:
    class Counting(Exception):
        asked = 0

        def __str__(self) -> str:
            Counting.asked += 1
            return "it failed"

    logger = get_logger("seqrpc.test_logs")
    for _ in range(LOG_BURST):
        logger.error("failed", exc_info=Counting())
    before = Counting.asked
    for _ in range(100):
        logger.error("failed", exc_info=Counting())
    assert Counting.asked == before > 0


def test_what_was_left_out_is_told_at_the_end_of_the_process() -> None:
    program = """
import logging
from seqrpc.logs import get_logger
logging.basicConfig(format="%(levelname)s %(message)s")
for _ in range(42):
    get_logger("seqrpc.test_logs").error("again")
"""
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, timeout=60, check=True)
    assert done.stderr.splitlines() == [*["ERROR again"] * 10, "ERROR = 32 more were left out: 'again'"]


async def test_the_loop_hears_of_so_many_exceptions_of_a_kind(lines: Lines, loop_errors: list[dict[str, Any]]) -> None:
    loop, logger = asyncio.get_running_loop(), get_logger("seqrpc.test_logs")
    for number in range(30):
        tell_loop(loop, logger, {"message": "it failed", "exception": ValueError(number)})
    assert [str(context["exception"]) for context in loop_errors] == [str(number) for number in range(LOG_BURST)]
    loop_errors.clear()
    meter.tell_due()
    assert lines.lines == ["= 20 more were left out: 'it failed'"]


def test_incidents_differ() -> None:
    incidents = dict(new_incident() for _ in range(100))
    assert len(incidents) == 100
    for incident, message in incidents.items():
        assert message == f"incident {incident}; the log of the other side has more" == AN_INCIDENT


# Tracebacks

FORGED = "gone\n2038-01-19 03:14:07 CRITICAL all is lost\x1b[2J\udc80"


def caught(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as exc:
        return exc
    raise AssertionError


def test_an_ordinary_traceback_is_left_to_the_formatter(lines: Lines) -> None:
    exc = caught(lambda: int("x"))
    assert bounded_traceback(exc) is None
    get_logger("seqrpc.test_logs").error("failed", exc_info=exc)
    assert lines.lines == ["failed\n" + "".join(traceback.format_exception(exc)).removesuffix("\n")]


def chained() -> None:
    try:
        try:
            raise LookupError(FORGED)
        except LookupError as exc:
            raise ValueError(FORGED) from exc
    except ValueError:
        raise RuntimeError(FORGED)  # noqa: B904 - a context is what is tested


def grouped() -> None:
    raise ExceptionGroup(FORGED, [ValueError(FORGED), ExceptionGroup("inner", [KeyError(FORGED)])])


def noted() -> None:
    exc = ValueError("short")
    exc.add_note(FORGED)
    raise exc


def long() -> None:
    raise ValueError("x" * 10_000_000)


def syntactic() -> None:
    compile("x = (\x1b[2J", FORGED.replace("\udc80", ""), "exec")


@pytest.mark.parametrize("function", [chained, grouped, noted, long, syntactic])
def test_what_exceptions_say_is_one_short_line_each(function: Callable[[], None], lines: Lines) -> None:
    exc = caught(function)
    get_logger("seqrpc.test_logs").error("failed", exc_info=exc)
    (text,) = lines.lines
    assert len(text) < 10_000
    assert "\x1b" not in text
    assert "\udc80" not in text
    assert not any(line.lstrip(" |+-").startswith("2038") for line in text.splitlines())
    assert f"in {function.__name__}" in text
    if function is chained:
        assert text.count(r"gone\n2038") == 3
        assert "direct cause" in text
        assert "another exception occurred" in text


def test_of_a_deep_traceback_the_innermost_calls_are_shown_if_it_cannot_be_shown_as_it_is() -> None:
    def dig(depth: int) -> None:
        if not depth:
            raise ValueError(FORGED)
        (dig if depth % 2 else lambda depth: dig(depth))(depth - 1)  # noqa: PLW0108 - two frames by turns

    text = bounded_traceback(caught(lambda: dig(300)))
    assert text is not None
    assert len(text) < 20_000
    assert "raise ValueError(FORGED)" in text


def test_where_asyncio_is_only_being_loaded_there_is_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "asyncio")
    assert logs._running_loop() is None


def test_a_shortage_is_said_once_until_it_was_over_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    shortage, over_at_once = (Shortage(get_logger("seqrpc.test"), quiet) for quiet in (NEVER, 0.0))
    for number in range(20):
        shortage.say("! number %d", number)
    assert [record.getMessage() for record in caplog.records] == ["! number 0"]
    over_at_once.say("! once")
    over_at_once.say("! once")
    assert [record.getMessage() for record in caplog.records] == ["! number 0", "! once", "! once"]


def test_what_exceptions_say_can_be_left_out_of_a_traceback() -> None:
    try:
        try:
            raise ValueError("hunter2")
        except ValueError as exc:
            exc.add_note("hunter2")
            raise ExceptionGroup("hunter2", [exc, OSError(1, "hunter2")]) from exc
    except ExceptionGroup as exc:
        text = withheld_traceback(exc)
    for told in ("ValueError: (withheld)", "ExceptionGroup: (withheld)", "PermissionError: (withheld)", "in test_what"):
        assert told in text
    # Of what is quoted there is only the source.
    assert all(line.strip().startswith(("raise", "exc.", "|")) for line in text.splitlines() if "hunter2" in line)
