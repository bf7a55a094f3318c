"""Calls that are made to measure them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.answering import answering, error, result, undescribed
from support.descriptors import open_fds
from support.desk import both
from support.sync import served
from support.waiting import comes_true

import seqrpc
from seqrpc.cli import measuring
from seqrpc.cli.measuring import Measurement, Plan
from seqrpc.cli.outcomes import Outcomes
from seqrpc.cli.repeating import Repeated
from seqrpc.documents.model import read

MS = 1_000_000


class Counter(seqrpc.Service):
    """Counts its calls, and stands still, with its whole process, at one of them."""

    def __init__(self, stall_at: int = 0, seconds: float = 0.0) -> None:
        self.calls = 0
        self.now = self.most = 0
        self._stall_at = stall_at
        self._seconds = seconds

    @seqrpc.method
    async def count(self) -> int:
        self.calls += 1
        if self.calls == self._stall_at:
            time.sleep(self._seconds)  # noqa: ASYNC251 - it is to stand still
        return self.calls

    @seqrpc.method
    async def hold(self) -> None:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.002)
        self.now -= 1

    @seqrpc.method
    async def sleep(self) -> None:
        self.calls += 1
        await asyncio.sleep(600)


def plan(**changed: Any) -> Plan:
    return Plan(**{"seconds": None, "calls": None, "rate": None, "in_flight": 1, **changed})


@asynccontextmanager
async def prepared(
    path: Path, name: str, *words: str, connections: int = 1, tell: Any = None, files: tuple[str, ...] = (), **how: Any
) -> AsyncIterator[Measurement]:
    """Connect, and prepare a measurement."""
    async with contextlib.AsyncExitStack() as stack:
        made = [await stack.enter_async_context(seqrpc.connect(path)) for _ in range(connections)]
        try:
            document = read(await made[0].call("rpc.discover"))
        except seqrpc.MethodNotFound:
            document = None
        call = stack.enter_context(contextlib.closing(Repeated(document, name, words, files)))
        yield Measurement(plan(**how), call, made, tell)


async def measured(path: Path, name: str, *words: str, **how: Any) -> Measurement:
    async with prepared(path, name, *words, **how) as measurement:
        await measurement.run()
        return measurement


def longer(outcomes: Outcomes, nanoseconds: int) -> int:
    """Return how many latencies are longer."""
    return sum(bucket.number for bucket in outcomes.latencies.buckets() if bucket.low >= nanoseconds)


@pytest.mark.parametrize("how", [{}, {"in_flight": 7}, {"connections": 3, "in_flight": 2}, {"rate": 5_000.0}])
async def test_no_more_is_sent_than_was_said(socket_path: Path, how: dict[str, Any]) -> None:
    counter = Counter()
    async with seqrpc.serve(counter, socket_path):
        measurement = await measured(socket_path, "count", calls=100, **how)
    outcomes = measurement.outcomes
    assert counter.calls == outcomes.calls == outcomes.succeeded == outcomes.latencies.count == 100
    assert (outcomes.errors, outcomes.unanswered, outcomes.unsent) == ({}, 0, 0)
    assert not measurement.is_interrupted
    assert measurement.lost is None
    assert measurement.processor > 0
    assert outcomes.lateness.count == (100 if "rate" in how else 0)
    assert "rate" not in how or outcomes.rate <= 5_000


async def test_at_a_rate_there_are_as_many_tasks_as_are_needed(socket_path: Path) -> None:
    counter = Counter()
    async with seqrpc.serve(counter, socket_path):
        how: dict[str, Any] = {"calls": 100, "rate": 1_000.0, "in_flight": 1_024, "connections": 3}
        async with prepared(socket_path, "hold", **how) as measurement:
            await measurement.run()
        assert counter.calls == measurement.outcomes.succeeded == 100
        assert 1 < len(measurement._began) <= 101
        async with prepared(socket_path, "sleep", timeout=0.2, **{**how, "rate": 1e7}) as measurement:
            await measurement.run()
        assert 100 <= len(measurement._began) <= 101
        assert measurement.outcomes.failed == 100


async def test_it_ends_in_time(socket_path: Path) -> None:
    counter = Counter()
    async with seqrpc.serve(counter, socket_path):
        began = time.monotonic()
        measurement = await measured(socket_path, "count", seconds=0.2, in_flight=3)
        assert time.monotonic() - began >= 0.2
        assert counter.calls == measurement.outcomes.calls > 0
        counter.calls = 0
        measurement = await measured(socket_path, "count", seconds=0.2, rate=100.0)
        assert counter.calls == measurement.outcomes.calls == 20
        counter.calls = 0
        measurement = await measured(socket_path, "count", seconds=600.0, calls=5)
        assert counter.calls == measurement.outcomes.calls == 5


async def test_no_more_are_in_flight_than_was_said(socket_path: Path) -> None:
    counter = Counter()
    async with seqrpc.serve(counter, socket_path):
        await measured(socket_path, "hold", calls=60, in_flight=3, connections=2)
        assert counter.most == 6
        counter.most = 0
        measurement = await measured(socket_path, "hold", calls=60, in_flight=4, rate=1e6)
        assert counter.most == 4
        assert measurement.outcomes.calls == 60


@pytest.mark.parametrize("how", [{}, {"rate": 500.0, "in_flight": 10}])
async def test_calls_that_warm_up_do_not_count(socket_path: Path, how: dict[str, Any]) -> None:
    counter = Counter()
    async with seqrpc.serve(counter, socket_path):
        measurement = await measured(socket_path, "count", calls=20, warm_up=0.1, **how)
    assert measurement.outcomes.calls == measurement.outcomes.latencies.count == 20
    assert counter.calls > 20
    if how:
        assert counter.calls == 70


STALL = 0.3


@pytest.mark.parametrize("in_flight", [1, 1_024])
def test_a_server_that_stands_still_is_felt_by_all_calls_that_were_due_meanwhile(
    socket_path: Path, in_flight: int
) -> None:
    """Of 200 calls a second 60 are due in 0.3 s: those of the first 0.2 s wait for at least 0.1 s.

    Who counts from when a call was sent sees one of them, if it sends no other meanwhile.
    """
    counter = Counter(stall_at=50, seconds=STALL)
    with served(socket_path, counter):
        measurement = asyncio.run(measured(socket_path, "count", calls=200, rate=200.0, in_flight=in_flight))
    outcomes = measurement.outcomes
    assert counter.calls == outcomes.succeeded == outcomes.latencies.count == 200
    assert longer(outcomes, 100 * MS) >= 39
    assert outcomes.latencies.longest >= (STALL - 0.006) * 1e9  # but the time between two calls
    assert outcomes.latencies.percentile(99) >= 250 * MS
    assert outcomes.latencies.percentile(90) >= 100 * MS
    if in_flight == 1:  # 40 of them could not be sent when they were due
        assert sum(each.number for each in outcomes.lateness.buckets() if each.low >= 100 * MS) >= 38


def test_a_closed_loop_waits_with_the_server(socket_path: Path) -> None:
    """One call waits: so its latencies are service times, and are called that."""
    counter = Counter(stall_at=50, seconds=STALL)
    with served(socket_path, counter):
        outcomes = asyncio.run(measured(socket_path, "count", calls=200)).outcomes
    assert outcomes.latencies.longest >= STALL * 1e9
    assert 1 <= longer(outcomes, 250 * MS) <= 5


async def test_errors_are_counted_by_their_codes(socket_path: Path) -> None:
    async with seqrpc.serve(both(), socket_path):
        outcomes = (await measured(socket_path, "fail", calls=5)).outcomes
        assert (outcomes.errors, outcomes.succeeded, outcomes.latencies.count) == ({"desk.Empty": 5}, 0, 0)
        assert outcomes.verdict == (1, "no call succeeded: desk.Empty: nothing there")
        outcomes = (await measured(socket_path, "secret", calls=5)).outcomes
        assert outcomes.verdict[0] == 4
        outcomes = (await measured(socket_path, "Desk.zzz", calls=5)).outcomes
        assert outcomes.verdict[0] == 3


async def test_an_overloaded_server_is_an_error(socket_path: Path) -> None:
    limits = seqrpc.Limits(max_calls_in_flight=2)
    async with seqrpc.serve(Counter(), socket_path, limits=limits):
        outcomes = (await measured(socket_path, "hold", calls=200, in_flight=20)).outcomes
    assert outcomes.errors["rpc.Overloaded"] + outcomes.succeeded == outcomes.calls == 200
    assert outcomes.latencies.count == outcomes.succeeded > 0


@pytest.mark.parametrize("how", [{}, {"rate": 100.0, "in_flight": 2}])
async def test_a_call_that_runs_out_of_time_took_at_least_so_long(socket_path: Path, how: dict[str, Any]) -> None:
    async with seqrpc.serve(Counter(), socket_path):
        outcomes = (await measured(socket_path, "sleep", calls=6, timeout=0.05, **how)).outcomes
    assert outcomes.errors == {"rpc.DeadlineExceeded": 6}
    assert outcomes.latencies.count == 6
    assert outcomes.latencies.shortest >= 49 * MS
    assert outcomes.verdict[0] == 5


async def test_a_time_that_is_up_at_once_does_not_keep_the_loop(socket_path: Path) -> None:
    counter = Counter()
    async with seqrpc.serve(counter, socket_path):
        outcomes = (await measured(socket_path, "count", seconds=0.1, timeout=1e-9)).outcomes
    assert outcomes.errors.keys() == {"rpc.DeadlineExceeded"}
    assert counter.calls == 0


@pytest.mark.parametrize("how", [{}, {"rate": 100.0}])
async def test_who_never_answers_is_given_up(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    monkeypatch.setattr(measuring, "GRACE", 0.1)
    counter = Counter()
    async with seqrpc.serve(counter, socket_path):
        outcomes = (await measured(socket_path, "sleep", seconds=0.2, in_flight=2, **how)).outcomes
    assert (outcomes.calls, outcomes.unanswered, counter.calls) == (0, 2, 2)
    assert outcomes.unsent == (18 if how else 0)
    assert outcomes.latencies.count == 2 + outcomes.unsent
    assert outcomes.latencies.longest >= 290 * MS
    assert outcomes.verdict == (5, "no call was answered")


async def test_what_was_given_up_while_it_warmed_up_does_not_count(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "GRACE", 0.05)
    async with seqrpc.serve(Counter(), socket_path):
        outcomes = (await measured(socket_path, "sleep", seconds=0.05, warm_up=0.1, in_flight=2)).outcomes
        assert (outcomes.unanswered, outcomes.latencies.count) == (0, 0)
        outcomes = (await measured(socket_path, "sleep", seconds=0.1, warm_up=0.1, rate=100.0, in_flight=2)).outcomes
        assert (outcomes.unanswered, outcomes.unsent) == (0, 10)


@pytest.mark.parametrize("how", [{"seconds": 600.0}, {"calls": 10**9}, {"rate": 1_000.0, "seconds": 600.0}])
async def test_ctrl_c_ends_it(socket_path: Path, how: dict[str, Any]) -> None:
    counter = Counter()
    async with seqrpc.serve(counter, socket_path), prepared(socket_path, "count", **how) as measurement:
        running = asyncio.ensure_future(measurement.run())
        await comes_true(lambda: counter.calls > 10)
        os.kill(os.getpid(), signal.SIGINT)
        await running
        assert measurement.is_interrupted
        assert measurement.outcomes.calls == counter.calls
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def test_ctrl_c_twice_waits_for_nothing(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "GRACE_AFTER_INTERRUPT", 600.0)
    counter = Counter()
    how: dict[str, Any] = {"calls": 10, "rate": 1_000.0, "in_flight": 2}
    async with seqrpc.serve(counter, socket_path), prepared(socket_path, "sleep", **how) as measurement:
        running = asyncio.ensure_future(measurement.run())
        await comes_true(lambda: counter.calls == 2)
        os.kill(os.getpid(), signal.SIGINT)
        await comes_true(lambda: measurement.is_interrupted)
        assert not running.done()
        os.kill(os.getpid(), signal.SIGINT)
        await running
        assert measurement.outcomes.unanswered == 2


@pytest.mark.parametrize("how", [{}, {"rate": 1_000.0, "in_flight": 3}])
async def test_a_connection_that_is_lost_ends_it(socket_path: Path, how: dict[str, Any]) -> None:
    asked = 0

    def answer(message: list[Any]) -> bytes:
        nonlocal asked
        asked += 1
        return result(message, None) if asked <= 5 else b""

    with answering(socket_path, undescribed(answer)):
        measurement = await measured(socket_path, "X.y", seconds=600.0, **how)
    outcomes = measurement.outcomes
    assert isinstance(measurement.lost, seqrpc.ConnectionLost)
    assert outcomes.succeeded == 5
    assert outcomes.errors.keys() == {"ConnectionLost"}


async def test_a_server_that_stops_ends_it(socket_path: Path) -> None:
    counter = Counter()
    async with seqrpc.serve(counter, socket_path) as server, prepared(socket_path, "count", seconds=600.0) as made:
        running = asyncio.ensure_future(made.run())
        await comes_true(lambda: counter.calls > 5)
        await server.drain()
        await running
        assert isinstance(made.lost, seqrpc.Unavailable | seqrpc.ConnectionLost)
        assert made.outcomes.calls >= counter.calls


HOSTILE: dict[str, Callable[[list[Any]], bytes | None]] = {
    "garbage": lambda _message: b"\xc1garbage",
    "hangs up": lambda _message: b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_who_breaks_the_protocol_ends_it(socket_path: Path, kind: str) -> None:
    with answering(socket_path, undescribed(HOSTILE[kind])):
        measurement = await measured(socket_path, "X.y", seconds=1.0, timeout=0.1)
    assert isinstance(measurement.lost, seqrpc.ConnectionLost)
    assert measurement.outcomes.succeeded == 0


async def test_answers_to_what_was_not_asked_count_nowhere(socket_path: Path) -> None:
    with answering(socket_path, undescribed(lambda message: result([0, message[1] + 77], 1))):
        outcomes = (await measured(socket_path, "X.y", calls=3, timeout=0.02)).outcomes
    assert outcomes.errors == {"rpc.DeadlineExceeded": 3}


async def test_codes_that_are_made_up_are_bounded_and_do_nothing(socket_path: Path) -> None:
    with answering(socket_path, undescribed(lambda message: error(message, f"\x1b[2J{message[1]}" + "x" * 999))):
        outcomes = (await measured(socket_path, "X.y", calls=500, in_flight=10)).outcomes
    assert outcomes.failed == 500
    assert len(outcomes.errors) == 65
    assert all(code.isprintable() and len(code) < 200 for code in outcomes.errors)


@pytest.mark.parametrize(
    "words",
    [("box", "a"), ("count", "3"), ("forever",), ("blob", "100000"), ("memory", "9"), ("files", '["/dev/null"]')],
)
async def test_what_comes_back_is_closed_at_once(socket_path: Path, words: tuple[str, ...]) -> None:
    most = 0
    with served(socket_path, both()):
        async with prepared(socket_path, *words, calls=300, in_flight=4) as measurement:
            before = len(open_fds())
            running = asyncio.ensure_future(measurement.run())
            while not running.done():
                most = max(most, len(open_fds()) - before)
                await asyncio.sleep(0)
            await running
            assert (measurement.outcomes.succeeded, measurement.outcomes.errors) == (300, {})
    assert most < 100, "the server has some, for a moment"


async def test_a_file_is_sent_again_and_again(socket_path: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    async with seqrpc.serve(both(), socket_path):
        before = len(open_fds())
        async with prepared(socket_path, "length", files=(f"file={tmp_path}/x",), calls=50) as measurement:
            await measurement.run()
            assert measurement.outcomes.succeeded == 50
            assert len(open_fds()) <= before + 4


async def test_what_cannot_be_sent_is_raised(socket_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    async with (
        seqrpc.serve(both(), socket_path),
        prepared(socket_path, "length", files=(f"file={path}",), seconds=600.0) as measurement,
    ):
        path.unlink()
        with pytest.raises(FileNotFoundError):
            await measurement.run()


async def test_it_tells_how_far_it_is(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "TICK", 0.01)
    told: list[tuple[float, int]] = []

    def tell(part: float, outcomes: Outcomes) -> None:
        told.append((part, outcomes.calls))

    async with seqrpc.serve(Counter(), socket_path):
        await measured(socket_path, "hold", calls=50, warm_up=0.05, tell=tell)
        await measured(socket_path, "hold", seconds=0.1, tell=tell)
    assert len(told) > 5
    assert all(0.0 <= part <= 1.0 for part, _calls in told)
    assert max(part for part, _calls in told) > 0.5
