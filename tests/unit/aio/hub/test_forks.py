"""Servers in forked children of their process, and on other loops."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import in_child

import seqrpc


class Echo(seqrpc.Service):
    @seqrpc.method
    async def echo(self, value: int) -> int:
        return value


def outcome(use: Callable[[], Any]) -> str:
    try:
        return str(asyncio.run(use()))
    except seqrpc.SeqrpcError as exc:
        return type(exc).__name__


async def test_a_copy_of_it_serves_nobody_and_says_so(socket_path: Path) -> None:
    async with seqrpc.serve(Echo(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        assert await connection.call("Echo.echo", 1) == 1

        async def refuse_new() -> None:
            server.refuse_new()

        def use() -> list[Any]:
            uses: tuple[Callable[[], Any], ...] = (server.drain, server.wait_closed, refuse_new, server.close)
            return [*map(outcome, uses), len(server.connections), server.sockets]

        assert in_child(use) == ["WrongProcess", "WrongProcess", "WrongProcess", "None", 0, ()]
        assert sorted(os.listdir(socket_path.parent)) == ["test.sock", "test.sock.lock"]
        assert await connection.call("Echo.echo", 2) == 2
        assert len(server.connections) == 1


async def test_on_another_loop_it_cannot_be_stopped(socket_path: Path) -> None:
    async with seqrpc.serve(Echo(), socket_path) as server, seqrpc.connect(socket_path) as connection:

        async def refuse_new() -> None:
            server.refuse_new()

        for use in (server.drain, server.wait_closed, refuse_new, server.close):
            assert await asyncio.to_thread(outcome, use) == "WrongLoop"
        with pytest.raises(seqrpc.WrongLoop):
            await asyncio.to_thread(server.refuse_new)
        assert await connection.call("Echo.echo", 2) == 2
