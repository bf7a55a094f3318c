"""What requests may keep in memory while they are worked on."""

from __future__ import annotations

import asyncio

import pytest
from support.daemons import Stage, on_a_pair

import seqrpc


class Heavy(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def hold(self, content: bytes, name: str) -> int:
        self.stage.reach(f"{name} began")
        await self.stage.wait(f"{name} may end")
        return len(content)


# Large requests


async def test_large_requests_that_are_worked_on_at_once_are_bounded_and_one_is_always_taken() -> None:
    heavy = Heavy()
    async with on_a_pair(heavy, limits=seqrpc.Limits(max_held_bytes=150_000)) as connection:
        first = asyncio.ensure_future(connection.call("Heavy.hold", bytes(200_000), "a"))
        await heavy.stage.wait("a began")
        with pytest.raises(seqrpc.Overloaded, match="max_held_bytes"):
            await connection.call("Heavy.hold", bytes(100_000), "b")
        heavy.stage.reach("c may end")
        assert await connection.call("Heavy.hold", bytes(100), "c") == 100
        heavy.stage.reach("a may end")
        assert await first == 200_000
        heavy.stage.reach("b may end")
        assert await connection.call("Heavy.hold", bytes(100_000), "b") == 100_000
