"""What the tests of aio/streams have in common: the reading end of a stream, with a raw socket for its producer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from seqrpc import (
    RpcError,
)
from seqrpc.aio.streams import Stream, reader_of
from seqrpc.kernel import memfd
from seqrpc.kernel.descriptors import ValueFd, value_fd
from seqrpc.limits import Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.items import ItemReader
from support.packets import raw_pair, receive, send_with, wire
from support.waiting import comes_true

END = wire(1, None)

LIMITS = Limits(max_message_bytes=200_000)


class Wrong(RpcError, code="streams.Wrong"):
    """An error of an application's own."""


def stream_on(sock: socket.socket) -> Stream[Any]:
    """Return a stream that reads a socket, which is its own from now on."""
    return Stream(ValueFd(sock.detach()), ItemReader(Decoder(LIMITS), LIMITS.max_message_bytes))


@asynccontextmanager
async def reading(*packets: bytes) -> AsyncIterator[tuple[Stream[Any], socket.socket]]:
    """Return a stream, and the raw socket of its producer, which has sent some packets."""
    ours, theirs = raw_pair()
    stream = stream_on(ours)
    for packet in packets:
        theirs.send(packet)
    try:
        yield stream, theirs
    finally:
        await stream.aclose()
        theirs.close()


async def is_closed(raw: socket.socket) -> bool:
    """Return whether the producer is told that nobody reads; fails if that never happens."""
    return await receive(raw) == b""


async def all_of(stream: Stream[Any]) -> list[Any]:
    return [item async for item in stream]


def waits(task: asyncio.Task[Any], stream: Stream[Any]) -> bool:
    return not task.done() and reader_of(stream)._waiter is not None


async def next_item_of(stream: Stream[Any]) -> asyncio.Task[Any]:
    """Return a task that waits for the next item."""
    task = asyncio.ensure_future(anext(stream))
    await comes_true(lambda: waits(task, stream))
    return task


def send_spilled(raw: socket.socket, *message: Any, fds: Sequence[int] = ()) -> int:
    """Send a message as a memory file; return its length."""
    data = wire(*message)
    with memfd.sealed("item", data) as file:
        send_with(raw, wire(4, len(data)), [file.fileno(), *fds])
    return len(data)


def small(items: list[Any]) -> list[Any]:
    """Make strings of small numbers."""
    if any(item is None or item >= 10 for item in items):
        raise Wrong("too large")
    return [str(item) for item in items]


async def watched_stream() -> tuple[Stream[Any], socket.socket]:
    """Return a stream whose socket the loop watches."""
    ours, theirs = raw_pair()
    stream = stream_on(ours)
    task = await next_item_of(stream)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert reader_of(stream)._loop is asyncio.get_running_loop()
    return stream, theirs


@asynccontextmanager
async def received_stream(*packets: bytes) -> AsyncIterator[tuple[Stream[Any], socket.socket]]:
    """Return a stream that somebody sent, and the raw socket at its other end."""
    ours, theirs = raw_pair()
    for packet in packets:
        theirs.send(packet)
    stream: Stream[Any] = Stream(value_fd(ours.detach(), 1001), ItemReader(Decoder(), 1 << 20))
    async with stream:
        yield stream, theirs
    theirs.close()
