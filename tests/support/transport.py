"""A protocol that remembers, and what else the tests of transports have in common."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

import seqrpc
from seqrpc import Credentials, OwnedFd, SeqpacketProtocol, SeqpacketTransport
from seqrpc.aio.gate import Gate
from seqrpc.aio.transport import carrier_of
from seqrpc.kernel.descriptors import close_all
from seqrpc.limits import DEFAULT_LIMITS, Limits
from support.processes import AS_ROOT
from support.waiting import happens

as_root = pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")

Pair = tuple[socket.socket, socket.socket]


def queue_one(transport: SeqpacketTransport) -> None:
    """Fill the kernel's buffer until a packet has to wait in the transport's own queue."""
    while not transport.get_write_buffer_packets():
        transport.send_packet(b"filling")


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


def is_watching(transport: SeqpacketTransport) -> bool:
    """Return whether the loop watches for room for what waits."""
    outlet = carrier_of(transport).outlet
    return outlet is not None and outlet.watching


def gate_of(transport: SeqpacketTransport) -> Gate | None:
    """Return what holds up packets with descriptors, if any have been held up."""
    return carrier_of(transport).intake._gate


def oversized(sock: socket.socket) -> None:
    """Send a packet that is too long."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
    sock.send(b"x" * 70_000)


def make_room_for_little(sock: socket.socket) -> None:
    """Let the kernel find packets of some thousand bytes too long: EMSGSIZE."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5_000)


class Tolerant(Recorder):
    """Takes what is not whole in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: list[Any] = []

    def packet_truncated(self, size: int) -> bool:
        self.cut.append(size)
        self.news.set()
        return True

    def descriptors_lost(self, data: bytes, credentials: seqrpc.Credentials | None) -> bool:
        assert credentials is not None
        self.cut.append((data, credentials.uid))
        self.news.set()
        return True
