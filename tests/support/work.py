"""Services whose server stops while they work, or because of it."""

from __future__ import annotations

import asyncio

import seqrpc
from support.daemons import Stage


class Work(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()
        self.server: seqrpc.Server | None = None

    @seqrpc.method
    async def work(self) -> str:
        self.stage.reach("began")
        try:
            await self.stage.wait("may go on")
        except asyncio.CancelledError:
            self.stage.reach("cancelled")
            raise
        return "done"

    @seqrpc.method
    async def go_on(self) -> None:
        self.stage.reach("began")
        try:
            await asyncio.Event().wait()
        finally:
            self.stage.reach("cancelled")
            await self.stage.wait("may end")

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def stop(self) -> None:
        assert self.server is not None
        await self.server.close()
