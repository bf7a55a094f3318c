"""Ten thousand streams, ended in every way there is, leave nothing, and every generator's ``finally`` runs (bar 3).

Server and client share this process, so both are watched; who dies is a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemons import daemon, said_ready
from support.descriptors import open_fds
from support.waiting import comes_true

import seqrpc
from seqrpc import Connection, RpcError, Server, Stream, Unavailable
from seqrpc.aio.producers import Producer
from seqrpc.aio.server import hub_of

CALLS = int(os.environ.get("SEQRPC_LEAK_CALLS", "10000"))
"""Streams of all kinds together; there are seven."""

EACH = max(1, CALLS // 7)

AT_ONCE = 64

A_PROCESS = 300
"""Streams of one process that dies."""


class Broken(RpcError, code="streams_end.Broken"):
    """What a generator raises."""


class Streams(seqrpc.Service):
    """Streams of every kind, and how many of them began and were ended."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0

    @seqrpc.method
    async def count(self, end: int) -> AsyncIterator[int]:
        self.begun += 1
        try:
            for number in range(end):
                yield number
        finally:
            self.ended += 1

    @seqrpc.method
    async def endless(self) -> AsyncIterator[bytes]:
        self.begun += 1
        try:
            while True:
                yield b"x" * 60_000
        finally:
            self.ended += 1

    @seqrpc.method
    async def quiet(self) -> AsyncIterator[int]:
        self.begun += 1
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # it may wait even there
            self.ended += 1

    @seqrpc.method
    async def broken(self) -> AsyncIterator[int]:
        self.begun += 1
        try:
            yield 0
            raise Broken("as it should")
        finally:
            self.ended += 1


class Scene:
    """A service, its server, and a client of both."""

    def __init__(self, service: Streams, server: Server, connection: Connection, path: Path) -> None:
        self.service = service
        self.server = server
        self.connection = connection
        self.path = path
        self.proxy = connection.proxy(Streams)

    @property
    def producers(self) -> list[Producer]:
        return [held for held in hub_of(self.server).held.living if isinstance(held, Producer)]

    async def until_ended(self, number: int) -> None:
        """Wait until so many generators began, and all were ended."""
        await comes_true(lambda: self.service.begun == self.service.ended == number)
        await comes_true(lambda: not hub_of(self.server).held.living)


@asynccontextmanager
async def scene(path: Path) -> AsyncIterator[Scene]:
    """Serve the streams; check that the block leaves neither a descriptor nor a task, nor a generator that runs."""
    service = Streams()
    async with seqrpc.serve(service, path) as server, seqrpc.connect(path) as connection:
        await connection.call("rpc.ping")
        fds, tasks, connections = open_fds(), asyncio.all_tasks(), server.connections
        it = Scene(service, server, connection, path)
        yield it
        await it.until_ended(service.begun)
        await comes_true(lambda: server.connections == connections and asyncio.all_tasks() == tasks)
        await comes_true(lambda: open_fds() == fds)


async def in_waves(number: int, size: int, wave: Callable[[int], Awaitable[None]]) -> None:
    """Do so many, several at a time."""
    for first in range(0, number, size):
        await wave(min(size, number - first))


async def together(number: int, story: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(_awaiting(story))


async def _awaiting(story: Callable[[], Awaitable[None]]) -> None:
    await story()


async def test_streams_that_end_leave_nothing(socket_path: Path) -> None:
    async with scene(socket_path) as it:

        async def read() -> None:
            assert [number async for number in it.proxy.count(3)] == [0, 1, 2]

        await in_waves(EACH, AT_ONCE, lambda number: together(number, read))
        await it.until_ended(EACH)


async def test_streams_whose_reader_breaks_leave_nothing(socket_path: Path) -> None:
    async with scene(socket_path) as it:

        async def read() -> None:
            async for _item in it.proxy.endless():
                break

        await in_waves(EACH, AT_ONCE, lambda number: together(number, read))
        await it.until_ended(EACH)


async def test_streams_whose_producer_raises_leave_nothing(socket_path: Path) -> None:
    async with scene(socket_path) as it:

        async def read() -> None:
            stream = it.proxy.broken()
            assert await anext(stream) == 0
            with pytest.raises(Broken, match="as it should"):
                await anext(stream)

        await in_waves(EACH, AT_ONCE, lambda number: together(number, read))
        await it.until_ended(EACH)


@pytest.mark.parametrize("full", [False, True], ids=["empty", "full"])
async def test_streams_whose_reader_is_cancelled_leave_nothing(socket_path: Path, full: bool) -> None:
    async with scene(socket_path) as it:
        reading = 0

        async def read() -> None:
            nonlocal reading
            async for _item in it.proxy.endless() if full else it.proxy.quiet():
                reading += 1
                if full:
                    await asyncio.Event().wait()

        async def wave(number: int) -> None:
            nonlocal reading
            reading = 0
            tasks = [asyncio.create_task(read()) for _ in range(number)]
            await comes_true(lambda: reading == number)
            if full:
                await comes_true(lambda: all(producer._room is not None for producer in it.producers))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)

        await in_waves(EACH, AT_ONCE, wave)
        await it.until_ended(EACH)


# Those who die

_READER = """
import asyncio, sys
import seqrpc

async def main():
    number = int(sys.argv[2])
    async with seqrpc.connect(sys.argv[1]) as connection:
        streams = [await connection.call("Streams.quiet" if n % 2 else "Streams.endless") for n in range(number)]
        for stream in streams:
            await anext(stream)
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

_PRODUCER = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
import seqrpc
from test_streams_end import Streams

async def main():
    async with seqrpc.serve(Streams(), sys.argv[1]) as server:
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def process(program: str, *arguments: object) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run a program until it says that it is ready; at the end of the block it is killed."""
    with daemon(program, *map(str, arguments)) as child:
        await said_ready(child)
        yield child


async def test_streams_whose_reader_dies_leave_nothing(socket_path: Path) -> None:
    async def wave(number: int) -> None:
        before = it.service.ended
        async with process(_READER, socket_path, number):
            assert it.service.begun - before == number
            assert it.service.ended == before
        await it.until_ended(before + number)

    async with scene(socket_path) as it:
        await in_waves(EACH, A_PROCESS, wave)
        await it.until_ended(EACH)


async def test_streams_whose_producer_dies_leave_nothing(socket_path: Path) -> None:
    here = Path(__file__).parent

    async def wave(number: int) -> None:
        path = socket_path.with_suffix(".dying")
        async with process(_PRODUCER, path, here, here.parent) as child, seqrpc.connect(path) as connection:
            streams: list[Stream[Any]] = [await connection.call("Streams.quiet") for _ in range(number)]
            assert [await anext(stream) for stream in streams] == [0] * number
            waiting = [asyncio.ensure_future(anext(stream)) for stream in streams[::2]]
            child.kill()
            for task in waiting:
                with pytest.raises(Unavailable, match="died"):
                    await task
            for stream in streams[1::2]:
                with pytest.raises(Unavailable, match="died"):
                    await anext(stream)

    async with scene(socket_path):
        await in_waves(EACH, A_PROCESS, wave)
