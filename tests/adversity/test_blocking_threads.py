"""Eight threads share one connection without an event loop: every answer reaches its asker (bar 3)."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.conversing import program
from support.interrupted import Journal, Listener
from support.waiting import PATIENCE

import seqrpc.blocking
from seqrpc import DeadlineExceeded, LocalProtocolError, OwnedFd

CALLS = int(os.environ.get("SEQRPC_CALLS", "20000"))
"""Calls of all threads together."""

THREADS = 8


class Stopped(BaseException):
    """Ends a thread."""


@contextlib.contextmanager
def connected(path: Path) -> Iterator[seqrpc.blocking.Connection]:
    """Connect to a daemon in a process of its own."""
    with program("interrupted", "serve", str(path)), seqrpc.blocking.connect(path) as connection:
        yield connection


def in_threads(count: int, work: Callable[[int], None]) -> float:
    """Run ``work`` in so many threads at once; return the seconds that it took, and raise what one of them raised."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(PATIENCE)
            if failures:
                raise failures[0]
    took = time.perf_counter() - began
    if failures:
        raise failures[0]
    return took


def test_every_answer_reaches_its_asker(socket_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    per_thread = CALLS // THREADS
    done = [0] * (THREADS + 1)
    when_first_ended: list[list[int]] = []
    with connected(socket_path) as connection:
        proxy: Any = connection.proxy(Journal)

        def call(thread: int) -> None:
            first = thread * per_thread
            for number in range(first, first + per_thread):
                assert proxy.echo(number) == number
                done[thread] += 1
            when_first_ended.append(list(done[:THREADS]))

        def call_alone(_thread: int) -> None:
            for number in range(per_thread):
                assert proxy.echo(number) == number

        alone = in_threads(1, call_alone)
        together = in_threads(THREADS, call)
    assert done[:THREADS] == [per_thread] * THREADS
    slowest = min(when_first_ended[0])
    with capsys.disabled():
        print(  # noqa: T201 - the rates are to be told
            f"\none thread: {per_thread / alone:,.0f} calls/s ({per_thread:,}); {THREADS} threads:"
            f" {THREADS * per_thread / together:,.0f} calls/s ({THREADS * per_thread:,}); when the first had made all"
            f" its calls the slowest had made {slowest / per_thread:.0%}"
        )
    assert slowest > per_thread / 10, "a thread starved"


class Works:
    """What a thread may do with a connection that others use as well."""

    def __init__(self, proxy: Any, null: OwnedFd) -> None:
        self._proxy = proxy
        self._null = null

    def echo(self, number: int) -> None:
        for each in range(20):
            assert self._proxy.echo(number + each) == number + each

    def be_late(self, number: int) -> None:
        with pytest.raises(DeadlineExceeded), seqrpc.blocking.timeout(0.0005):
            self._proxy.hold(number)

    def lend(self, number: int) -> None:
        for fd in self._proxy.lend(number, 3):
            fd.close()

    def take(self, number: int) -> None:
        assert self._proxy.take(number, [self._null, self._null]) == 2

    def count(self, number: int) -> None:
        assert list(self._proxy.count(number, 50 + number % 7)) == list(range(50 + number % 7))

    def add(self, number: int) -> None:
        assert self._proxy.add(number, iter(range(100 + number % 5))) == sum(range(100 + number % 5))

    def ask(self, number: int) -> None:
        assert self._proxy.ask(number, Listener(), 5) == 10

    def tell(self, number: int) -> None:
        self._proxy.tell(number)

    def fail(self, number: int) -> None:
        with pytest.raises(LocalProtocolError):
            self._proxy.upload(number, object())

    def end(self, number: int) -> None:
        """End a thread in the middle of a call."""

        def numbers() -> Iterator[int]:
            yield from range(10)
            raise Stopped

        def run() -> None:
            with contextlib.suppress(Stopped):
                self._proxy.add(number, numbers())

        in_threads(1, lambda _thread: run())


def test_what_a_thread_does_disturbs_no_other(socket_path: Path) -> None:
    """Deadlines pass, descriptors and streams travel both ways, and threads end in the middle of a call."""
    keys = itertools.count(1)
    rounds = max(10, CALLS // THREADS // 100)
    names = [name for name in vars(Works) if not name.startswith("_")]
    with connected(socket_path) as connection, OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) as null:
        proxy: Any = connection.proxy(Journal)
        works = Works(proxy, null)

        def work(thread: int) -> None:
            for turn in range(rounds):
                getattr(works, names[(thread + turn) % len(names)])(next(keys))

        in_threads(THREADS, work)
        with seqrpc.blocking.timeout(PATIENCE):
            assert proxy.settled(list(range(1, next(keys)))) == []
        assert not connection.closed
