"""Objects that are held as channels."""

from __future__ import annotations

import asyncio

import seqrpc
from seqrpc import policy
from support.daemons import Stage


class Base(seqrpc.Service):
    @seqrpc.method
    async def name(self) -> str:
        return "base"

    @seqrpc.method
    async def inherited(self) -> str:
        return "inherited"


class Special(Base, name="org.example.Special"):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def name(self) -> str:
        return "special"

    @seqrpc.method(allow=~policy.anyone)
    async def more(self) -> str:
        return "more"

    @seqrpc.method
    async def wait(self) -> None:
        self.stage.reach("waiting")
        await asyncio.Event().wait()

    @seqrpc.method
    async def revoke_itself(self) -> str:
        await seqrpc.revoke(self)
        return "revoked"


class Factory(seqrpc.Service):
    def __init__(self) -> None:
        self.special = Special()

    @seqrpc.method
    async def make(self) -> Base:
        return self.special
