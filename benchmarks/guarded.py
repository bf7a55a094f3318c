"""The calls that the guard counts: both sides in one process, on one loop, over a listener."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import seqrpc
from benchmarks.peers.base import RECORD, Record
from benchmarks.workloads import IN_FLIGHT


class Guarded(seqrpc.Service):
    """What is called."""

    def __init__(self) -> None:
        self.taken = asyncio.Event()

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def record(self, record: Record) -> Record:
        return record

    @seqrpc.method
    async def waits(self, a: int) -> int:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[int] = loop.create_future()
        loop.call_soon(waiter.set_result, a)
        return await waiter

    @seqrpc.method
    async def descriptor(self, file: seqrpc.OwnedFd) -> int:
        return file.fileno()  # not detached: closed when this returns

    @seqrpc.method
    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @seqrpc.method
    async def numbers_one_by_one(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
            await self.taken.wait()
            self.taken.clear()


@dataclass
class Caller:
    """What calls it, and what that needs."""

    proxy: Guarded
    service: Guarded
    file: seqrpc.OwnedFd


@asynccontextmanager
async def ready(address: str) -> AsyncIterator[Caller]:
    """Serve, and connect."""
    service = Guarded()
    async with seqrpc.serve(service, address), seqrpc.connect(address) as connection:
        with seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) as file:
            yield Caller(connection.proxy(Guarded), service, file)


async def _lone(caller: Caller, count: int) -> None:
    for _ in range(count):
        assert await caller.proxy.add(2, 3) == 5


async def _in_flight(caller: Caller, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(_lone(caller, count // IN_FLIGHT))


async def _record(caller: Caller, count: int) -> None:
    for _ in range(count):
        assert (await caller.proxy.record(RECORD)).id == RECORD.id


async def _deadline(caller: Caller, count: int) -> None:
    for _ in range(count):
        async with seqrpc.timeout(60):
            assert await caller.proxy.add(2, 3) == 5


async def _waits(caller: Caller, count: int) -> None:
    for _ in range(count):
        assert await caller.proxy.waits(5) == 5


async def _descriptor(caller: Caller, count: int) -> None:
    for _ in range(count):
        assert await caller.proxy.descriptor(caller.file) >= 0


async def _stream(caller: Caller, count: int) -> None:
    expected = 0
    async for number in caller.proxy.numbers(count):
        assert number == expected
        expected += 1
    assert expected == count


async def _stream_lone(caller: Caller, count: int) -> None:
    expected = 0
    async for number in caller.proxy.numbers_one_by_one(count):
        assert number == expected
        expected += 1
        caller.service.taken.set()
    assert expected == count


@dataclass(frozen=True)
class Kind:
    """A kind of call, and two lengths of a run of it: the guard counts what the longer one has more."""

    what: str
    go: Callable[[Caller, int], Awaitable[None]]
    short: int = 16
    long: int = 80
    unit: int = 1
    """As many are one, in the figures."""

    @property
    def units(self) -> float:
        """How many units the longer run has more."""
        return (self.long - self.short) / self.unit


KINDS: dict[str, Kind] = {
    "lone": Kind("a typed call", _lone),
    "in-flight": Kind(f"a typed call, {IN_FLIGHT} of them at a time", _in_flight, 2 * IN_FLIGHT, 6 * IN_FLIGHT),
    "record": Kind("a dataclass of twenty fields each way", _record),
    "waits": Kind("a handler that waits once", _waits),
    "descriptor": Kind("an open file to the handler", _descriptor),
    "stream": Kind("a hundred items of a stream, one right behind another", _stream, 2_560, 7_680, 100),
    "stream-lone": Kind("an item of a stream, made when the one before it was read", _stream_lone),
    # The last, for the loop's timer of deadlines stays set for a while, and asyncio's loop looks at it in each turn.
    "deadline": Kind("a typed call inside a deadline", _deadline),
}
