"""A daemon hands over to its successor again and again under load: no call fails, none is lost, none runs twice.

The clients do not reconnect, so a connection that ended would show. The daemon writes down each call before it answers,
and the clients what they called. An ordinary run restarts it a few times;
``SEQRPC_GAPLESS_RESTARTS=200 python -m pytest tests/adversity/test_restarts_without_gap.py -s`` two hundred times, and
prints how many calls there were.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemons import daemon, wait_until_it_listens
from support.descriptors import same_file
from support.restarts import reaping, run
from support.waiting import PATIENCE

import seqrpc
import seqrpc.blocking

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="successors are held by pidfds")

RESTARTS = int(os.environ.get("SEQRPC_GAPLESS_RESTARTS", "5"))

IDLE = 20
"""Connections that have nothing to do most of the time."""

DAEMON = """
import asyncio, os, re, sys
import seqrpc

class Ledger(seqrpc.Service):
    def __init__(self, path):
        self.file = open(path, "a")

    def note(self, word):
        self.file.write(word + chr(10))
        self.file.flush()

    @seqrpc.method
    async def quick(self, word: str) -> str:
        self.note(word)
        return word

    @seqrpc.method
    async def slow(self, word: str) -> str:
        self.note(word)
        await asyncio.sleep(0.005)
        return word

    @seqrpc.method
    def plain(self, word: str) -> str:
        self.note(word)
        return word

    @seqrpc.method
    async def told(self, word: str) -> None:
        self.note(word)

    @seqrpc.method
    async def large(self, word: str, much: bytes) -> bytes:
        self.note(word)
        return much

    @seqrpc.method
    async def turned(self, word: str, file: seqrpc.OwnedFd) -> seqrpc.OwnedFd:
        self.note(word)
        return seqrpc.OwnedFd(file.detach())

    @seqrpc.method
    async def counted(self, word: str, most: int):
        for number in range(most):
            yield number
            await asyncio.sleep(0.02)
        self.note(word)

    @seqrpc.method
    async def state(self) -> tuple[int, list[str]]:
        kinds = []
        for name in os.listdir("/proc/self/fd"):
            try:
                kinds.append(re.sub("[0-9]+", "N", os.readlink("/proc/self/fd/" + name)))
            except FileNotFoundError:  # the one that listed the directory
                pass
        return os.getpid(), sorted(kinds)

seqrpc.run(Ledger(sys.argv[2]), sys.argv[1], restart=True)
"""


class Load:
    """Calls, each with a word of its own, and what came of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.over = threading.Event()
        self.numbers = itertools.count()
        self.made: collections.Counter[str] = collections.Counter()
        self.words: list[str] = []
        self.failures: list[str] = []
        self.restarts_seen = 0

    def word(self, kind: str) -> str:
        word = f"{kind} {next(self.numbers)}"
        self.words.append(word)
        self.made[kind] += 1
        return word

    async def repeat(self, call: Callable[[], Awaitable[None]], pause: float = 0.001) -> None:
        try:
            while not self.over.is_set():
                await call()
                await asyncio.sleep(pause)
        except Exception as exc:
            self.failures.append(f"{call.__qualname__}: {exc!r}")
            raise

    async def connection(self) -> None:
        """Keep one connection busy in all ways at once."""
        async with seqrpc.connect(self.path) as connection:

            async def echo(kind: str, *arguments: Any) -> None:
                word = self.word(kind)
                assert await connection.call(f"Ledger.{kind}", word, *arguments) in (word, *arguments)

            async def told() -> None:
                await connection.notify("Ledger.told", self.word("told"))

            async def turned() -> None:
                reader, writer = os.pipe()
                with (
                    seqrpc.OwnedFd(writer),
                    seqrpc.OwnedFd(reader) as file,
                    await connection.call("Ledger.turned", self.word("turned"), file) as fd,
                ):
                    assert same_file(fd, file)

            async def counted() -> None:
                stream = await connection.call("Ledger.counted", self.word("counted"), 10)
                async with contextlib.aclosing(stream):
                    assert [number async for number in stream] == list(range(10))

            await asyncio.gather(
                self.repeat(lambda: echo("quick")),
                self.repeat(lambda: echo("quick")),
                self.repeat(lambda: echo("slow")),
                self.repeat(lambda: echo("plain"), 0.005),
                self.repeat(lambda: echo("large", os.urandom(100_000)), 0.02),
                self.repeat(told, 0.01),
                self.repeat(turned, 0.005),
                self.repeat(counted, 0.1),
            )

    async def newcomers(self) -> None:
        async def come() -> None:
            async with seqrpc.connect(self.path) as connection:
                await connection.call("Ledger.quick", self.word("quick"))

        await self.repeat(come)

    async def rarely(self) -> None:
        async with seqrpc.connect(self.path) as connection:

            async def call() -> None:
                await connection.call("Ledger.quick", self.word("quick"))

            await self.repeat(call, 0.5)

    def blocking(self) -> None:
        """Call without an event loop, with no pause at all: the connection is idle for moments only."""
        try:
            with seqrpc.blocking.connect(self.path) as connection:
                while not self.over.is_set():
                    word = self.word("quick")
                    assert connection.call("Ledger.quick", word) == word
        except Exception as exc:
            self.failures.append(f"blocking: {exc!r}")


def wait_ended(pid: int, pidfd: int) -> int:
    """Wait for a process, and return its exit status."""
    assert select.select([pidfd], [], [], 4 * PATIENCE)[0], f"process {pid} has not ended"
    _pid, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


async def restart(path: Path) -> None:
    """Restart the daemon, and wait until the predecessor has ended."""
    async with seqrpc.connect(path) as connection:
        pid, _kinds = await connection.call("Ledger.state")
        pidfd = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGHUP)
            assert await asyncio.to_thread(wait_ended, pid, pidfd) == 0
        finally:
            os.close(pidfd)
        successor, _kinds = await connection.call("Ledger.state")
        assert successor != pid


async def under_load(load: Load) -> None:
    threads = [threading.Thread(target=load.blocking)]
    for thread in threads:
        thread.start()
    working = [load.connection(), load.connection(), load.newcomers(), *(load.rarely() for _ in range(IDLE))]
    tasks = [asyncio.ensure_future(work) for work in working]
    try:
        for _ in range(RESTARTS):
            await restart(load.path)
            assert load.failures == []
    finally:
        load.over.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await asyncio.gather(*tasks)


async def state_of(path: Path) -> tuple[int, list[str]]:
    """Return the daemon's process and the least that it has open within moments: it closes a bit after its clients."""
    async with seqrpc.connect(path) as connection:
        pid, kinds = await connection.call("Ledger.state")
        for _ in range(20):
            await asyncio.sleep(0.005)
            _pid, again = await connection.call("Ledger.state")
            kinds = min(kinds, again, key=len)
        return pid, kinds


def test_restarts_under_load(socket_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = socket_path.with_suffix(".journal")
    load = Load(socket_path)
    began = time.monotonic()
    with reaping(), daemon(DAEMON, socket_path, journal):
        wait_until_it_listens(socket_path)
        _first, kinds = run(state_of(socket_path))
        run(under_load(load))
        until = time.monotonic() + PATIENCE
        while True:
            last, kinds_of_last = run(state_of(socket_path))
            if kinds_of_last == kinds or time.monotonic() > until:
                break
        os.kill(last, signal.SIGTERM)
        pidfd = os.pidfd_open(last)
        status = wait_ended(last, pidfd)
        os.close(pidfd)
    ran = collections.Counter(journal.read_text(encoding="utf-8").splitlines())
    with capsys.disabled():
        seconds = time.monotonic() - began
        print(f"\n{RESTARTS} restarts in {seconds:.0f} s, {len(load.words)} calls: {dict(load.made)}")  # noqa: T201
    assert load.failures == []
    assert status == 0
    assert [word for word in load.words if ran[word] != 1] == []
    assert len(ran) == len(load.words)
    assert kinds_of_last == kinds
    assert sorted(os.listdir(socket_path.parent)) == [journal.name]
