"""What client.c calls: ``python service.py PATH``."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import seqrpc


class Empty(seqrpc.RpcError, code="foreign.Empty"):
    pass


class Client:
    """What the client answers."""

    async def greet(self, name: str) -> str:
        raise NotImplementedError


def nobody(_caller: seqrpc.Credentials) -> bool:
    return False


class Foreign(seqrpc.Service):
    def __init__(self) -> None:
        self.waiters = 0
        self.notes: list[str] = []

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def sizes(self, files: list[seqrpc.OwnedFd]) -> list[int]:
        return [os.fstat(file.fileno()).st_size for file in files]

    @seqrpc.method
    async def files(self, first: str, second: str) -> dict[str, seqrpc.OwnedFd]:
        files = {text: seqrpc.OwnedFd(os.memfd_create("text")) for text in (first, second)}
        for text, file in files.items():
            os.pwrite(file.fileno(), text.encode(), 0)
        return files

    @seqrpc.method(allow=nobody)
    async def forbidden(self, value: Any) -> None:
        raise AssertionError(f"nobody may call this, and {value} is not to be looked at")

    @seqrpc.method
    async def fail(self) -> None:
        raise Empty("nothing is left", [1, 2])

    @seqrpc.method
    async def wait(self) -> None:
        self.waiters += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiters -= 1

    @seqrpc.method
    async def waiting(self) -> int:
        return self.waiters

    @seqrpc.method
    async def remember(self, note: str) -> None:
        self.notes.append(note)

    @seqrpc.method
    async def remembered(self) -> list[str]:
        return self.notes

    @seqrpc.method
    async def call_back(self) -> str:
        return await seqrpc.current_call().connection.proxy(Client).greet("Python")


if __name__ == "__main__":
    seqrpc.run(Foreign(), sys.argv[1])
