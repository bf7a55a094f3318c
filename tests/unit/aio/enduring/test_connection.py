"""What a connection that is made anew tells of itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from support.reconnecting import QUICK, Journal, ended, raised_by, soon
from support.waiting import PATIENCE, comes_true

import seqrpc


async def test_it_is_a_connection_to_its_users(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    connection: Any = await seqrpc.connect(socket_path, reconnect=QUICK)
    assert isinstance(connection, seqrpc.Connection)
    connection = cast("Any", connection)  # its properties change
    assert connection.get_loop() is asyncio.get_running_loop()
    assert connection.peer is not None
    assert (connection.closed, connection.closing_reason) == (False, None)
    assert repr(connection) == repr(connection._callee) == f"<Connection open peer={connection.peer}>"
    proxy = connection.proxy(Journal)
    async with proxy:
        assert await proxy.add("a") == "a"
    assert await proxy.add("b") == "b", "a proxy of a whole connection holds nothing of its own"
    running = soon(proxy.wait("c"))
    await journal.stage.wait("c")
    draining = soon(server.drain(PATIENCE))
    await ended(connection)
    assert (connection.closed, connection.peer) == (False, None)
    assert connection.closing_reason is not None
    running.cancel()
    await draining
    await comes_true(lambda: "reconnecting to" in repr(connection))
    await comes_true(lambda: isinstance(connection._renewal.trouble, seqrpc.ConnectError))
    assert connection.closing_reason == "the server is stopping"
    closed = soon(connection.wait_closed())
    await connection.close()
    await closed
    assert (connection.closed, connection.peer) == (True, None)
    assert repr(connection) == "<Connection closed>"
    await raised_by(seqrpc.ConnectionLost, connection.wait_for_ready())


def test_where_no_loop_runs_it_is_of_no_use(socket_path: Path) -> None:
    async def connected() -> None:
        async with seqrpc.serve(Journal(), socket_path), seqrpc.connect(socket_path, reconnect=QUICK) as connection:
            kept.append(connection)

    kept: list[seqrpc.Connection] = []
    asyncio.run(connected())
    for calling in (kept[0].call("Journal.add", "a"), kept[0].notify("Journal.tell", "a")):
        with pytest.raises(seqrpc.WrongLoop):
            calling.send(None)


async def test_the_hook_is_given_the_connection(socket_path: Path) -> None:
    made: list[seqrpc.Connection] = []
    policy = seqrpc.Reconnect(first_delay=0.001, longest_delay=0.01, on_reconnect=made.append)
    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=policy) as connection:
        await server.close()
        await ended(connection)
        waiting = soon(connection.notify("Journal.tell", "a"))
        async with seqrpc.serve(Journal(), socket_path):
            await waiting
            assert await made[0].call("Journal.add", "b") == "b"
            await raised_by(seqrpc.LocalProtocolError, connection.notify("Journal.tell", object()))
    made.clear()
