"""Handlers that take back the object that they belong to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.daemons import Stage
from support.waiting import PATIENCE

import seqrpc


class Revoked(seqrpc.Service):
    """Takes itself back from its holders, for two callers at once."""

    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def me(self) -> seqrpc.Service:
        return self

    @seqrpc.method
    async def revoke(self, name: str) -> str:
        self.stage.reach(name)
        await self.stage.wait("both")
        await seqrpc.revoke(self)
        return "revoked"


async def test_a_holder_sees_that_its_object_was_revoked(socket_path: Path) -> None:
    service = Revoked()
    async with seqrpc.serve(service, socket_path), seqrpc.connect(socket_path) as connection:
        channel = await connection.call("Revoked.me")
        assert channel.closing_reason is None
        await channel.call("rpc.ping")
        assert channel.closing_reason is None
        await seqrpc.revoke(service)
        await channel.wait_closed()
        assert channel.closing_reason == "the object was revoked"


@pytest.mark.parametrize("connections", [1, 2])
async def test_handlers_that_revoke_the_same_object_do_not_wait_for_each_other(
    connections: int, socket_path: Path
) -> None:
    service = Revoked()
    async with seqrpc.serve(service, socket_path), seqrpc.connect(socket_path) as connection:
        first = await connection.call("Revoked.me")
        second = await connection.call("Revoked.me") if connections == 2 else first
        calls = [asyncio.ensure_future(one.call("Revoked.revoke", name)) for one, name in ((first, "a"), (second, "b"))]
        await service.stage.wait("a")
        await service.stage.wait("b")
        service.stage.reach("both")
        async with asyncio.timeout(PATIENCE):
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert "revoked" in results
        for result in results:
            assert result == "revoked" or isinstance(result, (seqrpc.ConnectionLost, seqrpc.Cancelled))
        await first.close()
        await second.close()
