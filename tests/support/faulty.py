"""What is called over pairs that fail."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import seqrpc
from seqrpc import policy


class Echo(seqrpc.Service, allow=policy.anyone):
    def __init__(self) -> None:
        self.heard: list[str] = []

    @seqrpc.method
    async def say(self, word: str) -> str:
        self.heard.append(word)
        return word

    @seqrpc.method
    async def size(self, file: seqrpc.OwnedFd | None) -> str:
        return "a file" if file is not None else "none"

    @seqrpc.method
    async def null(self) -> seqrpc.OwnedFd:
        return seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    @seqrpc.method
    async def large(self, content: bytes) -> bytes:
        return content[::-1]

    @seqrpc.method
    async def itself(self) -> Echo:
        return self


async def outcome(task: asyncio.Task[Any]) -> object:
    """Return what a task returns or raises."""
    return (await asyncio.gather(task, return_exceptions=True))[0]
