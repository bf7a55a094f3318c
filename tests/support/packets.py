"""What the tests of transports and connections share: raw sockets on a loop, and a protocol that remembers."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from seqrpc import Credentials, OwnedFd, SeqpacketProtocol, SeqpacketTransport
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import close_all
from seqrpc.limits import CLOSING_THREADS_OF_ONE, DEFAULT_LIMITS, MAX_UNCLOSED_OF_ONE, Limits
from seqrpc.protocol.codec import Codec

DEADLINE = 30.0
"""Seconds after which something that should happen has not: only a bug waits that long."""


def raw_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected ends as the kernel makes them, non-blocking."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
    return pair


async def happens(event: Callable[[], bool], news: asyncio.Event) -> None:
    """Wait until ``event()`` is true; ``news`` is set whenever that may have changed."""
    async with asyncio.timeout(DEADLINE):
        while not event():
            news.clear()
            await news.wait()


async def turns_of_the_loop(number: int = 10) -> None:
    """Let the loop go round: what was due has happened then. For what should *not* happen, and only for that."""
    for _ in range(number):
        await asyncio.sleep(0)


async def readable(sock: socket.socket) -> None:
    """Wait until a raw socket has something to read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock.fileno(), ready.set)
    try:
        async with asyncio.timeout(DEADLINE):
            await ready.wait()
    finally:
        loop.remove_reader(sock.fileno())


async def receive(sock: socket.socket) -> bytes:
    """Return the next packet of a raw socket, or nothing at its end."""
    while True:
        try:
            return sock.recv(100_000, socket.MSG_DONTWAIT)
        except BlockingIOError:
            await readable(sock)


async def receive_to_the_end(sock: socket.socket) -> list[bytes]:
    """Return all packets until the end of a raw socket."""
    packets = []
    while packet := await receive(sock):
        packets.append(packet)
    return packets


def send_with(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    """Send a packet with descriptors."""
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))], socket.MSG_DONTWAIT)


def fill(sock: socket.socket, data: bytes = b"x" * 1000) -> int:
    """Send until the kernel takes no more; return how many packets it took."""
    count = 0
    while True:
        try:
            sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return count
        count += 1


def wire(*message: Any) -> bytes:
    """Return the packet of a message, as a peer in any language would send it."""
    return bytes(Codec().encode(message)[0])


def unwire(data: bytes) -> Any:
    """Return the message of a packet that came without descriptors."""
    value, problem = Codec().decode(data, [])
    assert problem is None
    return value


@contextmanager
def files(number: int) -> Iterator[list[OwnedFd]]:
    """Return open descriptors of the null device, closed at the end if nobody took them."""
    fds = [OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) for _ in range(number)]
    every = list(fds)
    try:
        yield fds
    finally:
        close_all(every)


class Recorder(SeqpacketProtocol):
    """Remembers what its transport tells it; ``until`` waits for it."""

    def __init__(self) -> None:
        self.transport: SeqpacketTransport
        self.packets: list[bytes] = []
        self.fds: list[list[OwnedFd]] = []
        self.senders: list[Credentials | None] = []
        self.told: list[str] = []
        self.reason: Exception | None = None
        self.news = asyncio.Event()
        self.on_packet: Callable[[bytes], None] = lambda data: None

    def tell(self, what: str) -> None:
        self.told.append(what)
        self.news.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SeqpacketTransport)
        self.transport = transport
        self.tell("made")

    def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: Credentials | None) -> None:
        self.packets.append(data)
        self.fds.append(fds)
        self.senders.append(credentials)
        self.news.set()
        self.on_packet(data)

    def pause_writing(self) -> None:
        self.tell("paused")

    def resume_writing(self) -> None:
        self.tell("resumed")

    def eof_received(self) -> None:
        self.tell("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.reason = exc
        self.tell("lost")

    async def until(self, event: Callable[[], bool]) -> None:
        await happens(event, self.news)

    async def until_packets(self, number: int) -> None:
        await self.until(lambda: len(self.packets) >= number)

    async def until_told(self, what: str) -> None:
        await self.until(lambda: what in self.told)

    async def end(self) -> None:
        """Abort the transport, and close all descriptors that came."""
        self.transport.abort()
        await self.until_told("lost")
        for fds in self.fds:
            close_all(fds)


def on_transport(
    sock: socket.socket, protocol: Recorder | None = None, limits: Limits = DEFAULT_LIMITS
) -> tuple[SeqpacketTransport, Recorder]:
    """Return a transport on a raw socket, and what remembers what it tells."""
    protocol = Recorder() if protocol is None else protocol
    return SeqpacketTransport(asyncio.get_running_loop(), sock, protocol, limits), protocol


@contextmanager
def table_full() -> Iterator[None]:
    """Let this process get no new descriptor inside the block: what arrives is lost, ``accept`` fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let this process write no longer files inside the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def comes_true(condition: Callable[[], bool]) -> None:
    """Let the loop go round until something is so that nobody tells of."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await turns_of_the_loop(1)


@contextmanager
def no_room(uid: int | None) -> Iterator[threading.Event]:
    """Let as many descriptors of somebody's wait as may; the event lets them be closed."""
    lifted = threading.Event()
    for _ in range(MAX_UNCLOSED_OF_ONE):
        CLOSER.put(-1, uid, lifted.wait)
    try:
        yield lifted
    finally:
        lifted.set()
        assert CLOSER.wait_idle(DEADLINE)


@contextmanager
def short_table(left: int = 10) -> Iterator[None]:
    """Let this process have only a few descriptors more, and know it."""
    lowest_free = os.dup(0)
    os.close(lowest_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + left, hard))
    CLOSER.near_full = CLOSER.careful = True
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not CLOSER.is_table_short()
        assert CLOSER.has_room(None)
        assert not CLOSER.careful


@contextmanager
def stalled(uid: int | None) -> Iterator[threading.Event]:
    """Keep all threads waiting that may close what somebody sent; the event lets them go on."""
    begun, lifted = threading.Semaphore(0), threading.Event()

    def wait() -> None:
        begun.release()
        lifted.wait()

    for _ in range(CLOSING_THREADS_OF_ONE):
        CLOSER.put(-1, uid, wait)
        assert begun.acquire(timeout=DEADLINE)
    try:
        yield lifted
    finally:
        lifted.set()
        assert CLOSER.wait_idle(DEADLINE)
