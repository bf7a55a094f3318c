"""What the tests of aio/link have in common: a session on a transport, with a raw socket or another opposite."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from seqrpc import (
    Overloaded,
    OwnedFd,
)
from seqrpc.aio.link import Link, LinkOwner
from seqrpc.aio.transport import SeqpacketTransport
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import close_all
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.admission import Admission, Admits, Refused
from seqrpc.protocol.messages import Request
from seqrpc.protocol.values import Living
from support.admission import Admitting
from support.descriptors import owned
from support.packets import fill, raw_pair, receive, send_with, unwire, wire
from support.scarcity import table_full
from support.waiting import turns_of_the_loop


class Handler:
    """Remembers what comes in, and answers when it is told to."""

    def __init__(self) -> None:
        self.connection: Link
        self.requests: list[Request] = []
        self.callers: list[Credentials | None] = []
        self.cancelled: list[int] = []
        self.lost = 0
        self.on_request: Callable[[Request], None] = lambda request: None
        self.refused: list[Refused] = []
        self.admitted = True
        self._admitting = Admitting(self._refusal)

    def _refusal(self, method: str) -> tuple[str, str] | None:
        return None if self.admitted else ("rpc.PermissionDenied", f"{method}: this caller is not admitted")

    @property
    def admission(self) -> Admission:
        return self

    @property
    def policies(self) -> Mapping[str, Admits]:
        return self._admitting.policies

    @property
    def unread(self) -> set[str]:
        return self._admitting.unread

    def connection_made(self, link: Link) -> None:
        self.connection = link

    def denied(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        raise AssertionError(f"{method} has no policy")

    def unknown(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        return "rpc.PermissionDenied", f"{method}: this caller is not admitted"

    def lack_of_room(self, size: int) -> str | None:
        assert size
        return None

    def lack_of_descriptors(self) -> str | None:
        return None

    def request_refused(self, refused: Refused, caller: Credentials | None) -> None:
        self.refused.append(refused)

    def request_received(self, request: Request, caller: Credentials | None) -> None:
        self.requests.append(request)
        self.callers.append(caller)
        self.on_request(request)

    def cancel_received(self, call_id: int) -> None:
        self.cancelled.append(call_id)

    def connection_lost(self) -> None:
        self.lost += 1
        for request in self.requests:
            close_all(request.fds)

    def echo(self, request: Request) -> None:
        """Answer with what came, and let go of its descriptors."""
        if request.call_id is not None:
            try:
                self.connection.answers.send_result(request.call_id, request.params)
            except Overloaded as exc:
                self.connection.answers.send_error(request.call_id, exc.code, exc.message)
        close_all(request.fds)


class End:
    """A connection, whoever answers at it, and the socket below."""

    def __init__(
        self, sock: socket.socket, limits: Limits, living: Living | None = None, owner: LinkOwner | None = None
    ) -> None:
        self.sock = sock
        self.handler = Handler()
        self.connection = Link(self.handler, limits, living, owner)
        self.calls: list[asyncio.Task[Any]] = []
        self.transport = SeqpacketTransport(asyncio.get_running_loop(), sock, self.connection, limits)
        self.answers = self.connection.answers
        """What a handler keeps, also when the connection has ended."""

    def call(self, method: str, *params: Any, **options: Any) -> asyncio.Task[Any]:
        self.calls.append(asyncio.create_task(self.connection.caller.request(method, params, **options)))
        return self.calls[-1]

    async def finish(self) -> None:
        """Wait for the calls that the test does not look at."""
        await asyncio.gather(*self.calls, return_exceptions=True)

    def jam(self) -> None:
        """Fill the socket and the transport's queue, until calls must wait."""
        fill(self.sock)
        while not self.connection.writing_paused:
            self.transport.send_packet(wire(9, b"x" * 60_000))


@asynccontextmanager
async def one_end(
    limits: Limits = DEFAULT_LIMITS, living: Living | None = None, owner: LinkOwner | None = None
) -> AsyncIterator[tuple[End, socket.socket]]:
    """Return a connection and the raw socket at its other end."""
    ours, theirs = raw_pair()
    end = End(ours, limits, living, owner)
    try:
        yield end, theirs
    finally:
        theirs.close()
        end.transport.abort()
        await end.connection.wait_closed()
        await end.finish()
        assert end.handler.lost == 1


@asynccontextmanager
async def both_ends(limits: Limits = DEFAULT_LIMITS, others: Limits | None = None) -> AsyncIterator[tuple[End, End]]:
    """Return two connections to one another, which answer what they are asked."""
    ends = [End(sock, bounds) for sock, bounds in zip(raw_pair(), (limits, others or limits), strict=True)]
    for end in ends:
        end.handler.on_request = end.handler.echo
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            await end.connection.close()
            await end.finish()


async def next_message(raw: socket.socket) -> Any:
    """Return the next message that is none of those that only fill the socket."""
    while True:
        message = await receive(raw)
        if message and (message == b"x" * 1000 or unwire(message)[0] == 9):
            continue
        return unwire(message)


def same_files(fds: list[OwnedFd], others: tuple[int, ...]) -> bool:
    return all(os.path.sameopenfile(fd.fileno(), other) for fd, other in zip(fds, others, strict=True))


def soon() -> int:
    return time.monotonic_ns() + 20_000_000


async def raises(
    kind: type[BaseException] | tuple[type[BaseException], ...],
    call: Coroutine[Any, Any, Any] | asyncio.Task[Any],
    match: str | None = None,
) -> Any:
    with pytest.raises(kind, match=match) as caught:
        await call
    return caught.value


async def lose_descriptors(end: End, raw: socket.socket, message: bytes) -> None:
    """Send a message with two descriptors that will not arrive."""
    with owned(2) as fds:
        end.transport.pause_reading()
        send_with(raw, message, [fd.fileno() for fd in fds])
        with table_full():
            end.transport.resume_reading()
            while True:
                try:
                    raw_unread = end.sock.recv(1, socket.MSG_PEEK)
                except (BlockingIOError, OSError):
                    return
                assert raw_unread
                await turns_of_the_loop(1)


LARGE = b"x" * 200_000

SMALL_LIMIT = Limits(max_message_bytes=100_000)

TAKES_NONE = "the other side takes no descriptors, nor messages of more than 65536 bytes"
