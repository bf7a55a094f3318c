"""What the tests of aio/producers have in common: the writing end of a stream, with a raw socket for its reader."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from seqrpc import OwnedFd, RpcError
from seqrpc.aio.accounts import Account
from seqrpc.aio.departures import StreamDeparture
from seqrpc.aio.producers import Producer
from seqrpc.aio.streams import Stream
from seqrpc.calls.departures import Source
from seqrpc.kernel.descriptors import ValueFd, close_all
from seqrpc.limits import Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.items import ItemReader
from seqrpc.protocol.values import EXT_STREAM, BareValues
from support.packets import readable
from support.waiting import comes_true

LIMITS = Limits(max_message_bytes=200_000)


class Wrong(RpcError, code="producers.Wrong"):
    """An error of an application's own."""


class Reading:
    """A producer, and the raw socket at its other end."""

    def __init__(
        self, items: AsyncIterable[Any], fds: list[OwnedFd] | None = None, account: Account | None = None
    ) -> None:
        self.started: list[Producer] = []
        self.ended: list[Producer] = []
        departure = StreamDeparture(
            Source(items, "m", fds),
            Encoder(LIMITS),
            self.started.append,
            self.ended.append,
            dropped=lambda: None,
            account=account,
        )
        assert departure.ext_type == EXT_STREAM
        self.raw = socket.socket(fileno=os.dup(departure.fileno()))
        self.raw.setblocking(False)
        departure.sent()
        (self.producer,) = self.started

    async def packet(self) -> Any:
        """Return the next packet, None at the end; its descriptors are closed."""
        while True:
            await readable(self.raw)
            data, numbers, _flags, _address = socket.recv_fds(self.raw, 65_536, 253)
            fds = [OwnedFd(number) for number in numbers]
            try:
                return self.message(data, fds) if data else None
            finally:
                close_all(fds)

    @staticmethod
    def message(data: bytes, fds: list[OwnedFd]) -> Any:
        value, problem = Decoder().decode(data, fds)
        if value[0] == 4:
            return Reading.message(os.pread(fds[0].fileno(), value[1], 0), fds[1:])
        assert problem is None
        return value

    async def packets(self) -> list[Any]:
        """Return all packets until the end."""
        packets = []
        while (packet := await self.packet()) is not None:
            packets.append(packet)
        return packets

    async def items(self) -> list[Any]:
        """Return all items until a regular end."""
        *packets, last = await self.packets()
        assert last == [1, None]
        assert all(packet[0] == 0 for packet in packets)
        return [item for packet in packets for item in packet[1:]]

    def stream(self) -> Stream[Any]:
        """Return a stream that reads what is produced."""
        return Stream(ValueFd(os.dup(self.raw.fileno())), ItemReader(Decoder(LIMITS), LIMITS.max_message_bytes))

    async def until_ended(self) -> None:
        await comes_true(lambda: self.ended == [self.producer])


@asynccontextmanager
async def produced(
    items: AsyncIterable[Any], fds: list[OwnedFd] | None = None, account: Account | None = None
) -> AsyncIterator[Reading]:
    """Return the reading end of a producer, which has ended afterwards."""
    tasks = asyncio.all_tasks()
    reading = Reading(items, fds, account)
    try:
        yield reading
    finally:
        reading.raw.close()
        await reading.until_ended()
        assert asyncio.all_tasks() == tasks


class Given(BareValues):
    """Remembers what was given up."""

    def __init__(self) -> None:
        self.up: list[Any] = []

    def travels(self, value: Any) -> bool:
        return isinstance(value, Source)

    def give_up(self, value: Any) -> None:
        self.up.append(value)


class Log:
    """What generators leave behind."""

    def __init__(self) -> None:
        self.what: list[str] = []

    def note(self, what: str) -> None:
        self.what.append(what)


async def counting(end: int) -> AsyncIterator[int]:
    for number in range(end):
        yield number


async def endless(log: Log, item: Any = b"x" * 1000) -> AsyncIterator[Any]:
    """Yield without an end, and note that it was stopped."""
    try:
        while True:
            yield item
    finally:
        log.note("finally")


async def once(item: Any, log: Log) -> AsyncIterator[Any]:
    """Yield one item, wait for ever, and note that it was stopped."""
    try:
        yield item
        log.note("waiting")
        await asyncio.Event().wait()
    finally:
        log.note("finally")
