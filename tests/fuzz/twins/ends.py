"""Both ends of the connections of a case: what is done with raw ones, and what is known of those of seqrpc."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import hashlib
import io
import os
import re
import socket
import struct
import termios
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack
from fuzz.twins.told import steady

from seqrpc import OwnedFd
from seqrpc.aio.connection import link_of
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.aio.link import Link

_INCIDENT = re.compile(rb"incident [0-9a-f]{8}")
_DEADLINE = re.compile(rb"deadline\xcf\x00[\x00-\x0f][\s\S]{6}")  # of a timeout, and none that is in a script


OTHER_USER = 4711
"""The uid of callers who are somebody else; only root can be."""


@dataclass
class Peer:
    """A connection: its raw end, and the seqrpc end or ends."""

    name: str
    kind: str
    raw: socket.socket | None = None
    client: Any = None
    link: Link | None = None
    server: Any = None  # of its own, on a pair
    deaf: bool = False
    over: bool = False
    seen: Any = None  # the state that was written into the diary last
    calls: list[asyncio.Task[Any]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    """The ids of calls that the raw end received and did not answer."""

    def asks(self, data: bytes) -> None:
        """Remember a request."""
        if data[:2] == b"\x94\x00" or data[:2] == b"\x95\x00":
            self.asked.append(msgpack.Unpacker(io.BytesIO(data[2:12] + bytes(9))).unpack())

    def answered(self, which: int, width: int) -> bytes:
        """Return the id of the one that is answered, as it is written; of none that was asked if there is none."""
        call_id = which % (1 << 32)
        if self.asked and -len(self.asked) <= which < len(self.asked):
            call_id = self.asked.pop(which) if width != 3 else self.asked[which]  # which is answered once more
        if width in (0, 3):
            return bytes(msgpack.packb(call_id))
        return struct.pack(">BI" if width == 1 else ">BQ", 0xCE if width == 1 else 0xCF, call_id)


def owned() -> OwnedFd:
    return OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def shut() -> OwnedFd:
    fd = owned()
    fd.close()
    return fd


def close_owned(value: Any) -> None:
    if isinstance(value, OwnedFd):
        value.close()
    elif isinstance(value, list | tuple):
        for item in value:
            close_owned(item)
    elif isinstance(value, dict):
        for item in value.values():
            close_owned(item)


@contextlib.contextmanager
def as_another(really: bool) -> Iterator[None]:
    """Be another user for a moment, if that can be."""
    if not really:
        yield
        return
    os.seteuid(OTHER_USER)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def some_descriptors(number: int) -> Iterator[list[int]]:
    """Lend descriptors of files of all kinds: those of which it is known that closing takes no time, and others."""
    numbers = [_new_file(each) for each in range(number)]
    try:
        yield numbers
    finally:
        for fd in numbers:
            os.close(fd)


def _new_file(which: int) -> int:
    kind = which % 6
    if kind == 0:
        return os.open(__file__, os.O_RDONLY | os.O_CLOEXEC)
    if kind == 1:
        reader, writer = os.pipe()
        os.close(writer)
        return reader
    if kind == 2:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    if kind == 3:
        return os.eventfd(0, os.EFD_CLOEXEC)
    if kind == 4:
        return os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    one, other = socket.socketpair()
    other.close()
    return one.detach()


def close_received(control: list[tuple[int, int, bytes]]) -> list[str]:
    """Close descriptors that a raw end was sent; return what came."""
    came = []
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            for fd in array.array("i", data[: len(data) // 4 * 4]):
                came.append("socket" if _is_socket(fd) else "file")
                os.close(fd)
        else:
            came.append(str(kind))
    return came


def _is_socket(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")


def queued(peer: Peer) -> tuple[int, ...]:
    """Return how much waits in the sockets of a connection, and in its outlets."""
    found = []
    ends: list[socket.socket] = [peer.raw] if peer.raw is not None and not peer.over else []
    for link in filter(None, (peer.link, None if peer.client is None else link_of(peer.client))):
        if not link.closed:
            ends.append(link.transport.get_extra_info("socket"))
            found += [link.transport.get_write_buffer_packets(), len(link.session.calls), len(link.session.requests)]
    for sock in ends:
        if sock.fileno() >= 0:
            for ask in (termios.FIONREAD, termios.TIOCOUTQ):
                found.append(struct.unpack("i", fcntl.ioctl(sock.fileno(), ask, bytes(4)))[0])
    return tuple(found)


def state_of(link: Link) -> Any:
    """Return what a connection knows of itself."""
    session = link.session
    if link.closed:
        why = steady(repr(link._reason))
        return ["closed", sorted(session.requests), sorted(session.calls), session.closing_sent, why]
    intake = link.transport._carrier.intake
    dispatcher = link.handler
    assert isinstance(dispatcher, Dispatcher)
    running, pace = dispatcher.running, dispatcher._starter.pace
    requests: Any = session.requests.values()
    return [
        sorted(session.calls), sorted(session.given_up), sorted(session.requests), session.closing_sent,
        session.closing_received, session._next_id, session._was_asked, link.account.held[:6], link.writing_paused,
        link.quiet_sweeps, link.is_held, intake.is_reading, intake._lone_wakeups, link.transport.is_closing(),
        link.transport._carrier.sends_at_once, link.transport.get_write_buffer_packets(), link.calls.turns.waiting,
        [running.number, running._held_bytes, running.is_attended], [pace.started, pace.waiting, pace.turn_ends > 0],
        [None if call is None else (call.request.method, call.has_begun, call.code) for call in requests],
    ]  # fmt: skip


def told_packet(data: bytes) -> str:
    """Return a packet as hexadecimal digits, without names of incidents and times; of a long one most is left out."""
    if b"latency_bounds" in data or b"openrpc" in data:
        return "what a server tells of itself"
    data = _INCIDENT.sub(b"incident --------", data)
    data = _DEADLINE.sub(b"deadline \xcf--------", data)
    hexed = data.hex()
    return hexed if len(hexed) < 2000 else f"{hexed[:200]}… {len(data)} {hash_of(data)}"


def hash_of(data: bytes) -> str:
    """Return a short name for long bytes."""
    return hashlib.sha256(data).hexdigest()[:16]
