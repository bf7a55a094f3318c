"""Connections that a server takes over, and gives away."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from support.daemons import Stage
from support.waiting import PATIENCE

import seqrpc
from seqrpc.aio.server import hub_of


class Work(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def who(self) -> int:
        return id(self)

    @seqrpc.method
    async def told(self) -> None:
        self.stage.reach("told")
        await self.stage.wait("done")

    @seqrpc.method
    async def kept(self) -> bool:
        hub = hub_of(SERVERS[0])
        (dispatcher,) = hub.dispatchers.values()
        connection = seqrpc.current_call().connection
        return dispatcher.is_kept and dispatcher.connection is connection


SERVERS: list[seqrpc.Server] = []


async def test_a_connection_goes_from_one_server_to_another(socket_path: Path) -> None:
    first, second = Work(), Work()
    async with (
        asyncio.timeout(PATIENCE),
        seqrpc.serve(first, socket_path) as server,
        seqrpc.serve(second, f"{socket_path}2") as other,
        seqrpc.connect(socket_path) as client,
    ):
        assert await client.call("Work.who") == id(first)
        await client.notify("Work.told")
        await first.stage.wait("told")
        hub = hub_of(server)
        assert hub.listener is not None
        ((link, dispatcher),) = hub.dispatchers.items()
        assert hub.give_away(link) is None, "a handler runs"
        first.stage.reach("done")
        await dispatcher.running.wait_idle()
        sock = hub.give_away(link)
        assert sock is not None
        assert hub.give_away(link) is None
        assert server.connections == frozenset()
        assert hub_of(other).adopt(sock) is not None
        assert await client.call("Work.who") == id(second)


async def test_one_that_was_admitted_before_is_not_refused(socket_path: Path) -> None:
    limits = seqrpc.Limits(max_connections=1)
    async with (
        asyncio.timeout(PATIENCE),
        seqrpc.serve(Work(), socket_path, limits=limits) as server,
        seqrpc.serve(Work(), f"{socket_path}2", limits=limits) as other,
        seqrpc.connect(socket_path) as client,
        seqrpc.connect(f"{socket_path}2") as first,
    ):
        for connection in (client, first):
            await connection.call("Work.who")
        (link,) = hub_of(server).dispatchers
        sock = hub_of(server).give_away(link)
        assert sock is not None
        hub_of(other).adopt(sock)
        assert await client.call("Work.who") == await first.call("Work.who")
        server.refuse_new()
        hub_of(other).refuse_new()
        for link in hub_of(other).dispatchers:
            assert hub_of(other).give_away(link) is None


async def test_what_is_no_connection_is_closed(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        assert hub_of(server).adopt(sock) is None
        assert sock.fileno() == -1


async def test_a_busy_link_is_not_given_away(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server, seqrpc.connect(socket_path) as client:
        await client.call("rpc.ping")
        ((link, dispatcher),) = hub_of(server).dispatchers.items()
        assert not dispatcher.is_kept
        (connection,) = server.connections
        assert dispatcher.is_kept
        assert dispatcher.connection is connection
        call = asyncio.ensure_future(connection.call("rpc.ping"))
        await asyncio.sleep(0)
        assert hub_of(server).give_away(link) is None
        await call
        del connection, call
        assert not dispatcher.is_kept


async def test_a_handler_s_own_connection_is_kept_while_it_has_it(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server, seqrpc.connect(socket_path) as client:
        SERVERS[:] = [server]
        assert await client.call("Work.kept")
        SERVERS.clear()
