"""When a server has nothing to do for anybody."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from support.daemons import Stage, raw_client
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc.aio.server import hub_of
from seqrpc.aio.watchdog import status_of


class Held(seqrpc.Service):
    """Something to hold."""

    @seqrpc.method
    async def look(self) -> int:
        return 5


class Busy(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()
        self.in_thread = threading.Event()
        self.go_on = threading.Event()

    @seqrpc.method(oneway=True)
    async def note(self) -> None:
        self.stage.reach("notes")
        await self.stage.wait("may go on")

    @seqrpc.method
    async def clean_up(self) -> None:
        self.stage.reach("began")
        try:
            await asyncio.Event().wait()
        finally:
            await self.stage.wait("may go on")

    @seqrpc.method
    def work(self) -> None:
        self.in_thread.set()
        assert self.go_on.wait(PATIENCE)

    @seqrpc.method
    async def count(self) -> AsyncIterator[int]:
        for number in range(2):
            yield number
            await self.stage.wait("may go on")

    @seqrpc.method
    async def hold(self) -> Held:
        return Held()


async def test_a_connection_that_says_nothing_is_somebody(socket_path: Path) -> None:
    async with seqrpc.serve(Busy(), socket_path) as server:
        hub = hub_of(server)
        assert (hub.is_idle, hub.connections_taken, status_of(hub)) == (True, 0, "0 connections, 0 calls in flight")
        with raw_client(socket_path):
            await comes_true(lambda: not hub.is_idle)
            assert (hub.connections_taken, status_of(hub)) == (1, "1 connection, 0 calls in flight")
        await comes_true(lambda: hub.is_idle)
        assert hub.connections_taken == 1


async def test_calls_that_run_on_after_their_connections_are_something_to_do(socket_path: Path) -> None:
    service = Busy()
    async with seqrpc.serve(service, socket_path) as server:
        hub = hub_of(server)
        with raw_client(socket_path) as client:
            await client.send(2, "Busy.note", [])
            await client.send(0, 1, "Busy.clean_up", [])
            await service.stage.wait("notes")
            await service.stage.wait("began")
            assert status_of(hub) == "1 connection, 2 calls in flight"
        await comes_true(lambda: not server.connections)
        assert not hub.is_idle
        assert status_of(hub) == "0 connections, 2 calls in flight"
        service.stage.reach("may go on")
        await comes_true(lambda: hub.is_idle)


async def test_a_thread_that_runs_on_is_something_to_do(socket_path: Path) -> None:
    service = Busy()
    async with seqrpc.serve(service, socket_path) as server:
        hub = hub_of(server)
        with raw_client(socket_path) as client:
            await client.send(0, 1, "Busy.work", [])
            assert await asyncio.to_thread(service.in_thread.wait, PATIENCE)
        await comes_true(lambda: not server.connections and not hub.calls_in_flight)
        assert not hub.is_idle
        service.go_on.set()
        await comes_true(lambda: hub.is_idle)


async def test_a_stream_and_an_object_that_outlive_their_connection_are_somebody(socket_path: Path) -> None:
    service = Busy()
    async with seqrpc.serve(service, socket_path) as server:
        hub = hub_of(server)
        async with contextlib.AsyncExitStack() as stack:
            async with seqrpc.connect(socket_path) as connection:
                numbers = await stack.enter_async_context(connection.proxy(Busy).count())
                assert await anext(numbers) == 0
                held = await stack.enter_async_context(await connection.proxy(Busy).hold())
            await comes_true(lambda: not server.connections)
            assert await held.look() == 5
            assert not hub.is_idle
            assert status_of(hub) == "0 connections, 0 calls in flight, 2 held as streams and objects"
            service.stage.reach("may go on")
        await comes_true(lambda: hub.is_idle)
