"""Handlers that stop their own server, and how long that may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest
from support.daemons import Stage, said_closing
from support.descriptors import open_fds
from support.waiting import PATIENCE

import seqrpc
from seqrpc.aio.server import hub_of

ENDLESS = 600.0
"""Seconds after which a test that waits for a drain's time-out has failed long since."""


class Keeper(seqrpc.Service):
    """Stops its own server."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.server: seqrpc.Server
        self.drained: list[bool] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def drain(self) -> None:
        self.stage.reach("draining")
        self.drained.append(await self.server.drain(ENDLESS))

    @seqrpc.method
    async def work(self) -> str:
        self.stage.reach("works")
        await self.stage.wait("may go on")
        return "done"

    @seqrpc.method
    async def stop(self) -> None:
        await self.drain()

    @seqrpc.method
    async def stop_when_told(self, name: str) -> None:
        self.stage.reach(name)
        await self.stage.wait("stop now")
        await self.drain()

    @seqrpc.method
    async def stop_in_a_task(self) -> None:
        await asyncio.create_task(self.drain())

    @seqrpc.method
    async def stop_within_a_time(self) -> None:
        async with seqrpc.timeout(ENDLESS):
            await self.drain()

    @seqrpc.method
    async def stop_and_go(self) -> str:
        self.tasks.append(asyncio.create_task(self.drain()))
        return "will stop"

    @seqrpc.method
    def stop_from_a_thread(self) -> None:
        asyncio.run_coroutine_threadsafe(self.drain(), hub_of(self.server)._finished.get_loop()).result(PATIENCE)

    @seqrpc.method
    async def stop_while_reading(self) -> AsyncIterator[str]:
        yield "stopping"
        await self.drain()

    @seqrpc.method
    async def object(self) -> seqrpc.Service:
        return self


class Served:
    """A server with one handler that runs, and how it stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keeper = Keeper()

    async def __aenter__(self) -> Self:
        limits = seqrpc.Limits(close_timeout=PATIENCE * 2)
        self.server = await seqrpc.serve(self.keeper, self.path, limits=limits)
        self.keeper.server = self.server
        self.connection = await seqrpc.connect(self.path)
        self.working = asyncio.ensure_future(self.connection.call("Keeper.work"))
        await self.keeper.stage.wait("works")
        return self

    async def assert_waits_for_the_worker_and_for_nobody_else(self, *stops: asyncio.Future[Any]) -> None:
        await self.keeper.stage.wait("draining")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not hub_of(self.server)._finished.done()
        assert not self.working.done()
        self.keeper.stage.reach("may go on")
        async with asyncio.timeout(PATIENCE):
            assert await self.working == "done"
            await self.server.wait_closed()
            for stopped in await asyncio.gather(*stops, return_exceptions=True):
                assert isinstance(stopped, (seqrpc.ConnectionLost, seqrpc.Cancelled)), stopped

    async def __aexit__(self, *_exc: object) -> None:
        await self.connection.close()
        await self.server.close()
        await asyncio.gather(*self.keeper.tasks, return_exceptions=True)


@pytest.mark.parametrize("how", ["stop", "stop_in_a_task", "stop_within_a_time", "stop_from_a_thread"])
async def test_a_handler_that_drains_its_server_does_not_wait_for_itself(how: str, socket_path: Path) -> None:
    async with Served(socket_path) as served:
        stopping = asyncio.ensure_future(served.connection.call(f"Keeper.{how}"))
        await served.assert_waits_for_the_worker_and_for_nobody_else(stopping)


async def test_a_handler_may_leave_the_draining_to_a_task_and_be_answered(socket_path: Path) -> None:
    async with Served(socket_path) as served:
        assert await served.connection.call("Keeper.stop_and_go") == "will stop"
        await served.assert_waits_for_the_worker_and_for_nobody_else()
        await asyncio.gather(*served.keeper.tasks)
        assert served.keeper.drained == [True]


@pytest.mark.parametrize("connections", [1, 2])
async def test_handlers_that_drain_their_server_do_not_wait_for_each_other(connections: int, socket_path: Path) -> None:
    async with Served(socket_path) as served, seqrpc.connect(socket_path) as other:
        first, second = served.connection, served.connection if connections == 1 else other
        calls = first.call("Keeper.stop_when_told", "first"), second.call("Keeper.stop_when_told", "second")
        stops = [asyncio.ensure_future(call) for call in calls]
        for name in ("first", "second"):
            await served.keeper.stage.wait(name)
        from_outside = asyncio.ensure_future(served.server.drain(ENDLESS))  # it waits for them before they drain
        await asyncio.sleep(0)
        served.keeper.stage.reach("stop now")
        await served.assert_waits_for_the_worker_and_for_nobody_else(*stops)
        assert await from_outside is True


async def test_a_method_of_a_held_object_that_drains_the_server_is_not_waited_for(socket_path: Path) -> None:
    async with Served(socket_path) as served:
        channel = await served.connection.call("Keeper.object")
        stopping = asyncio.ensure_future(channel.call("Keeper.stop"))
        await served.assert_waits_for_the_worker_and_for_nobody_else(stopping)


async def test_calls_of_held_objects_are_waited_for_by_one_that_drains(socket_path: Path) -> None:
    async with Served(socket_path) as served:
        channel = await served.connection.call("Keeper.object")
        working = asyncio.ensure_future(channel.call("Keeper.work"))
        stopping = asyncio.ensure_future(channel.call("Keeper.stop"))
        await served.assert_waits_for_the_worker_and_for_nobody_else(stopping)
        assert await working == "done"


async def test_a_stream_that_drains_its_server_is_not_waited_for(socket_path: Path) -> None:
    async with Served(socket_path) as served:

        async def read() -> list[str]:
            return [item async for item in await served.connection.call("Keeper.stop_while_reading")]

        reading = asyncio.ensure_future(read())
        await served.keeper.stage.wait("draining")
        served.keeper.stage.reach("may go on")
        async with asyncio.timeout(PATIENCE):
            assert await served.working == "done"
            await served.server.wait_closed()
            with pytest.raises(seqrpc.Unavailable, match="the server is stopping"):
                await reading


async def test_new_calls_and_connections_are_refused_before_the_drain_where_that_is_wanted(
    socket_path: Path,
) -> None:
    async with seqrpc.serve(Keeper(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        await connection.call("rpc.ping")
        server.refuse_new()
        server.refuse_new()
        with pytest.raises(seqrpc.ConnectError):
            await seqrpc.connect(socket_path)
        await said_closing(connection)
        with pytest.raises(seqrpc.Unavailable):
            await connection.call("Keeper.work")
        assert await server.drain(ENDLESS) is True


async def test_a_server_that_is_closed_can_be_drained_and_holds_nothing(socket_path: Path) -> None:
    async with seqrpc.serve(Keeper(), socket_path) as server:
        await server.close()
        before = open_fds()
        server.refuse_new()
        assert await server.drain(ENDLESS) is True
        assert open_fds().keys() <= before.keys()  # what was still being closed may have gone meanwhile


@pytest.mark.parametrize("how", ["close", "drain"])
async def test_a_handler_may_stop_its_server_as_its_connection_has_ended(
    how: str, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Last(seqrpc.Service):
        def __init__(self) -> None:
            self.stage = Stage()
            self.server: seqrpc.Server

        @seqrpc.method
        async def work(self) -> None:
            self.stage.reach("works")
            try:
                await asyncio.Event().wait()
            finally:
                await getattr(self.server, how)()
                self.stage.reach("stopped")

    last = Last()
    last.server = await seqrpc.serve(last, socket_path, limits=seqrpc.Limits(close_timeout=PATIENCE * 2))
    connection = await seqrpc.connect(socket_path)
    working = asyncio.ensure_future(connection.call("Last.work"))
    await last.stage.wait("works")
    await connection.close()
    await last.stage.wait("stopped")
    assert caplog.text == ""
    await last.server.close()
    with pytest.raises(seqrpc.ConnectionLost):
        await working
