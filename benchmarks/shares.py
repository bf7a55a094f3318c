"""What one user can take of a server, and what that leaves to others: ``python -m benchmarks.shares``, as root.

The daemon, the user who takes, and the one who comes then are three users of the system, each in a process of its own.
For each thing that a server has, the first takes all that it is given; then the other connects and calls, again and
again. The table says what was held, and how long the other waited.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import itertools
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

import seqrpc
from seqrpc.aio.accounts import NAMES, Account
from seqrpc.aio.connection import link_of

DAEMON, GREEDY, NEWCOMER = 62_001, 62_002, 62_003
"""Users of no account of this system's."""

BOUND = 0.1
"""Seconds within which the newcomer is to have connected, and got an answer."""

BLOCK = bytes(60_000)

IMPORTS = (
    "concurrent.futures.thread", "ctypes", "uvloop", "seqrpc.aio.run", "seqrpc.kernel.systemd", "seqrpc.aio.client",
    "seqrpc.kernel.memfd", "seqrpc.kernel.buffers", "asyncio.selector_events", "encodings.idna",
)  # fmt: skip
"""What is loaded late."""


class Thing(seqrpc.Service):
    """An object that is given away."""

    @seqrpc.method
    async def poke(self) -> int:
        return 1


class Store(seqrpc.Service):
    """Has some of everything."""

    def __init__(self) -> None:
        self.block = bytes(16 * 1024 * 1024)

    @seqrpc.method
    async def add(self, one: int, other: int) -> int:
        return one + other

    @seqrpc.method
    def work(self, number: int) -> int:
        """Run in a thread."""
        return number

    @seqrpc.method
    def hang(self) -> None:
        """Hold a thread."""
        time.sleep(3600)

    @seqrpc.method
    async def wait(self, data: bytes, fds: list[seqrpc.OwnedFd]) -> None:  # noqa: ARG002 - they are held only
        """Hold a call, with what came with it."""
        await asyncio.Event().wait()

    @seqrpc.method
    async def lend(self) -> seqrpc.OwnedFd:
        return seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    @seqrpc.method
    async def make(self) -> Thing:
        return Thing()

    @seqrpc.method
    async def tick(self) -> AsyncIterator[int]:
        while True:
            yield 1
            await asyncio.sleep(3600)

    @seqrpc.method
    async def read(self) -> bytes:
        return self.block

    @seqrpc.method
    def held(self) -> dict[str, int]:
        """Return what the greedy user holds."""
        call = seqrpc.current_call()
        account: Account = link_of(call.connection).account
        greedy = account.ledger.accounts.get(GREEDY)
        held = {} if greedy is None else {name: greedy.holds(kind) for kind, name in enumerate(NAMES)}
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        return {**held, "resident_mb": resident >> 20}


# What the greedy user does; each returns when nothing more is given


async def connections(path: str, keep: list[Any]) -> None:
    """Open connections without end."""
    while True:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            peer.connect(path)
        except OSError:
            peer.close()
            return
        keep.append(peer)
        peer.settimeout(0.5)
        peer.send(msgpack.packb([0, 1, "rpc.ping", []]))
        try:
            said = msgpack.unpackb(peer.recv(65_536))
        except OSError:
            return
        if said[0] != 1:
            return


async def _calling(path: str, keep: list[Any], call: Callable[[seqrpc.Connection], Awaitable[Any]], most: int) -> None:
    """Make calls over more and more connections until some are refused on each of three in turn."""
    refused = 0
    for _ in range(200):
        connection = await seqrpc.connect(path)
        keep.append(connection)
        tasks = [asyncio.ensure_future(call(connection)) for _ in range(most)]
        keep.append(tasks)
        await asyncio.wait(tasks, timeout=0.3, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in tasks if task.done() and task.exception() is not None]
        keep.append([task.result() for task in tasks if task.done() and task.exception() is None])
        refused = refused + 1 if failed else 0
        if refused == 3:
            return


async def calls(path: str, keep: list[Any]) -> None:
    """Leave calls running."""
    await _calling(path, keep, lambda one: one.call("Store.wait", b"", []), 1000)


async def request_bytes(path: str, keep: list[Any]) -> None:
    """Send long requests."""
    await _calling(path, keep, lambda one: one.call("Store.wait", BLOCK, []), 1000)


async def long_requests(path: str, keep: list[Any]) -> None:
    """Send very long requests."""
    data = bytes(32 * 1024 * 1024)
    await _calling(path, keep, lambda one: one.call("Store.wait", data, []), 8)


async def descriptors(path: str, keep: list[Any]) -> None:
    """Send descriptors with calls that go on."""
    null = os.open(os.devnull, os.O_RDONLY)

    class Lender:
        def fileno(self) -> int:
            return null

    await _calling(path, keep, lambda one: one.call("Store.wait", b"", [Lender()] * 250), 90)


async def objects(path: str, keep: list[Any]) -> None:
    """Take objects, and come again."""
    await _calling(path, keep, lambda one: one.call("Store.make"), 500)


async def streams(path: str, keep: list[Any]) -> None:
    """Take streams, and come again."""
    await _calling(path, keep, lambda one: one.call("Store.tick"), 500)


async def threads(path: str, keep: list[Any]) -> None:
    """Hold threads, and leave."""
    for _ in range(3):
        async with seqrpc.connect(path) as connection:
            tasks = [asyncio.ensure_future(connection.call("Store.hang")) for _ in range(30)]
            await asyncio.wait(tasks, timeout=0.3)
            for task in tasks:
                task.cancel()
    keep.append(None)


async def _unread(path: str, keep: list[Any], method: str, number: int, peers: int) -> None:
    for _ in range(peers):
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(path)
        peer.setblocking(False)
        keep.append(peer)
        with contextlib.suppress(OSError):
            for call_id in range(number):
                peer.send(msgpack.packb([0, call_id, method, []]))
                if call_id % 50 == 49:
                    await asyncio.sleep(0.001)
    await asyncio.sleep(1)


async def unread_answers(path: str, keep: list[Any]) -> None:
    """Ask for long answers, and read none."""
    await _unread(path, keep, "Store.read", 20, 60)


async def unread_descriptors(path: str, keep: list[Any]) -> None:
    """Ask for descriptors, and read none."""
    await _unread(path, keep, "Store.lend", 500, 100)


async def turns(path: str, keep: list[Any]) -> None:
    """Send without end on many connections."""
    peers = []
    for _ in range(500):
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.setblocking(False)
        with contextlib.suppress(OSError):
            peer.connect(path)
            peers.append(peer)
    keep.append(peers)
    keep.append(asyncio.ensure_future(_flood(peers)))


async def _flood(peers: list[socket.socket]) -> None:
    data = [msgpack.packb([0, number, "Store.add", [1, 2]]) for number in range(10_000)]  # no id that is in use still
    for call_id in itertools.cycle(range(0, len(data), 4)):
        for peer in peers:
            with contextlib.suppress(BlockingIOError):
                for packet in data[call_id : call_id + 4]:
                    peer.send(packet)
            with contextlib.suppress(BlockingIOError):
                for _ in range(5):
                    peer.recv(65_536)
        await asyncio.sleep(0)


async def arrivals(path: str, keep: list[Any]) -> None:
    """Connect and go, without end."""
    keep.append(asyncio.ensure_future(_arrive(path)))


async def _arrive(path: str) -> None:
    while True:
        for _ in range(10):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer, contextlib.suppress(OSError):
                peer.setblocking(False)
                peer.connect(path)
        await asyncio.sleep(0.005)


WAYS = [
    connections, calls, request_bytes, long_requests, descriptors, objects, streams, threads, unread_answers,
    unread_descriptors, turns, arrivals,
]  # fmt: skip


async def everything(path: str, keep: list[Any]) -> None:
    """Take all of these at once."""
    await asyncio.gather(*(way(path, keep) for way in WAYS if way is not connections), return_exceptions=True)
    await connections(path, keep)


# The three processes


@contextlib.contextmanager
def process(work: Callable[[int], None], uid: int) -> Iterator[tuple[int, Any]]:
    """Run something as another user until the block ends; yield its pid, and what it writes to the number it gets."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            work(writing)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as said:
        try:
            yield pid, said
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def serve(path: str, log: str) -> Callable[[int], None]:
    """Return what serves."""

    def work(ready: int) -> None:
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(number, 2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        mine = seqrpc.policy.anyone
        seqrpc.run(Store(), path, mode=0o666, allow=mine, on_start=lambda _server: os.write(ready, b"ready\n"))

    return work


def take(way: Callable[[str, list[Any]], Awaitable[None]], path: str) -> Callable[[int], None]:
    """Return what takes, and keeps it."""

    def work(ready: int) -> None:
        async def main() -> None:
            keep: list[Any] = []
            with contextlib.suppress(Exception):
                async with asyncio.timeout(60):
                    await way(path, keep)
            os.write(ready, b"taken\n")
            await asyncio.Event().wait()

        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        asyncio.run(main())

    return work


def come(path: str, times: int) -> Callable[[int], None]:
    """Return what connects, calls in several ways and goes, again and again."""

    async def once() -> str:
        async with seqrpc.connect(path) as connection:
            await connection.call("Store.add", 1, 2)
            await connection.call("Store.work", 3)
            (await connection.call("Store.lend")).close()
            thing = await connection.call("Store.make")
            await thing.close()
        return ""

    def work(told: int) -> None:
        async def main() -> None:
            for _ in range(times):
                began = time.perf_counter()
                try:
                    async with asyncio.timeout(10):
                        failure = await once()
                except Exception as exc:
                    failure = f"{type(exc).__name__}: {exc}"
                os.write(told, f"{time.perf_counter() - began:.6f} {failure}\n".encode())
            async with seqrpc.connect(path) as connection:
                os.write(told, f"held {await connection.call('Store.held')}\n".encode())

        asyncio.run(main())

    return work


@dataclass
class Row:
    """What came of one way."""

    way: str
    held: str
    median: float
    worst: float
    failures: list[str]

    @property
    def is_well(self) -> bool:
        """Whether the other was served in time, each time."""
        return not self.failures and self.worst < BOUND


def measure(way: Callable[[str, list[Any]], Awaitable[None]], times: int) -> Row:
    """Have one user take, and another come."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        path = f"{directory}/socket"
        with process(serve(path, f"{directory}/log"), DAEMON) as (_daemon, ready):
            if ready.readline() != "ready\n":
                sys.exit(f"the daemon did not start: {Path(directory, 'log').read_text()}")
            with process(take(way, path), GREEDY) as (_greedy, taken):
                taken.readline()
                with process(come(path, times), NEWCOMER) as (_newcomer, told):
                    lines = [told.readline().strip() for _ in range(times + 1)]
    seconds = sorted(float(line.split(" ", 1)[0]) for line in lines[:times] if line)
    failures = [line.split(" ", 1)[1] for line in lines[:times] if " " in line]
    return Row(way.__name__, lines[-1].removeprefix("held "), seconds[len(seconds) // 2], seconds[-1], failures)


def main() -> None:
    """Measure all ways, or those that are named, and say how it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ways", nargs="*", help=f"some of {', '.join(way.__name__ for way in [*WAYS, everything])}")
    parser.add_argument("--times", type=int, default=20, help="how often the other comes")
    options = parser.parse_args()
    ways = [way for way in [*WAYS, everything] if not options.ways or way.__name__ in options.ways]
    for name in IMPORTS:  # the other users may not be able to read what Python is made of
        importlib.import_module(name)
    bad = 0
    print(f"{'what one user takes':20} {'another: median':>16} {'worst':>9}  held by the one")
    for way in ways:
        row = measure(way, options.times)
        bad += not row.is_well
        print(f"{row.way:20} {row.median * 1e3:13.1f} ms {row.worst * 1e3:6.1f} ms  {row.held}", flush=True)
        for failure in sorted(set(row.failures)):
            print(f"    {row.failures.count(failure)} of {options.times} failed: {failure}")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
