"""Connections to a process that this one started."""

from __future__ import annotations

import os
from typing import Any

import pytest
from support.echo import Echo
from support.waiting import PATIENCE

import seqrpc
from seqrpc.aio.client import connect_to_process


async def test_it_serves_and_calls() -> None:
    ours, theirs = seqrpc.socket_pair()
    connection = await connect_to_process(ours, os.getpid(), services=[Echo()])
    async with seqrpc.timeout(PATIENCE), seqrpc.connect(sock=theirs) as other:
        await connection.call("rpc.ping")
        assert await other.call("Echo.give", 7) == 7
        await connection.close()


@pytest.mark.parametrize("wrong", [{"services": [object()]}, {"interceptors": [object()]}])
async def test_the_socket_is_closed_if_there_is_no_connection(wrong: dict[str, Any]) -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        with pytest.raises(TypeError):
            await connect_to_process(ours, os.getpid(), **wrong)
        assert ours.fileno() < 0
        assert theirs.recv(10) == b""
