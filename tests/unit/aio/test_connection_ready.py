"""Whether an ordinary connection is ready for calls."""

from __future__ import annotations

from pathlib import Path

from support.reconnecting import Journal, raised_by, soon
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc import Execution


async def test_an_ordinary_connection_is_ready_until_it_ends(socket_path: Path) -> None:
    journal = Journal()
    async with seqrpc.serve(journal, socket_path) as server, seqrpc.connect(socket_path) as connection:
        await connection.wait_for_ready()
        running = soon(connection.call("Journal.wait", "a"))
        await journal.stage.wait("a")
        draining = soon(server.drain(PATIENCE))
        await comes_true(lambda: connection.closing_reason)
        await raised_by(seqrpc.Unavailable, connection.wait_for_ready())
        running.cancel()
        await draining
        await raised_by(seqrpc.Unavailable, connection.wait_for_ready())
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.connect(sock=ours) as connection:
        theirs.close()
        await connection.wait_closed()
        error = await raised_by(seqrpc.ConnectionLost, connection.wait_for_ready())
        assert error.execution is Execution.DID_NOT_RUN
