"""A daemon with a journal, and a client that signals interrupt at any moment: programs, run with ``python -m``."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import faulthandler
import gc
import json
import linecache
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import seqrpc
import seqrpc.blocking
from seqrpc import Buffer, ConnectionLost, OwnedFd, Unavailable
from seqrpc.kernel.closing import CLOSER
from support.descriptors import open_fds

PACKAGE = str(Path(seqrpc.__file__).parent)

MEGABYTES = bytes(3_000_000)

_WAITS = ("starmap(receive", "poller.poll(", "lock.acquire(", "starmap(", "sock.recv", "time.sleep")
"""Lines of the package in which a thread waits."""


class Listener(seqrpc.Service):
    """An object of the client's, which the daemon calls while the client waits."""

    @seqrpc.method
    def hear(self, number: int) -> int:
        return sum(range(number % 50)) - sum(range(number % 50)) + number


class Tally(seqrpc.Service):
    """An object of the daemon's."""

    def __init__(self, journal: Journal, key: int) -> None:
        self._journal = journal
        self._key = key
        journal.running[key] = "Tally"

    @seqrpc.method
    def add(self, number: int) -> int:
        return number + 1

    async def close(self) -> None:
        self._journal.note_end(self._key)


class Journal(seqrpc.Service):
    """Notes of each call that it began and whether it has ended."""

    def __init__(self) -> None:
        self.running: dict[int, str] = {}
        self.began = 0
        self.cancelled = 0
        self.ended = asyncio.Event()

    @contextlib.contextmanager
    def _noted(self, key: int, name: str) -> Iterator[None]:
        self.running[key] = name
        self.began += 1
        try:
            yield
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.note_end(key)

    def note_end(self, key: int) -> None:
        self.running.pop(key, None)
        self.ended.set()

    @seqrpc.method
    def echo(self, number: int) -> int:
        return number

    @seqrpc.method
    async def nap(self, number: int) -> int:
        with self._noted(-number, "nap"):
            await asyncio.sleep(0.001)
            return number

    @seqrpc.method
    async def hold(self, key: int) -> None:
        with self._noted(key, "hold"):
            await asyncio.Event().wait()

    @seqrpc.method
    async def lend(self, key: int, number: int) -> list[OwnedFd]:
        with self._noted(key, "lend"):
            return [OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) for _ in range(number)]

    @seqrpc.method
    async def take(self, key: int, fds: list[OwnedFd]) -> int:
        with self._noted(key, "take"):
            await asyncio.sleep(0)
            return len(fds)

    @seqrpc.method
    async def hold_these(self, key: int, fds: list[OwnedFd]) -> None:
        with self._noted(key, "hold_these"):
            await asyncio.Event().wait()

    @seqrpc.method
    async def count(self, key: int, number: int) -> AsyncIterator[int]:
        with self._noted(key, "count"):
            for item in range(number):
                yield item

    @seqrpc.method
    async def open_many(self, key: int, number: int) -> AsyncIterator[OwnedFd]:
        with self._noted(key, "open_many"):
            for _ in range(number):
                yield OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    @seqrpc.method
    async def add(self, key: int, numbers: AsyncIterator[int]) -> int:
        with self._noted(key, "add"):
            total = 0
            with contextlib.suppress(Unavailable):  # it was interrupted
                async for number in numbers:
                    total += number
            return total

    @seqrpc.method
    async def upload(self, key: int, data: bytes) -> int:
        with self._noted(key, "upload"):
            await asyncio.sleep(0)
            return len(data)

    @seqrpc.method
    async def download(self, key: int, size: int) -> bytes:
        with self._noted(key, "download"):
            return bytes(size)

    @seqrpc.method
    async def copy(self, key: int, data: Buffer) -> Buffer:
        with self._noted(key, "copy"):
            return data

    @seqrpc.method
    async def ask(self, key: int, listener: Listener, number: int) -> int:
        with self._noted(key, "ask"):
            return sum([await listener.hear(item) for item in range(number)])

    @seqrpc.method
    def tally(self, key: int) -> Tally:
        return Tally(self, key)

    @seqrpc.method(oneway=True)
    async def tell(self, key: int) -> None:
        with self._noted(key, "tell"):
            await asyncio.sleep(0)

    @seqrpc.method
    async def settled(self, keys: list[int]) -> list[str]:
        """Wait until none of these calls runs; return those that still run after a time that only a bug takes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while any(key in self.running for key in keys):
                    self.ended.clear()
                    await self.ended.wait()
        return [self.running[key] for key in keys if key in self.running]

    @seqrpc.method
    def counts(self) -> tuple[int, int]:
        return self.began, self.cancelled


class Signals:
    """Handlers that raise as many times as they are armed for, and note where that was."""

    def __init__(self) -> None:
        self.left = 0
        self.where: list[tuple[str, bool]] = []
        self.resent = 0
        for number, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGALRM, TimeoutError)):
            signal.signal(number, self._raising(kind))
        signal.signal(signal.SIGTERM, self._raising(SystemExit))

    def _raising(self, kind: type[BaseException]) -> Callable[[int, FrameType | None], None]:
        def handle(_number: int, frame: FrameType | None) -> None:
            if not self.left:
                return
            self.left -= 1
            self.where.append(_place(frame))
            raise kind

        return handle


def _place(frame: FrameType | None) -> tuple[str, bool]:
    """Return the function of the package that was interrupted, and whether its thread waited there."""
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is None:
        return "outside", False
    code = frame.f_code
    waits = any(text in linecache.getline(code.co_filename, frame.f_lineno or 0) for text in _WAITS)
    return f"{Path(code.co_filename).stem}.{code.co_qualname}", waits


class Client:
    """Makes calls until it is interrupted, and looks at what is left then."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.key = 0
        self.keys: list[int] = []
        self.null = OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        self.fds = open_fds()
        self.signals = Signals()
        self.connect()

    def connect(self) -> None:
        self.connection = seqrpc.blocking.connect(self.path)
        self.proxy: Any = self.connection.proxy(Journal)

    def next(self) -> int:
        self.key += 1
        self.keys.append(self.key)
        return self.key

    # What is interrupted

    def do_echo(self) -> None:
        key = self.next()
        assert self.proxy.echo(key) == key

    def do_hold(self) -> None:
        self.proxy.hold(self.next())

    def do_hold_in_time(self) -> None:
        with contextlib.suppress(seqrpc.DeadlineExceeded), seqrpc.timeout(0.001):
            self.proxy.hold(self.next())

    def do_lend(self) -> None:
        fds = self.proxy.lend(self.next(), 5)
        for fd in fds:
            fd.close()

    def do_take(self) -> None:
        with OwnedFd.dup(self.null) as fd:
            assert self.proxy.take(self.next(), [fd, fd]) == 2

    def do_hold_these(self) -> None:
        with OwnedFd.dup(self.null) as fd:
            self.proxy.hold_these(self.next(), [fd, fd])

    def do_count(self) -> None:
        with self.proxy.count(self.next(), 1_000_000) as stream:
            for number, item in enumerate(stream):
                assert number == item
                if number > 2_000:
                    break

    def do_open_many(self) -> None:
        for number, fd in enumerate(self.proxy.open_many(self.next(), 1_000_000)):
            fd.close()
            if number > 20:
                break

    def do_add(self) -> None:
        assert self.proxy.add(self.next(), iter(range(1_000))) == 499_500

    def do_add_for_ever(self) -> None:
        def numbers() -> Iterator[int]:
            while True:
                yield 1

        self.proxy.add(self.next(), numbers())

    def do_upload(self) -> None:
        assert self.proxy.upload(self.next(), MEGABYTES) == len(MEGABYTES)

    def do_download(self) -> None:
        assert len(self.proxy.download(self.next(), 1_000_000)) == 1_000_000

    def do_copy(self) -> None:
        with Buffer.allocate(300_000) as buffer:
            buffer[:5] = b"hello"
            with self.proxy.copy(self.next(), buffer) as back:
                assert back[:5] == b"hello"

    def do_ask(self) -> None:
        assert self.proxy.ask(self.next(), Listener(), 10) == 45

    def do_tally(self) -> None:
        with self.proxy.tally(self.next()) as tally:
            assert tally.add(1) == 2

    def do_tell(self) -> None:
        self.proxy.tell(self.next())

    def do_connect(self) -> None:
        key = self.next()
        with seqrpc.blocking.connect(self.path) as connection:
            proxy: Any = connection.proxy(Journal)
            proxy.tell(key)

    # Interrupts

    def attempt(self, do: Callable[[], None], count: int) -> Iterator[str | None]:
        """Repeat something until it was interrupted so many times; yield what else it raised.

        A generator, for these have an exception of their own that is being handled. If the second signal comes just as
        the first one's handling ends, Python 3.13 goes on with that as the current one, and keeps what it refers to.
        """
        signals = self.signals
        failure = None
        try:
            try:
                signals.left = count
                say("begin")
                while signals.left:
                    do()
            except (KeyboardInterrupt, SystemExit, TimeoutError):
                until = time.monotonic() + 0.05
                while signals.left and time.monotonic() < until:  # the next is on its way, or was one with the first
                    pass
            except Exception as exc:
                failure = repr(exc)
                while signals.left:
                    time.sleep(0.01)
        except (KeyboardInterrupt, SystemExit, TimeoutError):
            pass
        signals.left = 0
        yield failure

    def interrupted(self, what: str, count: int, companion: Companion | None) -> dict[str, Any]:
        """Be interrupted; return what there is to tell."""
        self.keys.clear()
        self.signals.where.clear()
        do = getattr(self, f"do_{what}")
        failure = None
        try:
            # In a context of its own: the block of a time-out may be interrupted before it is undone.
            failure = contextvars.copy_context().run(list[str | None], self.attempt(do, count))[0]
        except (KeyboardInterrupt, SystemExit, TimeoutError):
            self.signals.left = 0  # a block of contextlib's would call something first, and the next may come there
        ended = None
        number = self.key = self.key + 1
        was_companion = None if companion is None else companion.done
        try:
            assert self.proxy.echo(number) == number
        except (ConnectionLost, Unavailable) as exc:
            ended = str(exc)
        said: dict[str, Any] = {"failure": failure, "ended": ended, "where": self.signals.where, "keys": self.keys}
        said["left"], said["collected"] = self.look_around()
        if ended is not None:
            self.connection.close()
            self.connect()
        if companion is not None:
            said["companion"] = companion.goes_on(was_companion)
        return said

    def look_around(self) -> tuple[dict[int, str], bool]:
        """Return the descriptors and memory files that are left, and whether the collector had to run."""
        until = time.monotonic() + 5
        while True:  # what the other side closes comes when this one looks
            with contextlib.suppress(ConnectionLost, Unavailable):
                self.proxy.echo(0)
            assert CLOSER.wait_idle(30)
            left = self.left()
            if not left or time.monotonic() > until:
                break
        if not left:
            return left, False
        gc.collect()
        assert CLOSER.wait_idle(30)
        return self.left(), True

    def left(self) -> dict[int, str]:
        line = self.connection._line
        bell = line.turns.bell
        own = [line.sock.fileno(), *([bell._ours.fileno(), bell._theirs.fileno()] if bell else [])]
        left = {fd: told(fd, name) for fd, name in open_fds().items() if fd not in own and fd not in self.fds}
        for number, mapped in enumerate(Path("/proc/self/maps").read_text().splitlines()):
            if "memfd:" in mapped:
                left[-number] = mapped
        return left


def told(fd: int, name: str) -> str:
    """Return what a descriptor is."""
    if name.startswith("socket:"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
            name = f"{name} {sock.type!r}"
    return name


class Companion(threading.Thread):
    """A thread that calls over the same connection all the time."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.done = 0
        self.lost = 0
        self.failure: str | None = None

    def run(self) -> None:
        number = 0
        while True:
            number += 1
            proxy = self.client.proxy
            try:
                if number % 10 == 0:
                    assert proxy.nap(number) == number
                else:
                    assert proxy.echo(number) == number
            except (ConnectionLost, Unavailable):
                self.lost += 1
                time.sleep(0.001)  # until the other thread has connected anew
            except BaseException as exc:
                self.failure = repr(exc)
                raise
            self.done += 1

    def goes_on(self, done: int | None) -> dict[str, Any]:
        """Wait until it has come further."""
        assert done is not None
        until = time.monotonic() + 20
        while self.done < done + 3 and self.failure is None and time.monotonic() < until:
            time.sleep(0.0005)
        lost, self.lost = self.lost, 0
        return {"went on": self.done >= done + 3, "lost": lost, "failure": self.failure}


def ignore(_unraisable: object) -> None:
    """Do nothing about what finalizers raise: signals may come there as well, and what they leave is warned of."""


def say(value: Any) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


def call(path: str, with_companion: bool) -> None:
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    sys.unraisablehook = ignore
    sys.setswitchinterval(0.001)
    client = Client(path)
    companion = Companion(client) if with_companion else None
    if companion is not None:
        companion.start()
    client.connection.call("rpc.ping")
    say("ready")
    for line in sys.stdin:
        what, count = json.loads(line)
        say(client.interrupted(what, count, companion))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        seqrpc.run(Journal(), sys.argv[2], on_start=lambda _server: say("ready"))
    else:
        call(sys.argv[2], sys.argv[1] == "together")
