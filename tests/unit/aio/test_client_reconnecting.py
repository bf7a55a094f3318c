"""What connect(reconnect=...) is for, and what it is not for."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.work import Work

import seqrpc


async def test_what_reconnect_is_not_for() -> None:
    with pytest.raises(TypeError, match=r"reconnect= takes True, False or a seqrpc\.Reconnect"):
        seqrpc.connect("/run/x.sock", reconnect=1)  # type: ignore[arg-type]
    ours, theirs = seqrpc.socket_pair()
    with ours, theirs:
        with pytest.raises(ValueError, match="takes an address; what sock= is connected to"):
            await seqrpc.connect(sock=ours, reconnect=True)
        with pytest.raises(ValueError, match="and fd:3 is one socket"):
            await seqrpc.connect("fd:3", reconnect=True)


async def test_a_connection_that_is_made_anew_outlives_its_server(socket_path: Path) -> None:
    policy = seqrpc.Reconnect(first_delay=0.001, longest_delay=0.01)
    server = await seqrpc.serve(Work(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=policy) as connection:
        assert await connection.call("Work.add", 1, 2) == 3
        await server.close()
        async with seqrpc.serve(Work(), socket_path):
            assert await connection.call("Work.add", 3, 4) == 7
