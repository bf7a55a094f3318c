"""What the tests of blocking/ share: services on loops in threads, raw peers, and other sides without a loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgpack
import uvloop

import seqrpc
from seqrpc import blocking
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.protocol.decoder import Decoder
from support.waiting import PATIENCE

T = TypeVar("T")

NewLoop = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, NewLoop] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Thread(threading.Thread):
    """Runs a function; what comes of it is had by :meth:`result`."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as exc:
            self._error = exc

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread hangs"
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._result


@contextmanager
def served(
    path: Path,
    services: seqrpc.Service | Iterable[seqrpc.Service],
    new_loop: NewLoop = asyncio.new_event_loop,
    **options: Any,
) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve at an address, on a loop in a thread of its own; yield the loop."""
    began = threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with seqrpc.serve(services, path, **options):
            end = asyncio.Event()
            running.append((asyncio.get_running_loop(), end))
            began.set()
            await end.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(serve())
        finally:
            began.set()

    thread = Thread(run)
    assert began.wait(PATIENCE)
    try:
        if running:
            yield running[0][0]
    finally:
        for loop, end in running:
            loop.call_soon_threadsafe(end.set)
        thread.result()


class Far:
    """The other side of a pair, without a loop: a thread that processes what comes, as a GUI program does."""

    def __init__(self, sock: socket.socket, services: Iterable[seqrpc.Service] | seqrpc.Service, options: Any) -> None:
        self.connection = blocking.connect(sock=sock, services=services, **options)
        self._wake, self._bell = socket.socketpair()
        self._todo: list[Callable[[], object]] = []
        self._over = False
        self._thread = Thread(self._run)

    def _run(self) -> None:
        try:
            watched = self.connection.fileno()
            while not self._over:
                ready, _, _ = select.select([watched, self._wake.fileno()], [], [], PATIENCE)
                assert ready, "nothing happens at the other side"
                if self._wake.fileno() in ready:
                    self._wake.recv(1)
                while self._todo:
                    self._todo.pop(0)()
                self.connection.process()
        finally:
            self.connection.close()

    def do(self, function: Callable[[], T]) -> T:
        """Run a function in the thread of the other side."""
        done = threading.Event()
        outcome: list[Any] = []

        def work() -> None:
            try:
                outcome.append((True, function()))
            except BaseException as exc:
                outcome.append((False, exc))
            done.set()

        self._todo.append(work)
        self._bell.send(b"!")
        assert done.wait(PATIENCE)
        worked, result = outcome[0]
        if not worked:
            raise result
        returned: T = result
        return returned

    def end(self) -> None:
        self._over = True
        self._bell.send(b"!")
        self._thread.result()
        self._wake.close()
        self._bell.close()


@contextmanager
def far(
    services: Iterable[seqrpc.Service] | seqrpc.Service, *, near: Any = None, **options: Any
) -> Iterator[tuple[blocking.Connection, Far]]:
    """Yield a connection, and its other side, which has these services and runs in a thread of its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other = Far(theirs, services, {"allow": seqrpc.policy.anyone, **options})
    try:
        with blocking.connect(sock=ours, **(near or {})) as connection:
            yield connection, other
    finally:
        other.end()


class Raw:
    """A socket that knows nothing of seqrpc: what is sent over it is bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)

    def send(self, *message: Any, fds: Sequence[int] = ()) -> None:
        self.send_bytes(msgpack.packb(message), fds)

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        self.sock.sendmsg([data], rights)

    def receive(self) -> Any:
        """Return the next message, its descriptors among it closed; None at the end."""
        message, fds = self.receive_with()
        close_all(fds)
        return message

    def receive_with(self) -> tuple[Any, list[OwnedFd]]:
        """Return the next message and what came with it."""
        data, numbers, _flags, _address = socket.recv_fds(self.sock, 65_536, 253)
        fds = [OwnedFd(number) for number in numbers]
        if not data:
            return None, fds
        return self.opened(data, fds)

    @staticmethod
    def opened(data: bytes, fds: list[OwnedFd]) -> tuple[Any, list[OwnedFd]]:
        value = msgpack.unpackb(data, strict_map_key=False)
        if value[0] == 4:
            content = os.pread(fds[0].fileno(), value[1], 0)
            fds[0].close()
            return Raw.opened(content, fds[1:])
        return value, fds

    def take_socket(self, fds: list[OwnedFd], index: int = 0) -> Raw:
        """Return the raw end of a stream or a channel that came with a message; the others are closed."""
        sock = socket.socket(fileno=fds[index].detach())
        close_all(fds)
        return Raw(sock)

    def receive_end(self) -> tuple[Any, Raw]:
        """Return a message, and the end of a stream or channel that came with it."""
        message, fds = self.receive_with()
        return message, self.take_socket(fds)

    def rest(self) -> list[Any]:
        """Return all messages to the end."""
        messages = []
        while (message := self.receive()) is not None:
            messages.append(message)
        return messages

    def fill(self, data: bytes = b"x" * 1000) -> int:
        """Send until the kernel takes no more; return how many packets it took."""
        self.sock.setblocking(False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.sock.send(data)
                count += 1
        self.sock.settimeout(PATIENCE)
        return count

    def close(self) -> None:
        self.sock.close()


@contextmanager
def raw_peer(**options: Any) -> Iterator[tuple[blocking.Connection, Raw]]:
    """Yield a connection, and the raw socket at its other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    options.setdefault("allow", seqrpc.policy.anyone)
    with theirs, blocking.connect(sock=ours, **options) as connection:
        yield connection, Raw(theirs)


def decoded(data: bytes, fds: list[OwnedFd]) -> Any:
    value, problem = Decoder().decode(data, fds)
    assert problem is None
    return value


class Notes:
    """What code under test leaves behind, from any thread."""

    def __init__(self) -> None:
        self.what: list[Any] = []
        self._news = threading.Condition()

    def note(self, what: Any) -> None:
        with self._news:
            self.what.append(what)
            self._news.notify_all()

    def wait(self, number: int = 1) -> list[Any]:
        """Wait until there are so many; return all."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.what) >= number, PATIENCE), self.what
            return self.what


def readable(fd: int) -> bool:
    """Return whether a descriptor is readable now."""
    return bool(select.select([fd], [], [], 0)[0])


def comes_readable(fd: int) -> None:
    """Wait until a descriptor is readable."""
    assert select.select([fd], [], [], PATIENCE)[0]


def is_free(lock: threading.RLock) -> bool:
    """Return whether a thread that has not got a lock can get it."""
    got = lock.acquire(timeout=PATIENCE)
    if got:
        lock.release()
    return got
