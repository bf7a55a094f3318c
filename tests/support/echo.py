"""A service that gives back what it gets, and one that its client brings."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import seqrpc
from seqrpc import OwnedFd
from support.daemons import Stage


class Echo(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def echo(self, *, a: Any = None, fd: OwnedFd | None = None) -> Any:
        return [a, None if fd is None else os.fstat(fd.fileno()).st_ino]

    @seqrpc.method
    async def give(self, value: Any) -> Any:
        return value

    @seqrpc.method
    async def wait(self) -> None:
        self.stage.reach("began")
        try:
            await asyncio.Event().wait()
        finally:
            self.stage.reach("ended")

    @seqrpc.method
    async def surroundings(self) -> list[Any]:
        call = seqrpc.current_call()
        return [dict(call.meta), call.deadline]

    @seqrpc.method(oneway=True)
    async def tell(self, word: str) -> None:
        self.stage.reach(word)

    @seqrpc.method
    async def ask_back(self, question: str) -> str:
        answer: str = await seqrpc.current_call().connection.call("Guest.answer", question)
        return f"the guest says: {answer}"
