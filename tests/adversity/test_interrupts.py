"""Signal handlers raise at any moment of calls, streams and uploads without an event loop.

The processes are real, and so are the signals. After each the next call works, or says that the connection ended; no
descriptor and no memory file is left; and the daemon's journal says that no handler still runs.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.conversing import program
from support.descriptors import open_fds
from support.interrupted import PACKAGE, Client, Journal, Listener
from support.waiting import PATIENCE

import seqrpc.blocking
from seqrpc import Buffer, ConnectionLost, OwnedFd

INTERRUPTS = int(os.environ.get("SEQRPC_INTERRUPTS", "100"))
"""Ctrl-C's of the main test; the others have a share of it."""

SEED = int(os.environ.get("SEQRPC_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)

KINDS = [name.removeprefix("do_") for name in vars(Client) if name.startswith("do_")]


def nap(seconds: float) -> None:
    """Wait to the microsecond."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def some_moment(chance: random.Random) -> float:
    """Return when to interrupt: often in the first call, also in the middle, also after some of them."""
    return chance.choice([0.0, chance.random() * 2e-4, chance.random() * 1e-3, chance.random() * 5e-3])


class Tale:
    """What came of many interrupts."""

    def __init__(self) -> None:
        self.sent = self.waiting = self.in_code = self.ended = self.swallowed = self.collected = self.lost = 0
        self.places: Counter[str] = Counter()

    def add(self, said: dict[str, Any]) -> None:
        for place, waits in said["where"]:
            self.places[place] += 1
            self.waiting += waits
            self.in_code += not waits
        self.ended += said["ended"] is not None
        self.collected += said["collected"]
        self.lost += said.get("companion", {}).get("lost", 0)

    def __str__(self) -> str:
        return (
            f"{self.sent} interrupts sent, {self.waiting} raised while waiting, {self.in_code} in Python code, "
            f"{self.swallowed} swallowed; {self.ended} ended the connection; {self.collected} times the collector had"
            f" to look; the other thread lost {self.lost} calls; most often in {self.places.most_common(12)}"
        )


def interrupt_many(path: Path, count: int, signals: list[signal.Signals], mode: str, together: float = 0.0) -> None:
    """Interrupt a client many times.

    Args:
        path: where the daemon listens.
        count: how many times.
        signals: the first is what is sent, each next one soon after that before.
        mode: whether the client is alone, or shares its connection with another thread.
        together: seconds in which the next signal follows, at most.
    """
    chance = random.Random(SEED)
    tale = Tale()
    with (
        program("interrupted", "serve", str(path)),
        program("interrupted", mode, str(path)) as client,
        seqrpc.blocking.connect(path) as connection,
    ):
        journal: Any = connection.proxy(Journal)
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            client.tell([kind, len(signals)])
            assert client.hear() == "begin", f"{kind} did not begin, seed {SEED}"
            nap(some_moment(chance))
            for which in signals:
                client.process.send_signal(which)
                nap(chance.random() * together)
            tale.sent += len(signals)
            said = client.hear(5)
            while said is None and tale.swallowed < count // 10:  # Python drops what is raised in a finalizer
                tale.swallowed += 1
                client.process.send_signal(signals[0])
                said = client.hear(5)
            if said is None:
                client.process.send_signal(signal.SIGUSR2)
                client.hear(1)
                raise AssertionError(f"{kind} hangs, number {number} of seed {SEED}; {tale}")
            told = f"{kind}, number {number} of seed {SEED}: {said}"
            tale.add(said)
            assert said["left"] == {}, told
            assert said["failure"] is None or signal.SIGALRM in signals, told
            if "companion" in said:
                assert said["companion"]["went on"], told
                assert said["companion"]["failure"] is None, told
            with seqrpc.blocking.timeout(PATIENCE):
                assert journal.settled(said["keys"]) == [], told
        began, cancelled = journal.counts()
        print(  # noqa: T201 - shown with -s, or if it fails
            f"\nseed {SEED}: {tale}; {began} calls began, {cancelled} of them were cancelled"
        )


@pytest.mark.parametrize("mode", ["alone", "together"])
def test_keyboard_interrupts_leave_the_connection_well_or_ended(socket_path: Path, mode: str) -> None:
    interrupt_many(socket_path, INTERRUPTS if mode == "alone" else INTERRUPTS // 2, [signal.SIGINT], mode)


@pytest.mark.parametrize("which", [signal.SIGALRM, signal.SIGTERM])
def test_handlers_of_other_signals_may_raise_as_well(socket_path: Path, which: signal.Signals) -> None:
    interrupt_many(socket_path, max(20, INTERRUPTS // 4), [which], "alone")


@pytest.mark.parametrize("mode", ["alone", "together"])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_two_interrupts_may_come_close_together(socket_path: Path, mode: str, second: signal.Signals) -> None:
    interrupt_many(socket_path, max(20, INTERRUPTS // 4), [signal.SIGINT, second], mode, together=5e-5)


# At every moment in turn


def interrupted_at(moment: int, work: Callable[[], object]) -> str | None:
    """Interrupt ``work`` at the given one of the moments when Python looks for signals; return where that was.

    It looks when a function begins, and when one that is not Python's has returned.
    """
    seen = 0
    where = None

    def look(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal seen, where
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(PACKAGE):
            seen += 1
            if seen == moment:
                where = f"moment {moment}, {event} in {frame.f_code.co_qualname}, line {frame.f_lineno}"
                signal.raise_signal(signal.SIGINT)

    sys.setprofile(look)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            work()
    finally:
        sys.setprofile(None)
    return where


def close(fds: list[OwnedFd]) -> None:
    for fd in fds:
        fd.close()


def short_of(stream: Iterator[int]) -> None:
    assert list(itertools.islice(stream, 3)) == [0, 1, 2]


def copy(proxy: Any, key: int) -> None:
    with Buffer.allocate(4096) as buffer, proxy.copy(key, buffer) as back:
        assert len(back) == 4096


WORKS: dict[str, Callable[[Any, int, OwnedFd], object]] = {
    "echo": lambda proxy, key, _fd: proxy.echo(key),
    "lend": lambda proxy, key, _fd: close(proxy.lend(key, 2)),
    "take": lambda proxy, key, fd: proxy.take(key, [fd]),
    "count": lambda proxy, key, _fd: short_of(proxy.count(key, 5)),
    "add": lambda proxy, key, _fd: proxy.add(key, iter(range(3))),
    "upload": lambda proxy, key, _fd: proxy.upload(key, bytes(100_000)),
    "download": lambda proxy, key, _fd: proxy.download(key, 100_000),
    "copy": lambda proxy, key, _fd: copy(proxy, key),
    "ask": lambda proxy, key, _fd: proxy.ask(key, Listener(), 1),
    "tell": lambda proxy, key, _fd: proxy.tell(key),
}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("what", WORKS)
def test_an_interrupt_may_come_at_every_moment_of_a_call(
    socket_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python prints what a finalizer raises, and goes on; pytest would hold it, and with it what was to be closed.
    monkeypatch.setattr(sys, "unraisablehook", lambda _args: None)
    work = WORKS[what]
    with (
        program("interrupted", "serve", str(socket_path)),
        OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) as null,
        seqrpc.blocking.connect(socket_path) as watching,
        contextlib.ExitStack() as stack,
    ):
        journal: Any = watching.proxy(Journal)
        connection = stack.enter_context(seqrpc.blocking.connect(socket_path))
        proxy: Any = connection.proxy(Journal)
        work(proxy, 1, null)
        assert journal.settled([1]) == []
        before = 0
        while before != len(open_fds()):  # what the other side closes comes when this one looks
            before = len(open_fds())
            for _ in range(20):
                proxy.echo(0)
            gc.collect()
        ended: list[str] = []
        where: str | None = ""
        moment = 1
        while where is not None:
            moment += 1
            where = interrupted_at(moment, functools.partial(work, proxy, moment, null))
            with seqrpc.blocking.timeout(PATIENCE):
                assert journal.settled([moment]) == [], where
                try:
                    assert proxy.echo(moment) == moment, where
                except ConnectionLost:
                    ended.append(where or "")
                    connection.close()
                    connection = stack.enter_context(seqrpc.blocking.connect(socket_path))
                    proxy = connection.proxy(Journal)
            until = time.monotonic() + PATIENCE / 3
            while len(open_fds()) != before and time.monotonic() < until:
                proxy.echo(0)  # what the other side closes comes when this one looks
                gc.collect()
            assert len(open_fds()) == before, where
        assert moment > 15
        assert len(ended) < 5, ended
