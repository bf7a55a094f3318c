"""Signal handlers that raise at any moment of a call, while other threads wait on the same line."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from support.lines import REQUEST, RESPONSE, End, Thread, comes_true, line_end

import seqrpc

MOMENTS = ("call", "c_return")
"""When Python looks for signals: where a function of its own begins, and when one of C has returned."""

PACKAGE = os.path.dirname(seqrpc.__file__)


class Far:
    """The other side: it answers "first" only when "second" was answered, and asks something before each answer."""

    def __init__(self, end: End, *, asks: bool) -> None:
        self.first_came = threading.Event()
        self.replies: set[int] = set()
        self.asked = 0
        self._end = end
        self._asks = asks
        self._waiting: list[int] = []
        self._thread = Thread(self._run)

    def _run(self) -> None:
        try:
            while (message := self._end.receive()) is not None:
                if message[0] == RESPONSE:
                    self.replies.add(message[1])
                elif message[0] == REQUEST:
                    self._take(message[1], message[2])
        except ConnectionResetError:
            pass

    def _take(self, call_id: int, method: str) -> None:
        if method == "first":
            self._waiting.append(call_id)
            self.first_came.set()
            return
        for number in (call_id, *self._waiting):
            try:
                if self._asks:
                    self._end.send(REQUEST, self.asked, "Any.thing", [])
                    self.asked += 1
                self._end.send(RESPONSE, number, None, method)
            except (BrokenPipeError, ConnectionResetError):
                return
        self._waiting.clear()

    def end(self) -> None:
        self._thread.result()


@contextmanager
def interrupted_at(count: int) -> Iterator[list[str]]:
    """Let SIGINT come at the n-th moment in the block."""
    counter = itertools.count(1)
    came: list[str] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if came or event not in MOMENTS or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if next(counter) == count:
            came.append(f"{event} {frame.f_code.co_name}:{frame.f_lineno} {argument!r:.60}")
            os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(watch)
    try:
        yield came
    finally:
        sys.setprofile(None)


def outcome(function: Callable[[], Any]) -> str:
    try:
        return str(function())
    except seqrpc.ConnectionLost:
        return "lost"
    except KeyboardInterrupt:
        return "interrupted"


def story(count: int, *, asks: bool, by_packet: bool) -> tuple[str, str, str, str]:
    """Return where the signal came, and what became of three calls: the interrupted one, another thread's, the next."""
    with line_end(by_packet=by_packet) as end:
        far = Far(end, asks=asks)

        def second() -> str:
            assert far.first_came.wait(30)
            return outcome(lambda: end.caller.request("second", []))

        thread = Thread(second)
        with interrupted_at(count) as came:
            first = outcome(lambda: end.caller.request("first", []))
        far.first_came.set()
        thread.join(30)
        assert not thread.is_alive(), f"another thread's call hangs after a signal at {came}"
        other = thread.result()
        again = outcome(lambda: end.caller.request("again", []))
        if again != "lost":
            assert not end.line.room.waiting
            assert end.line.session.calls == {}
        assert not end.line.turns.is_reading
        assert not end.line.entered
        end.line.close()
        far.end()
        if again != "lost":
            assert far.replies == set(range(far.asked)), f"what was asked was not answered after a signal at {came}"
        return (*came[:1], "")[0], first, other, again


@pytest.mark.parametrize("by_packet", [False, True])
@pytest.mark.parametrize("asks", [False, True])
def test_wherever_a_signal_comes_every_call_ends_and_what_was_asked_is_answered(asks: bool, by_packet: bool) -> None:
    """The call of this thread reads for both. It ends, and so does the other thread's, and so does the next."""
    seen = set()
    for count in itertools.count(1):
        where, first, other, again = story(count, asks=asks, by_packet=by_packet)
        assert other in ("second", "lost"), where
        assert again in ("again", "lost"), where
        assert (other, again) != ("lost", "again"), where
        seen.add((first, again))
        if not where:
            assert (first, other, again) == ("second", "second", "again")
            break
        assert first in ("interrupted", "second"), where
    assert ("interrupted", "again") in seen


def story_of_room(count: int) -> tuple[str, str, str, str]:
    """Return where the signal came, and what became of the call that is answered first, that which waits, the next."""
    with line_end(limits=seqrpc.Limits(max_calls_in_flight=1)) as end:
        occupies = Thread(lambda: outcome(lambda: end.caller.request("occupies", [])))
        assert end.receive()[2] == "occupies"
        over = threading.Event()

        def far() -> None:
            """Answer once another call waits for room, whatever comes."""
            comes_true(lambda: end.line.room.waiting or over.is_set())
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                end.send(RESPONSE, 0, None, "done")
                while (message := end.receive()) is not None:
                    if message[0] == REQUEST:
                        end.send(RESPONSE, message[1], None, message[2])

        peer = Thread(far)
        with interrupted_at(count) as came:
            waited = outcome(lambda: end.caller.request("waits", []))
        over.set()
        first = occupies.result()
        again = outcome(lambda: end.caller.request("again", []))
        if again != "lost":
            assert not end.line.room.waiting
            assert end.line.is_open
        end.line.close()
        peer.result()
        return (*came[:1], "")[0], first, waited, again


def test_a_call_that_waits_for_room_may_be_interrupted_anywhere() -> None:
    seen = set()
    for count in itertools.count(1):
        where, first, waited, again = story_of_room(count)
        assert first in ("done", "lost"), where
        assert waited in ("waits", "interrupted"), where
        assert again in ("again", "lost"), where
        seen.add((first, waited, again))
        if not where:
            assert (first, waited, again) == ("done", "waits", "again")
            break
    assert ("done", "interrupted", "again") in seen
