"""Connections, as their users see them."""

from __future__ import annotations

import asyncio
import os
import weakref
from pathlib import Path

import pytest
from support.daemons import on_a_pair, raw_client, said_closing
from support.echo import Echo

import seqrpc
from seqrpc.aio.connection import link_of


async def test_a_lost_connection_fails_its_calls_at_once() -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.connect(sock=ours) as connection:
        with raw_client(theirs) as peer:
            calls = [asyncio.ensure_future(connection.call("Gone.wait")) for _ in range(3)]
            await peer.receive()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [seqrpc.ConnectionLost] * 3
        with pytest.raises(seqrpc.ConnectionLost):
            await connection.call("Gone.wait")
        with pytest.raises(seqrpc.ConnectionLost):
            await connection.notify("Gone.wait")
        assert connection.closed
        assert "closed" in repr(connection)


async def test_the_peer_is_who_listens_and_who_connected(socket_path: Path) -> None:
    async with seqrpc.serve(Echo(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        await connection.call("rpc.ping")
        (accepted,) = server.connections
        for one in (connection, accepted):
            assert one.peer is not None
            assert (one.peer.pid, one.peer.uid) == (os.getpid(), os.geteuid())
        assert repr(connection) == f"<Connection open peer={connection.peer!r}>"


async def test_nobody_is_named_for_a_whole_socket_pair() -> None:
    async with on_a_pair(Echo()) as connection:
        assert connection.peer is None


async def test_it_is_closed_by_either_side_and_waited_for() -> None:
    async with on_a_pair(Echo()) as connection:
        assert connection.get_loop() is asyncio.get_running_loop()
        assert not connection.closed
        waiting = asyncio.ensure_future(connection.wait_closed())
        await asyncio.sleep(0)
        assert not waiting.done()
        await connection.close()
        await waiting
        assert connection.closed
        await connection.close()
        await connection.wait_closed()
        assert repr(connection) == "<Connection closed peer=None>"


async def test_it_says_whether_it_is_worth_keeping_while_the_server_drains(socket_path: Path) -> None:
    server = await seqrpc.serve(Echo(), socket_path)
    async with seqrpc.connect(socket_path) as connection:
        await connection.call("rpc.ping")
        assert connection.closing_reason is None
        server.refuse_new()
        await said_closing(connection)
        with pytest.raises(seqrpc.Unavailable) as caught:
            await connection.call("rpc.ping")
        assert connection.closing_reason == caught.value.reason == "the server is stopping"
        assert not connection.closed
        await server.close()
        await connection.wait_closed()
        assert connection.closing_reason == "the server is stopping"


async def test_it_can_be_referred_to_weakly_and_takes_nothing_else() -> None:
    async with on_a_pair(Echo()) as connection:
        assert weakref.ref(connection)() is connection
        with pytest.raises(AttributeError):
            connection.mine = 1  # type: ignore[attr-defined]
        assert link_of(connection).handler.connection is connection  # type: ignore[attr-defined]
