"""A service whose methods want no answer."""

from __future__ import annotations

import asyncio
import threading

import seqrpc
from support.waiting import PATIENCE


class Log(seqrpc.Service):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.in_thread = threading.Event()
        self.thread_began = threading.Event()
        self.ended = asyncio.Event()

    @seqrpc.method
    async def write(self, line: str) -> None:
        self.began.set()
        try:
            await self.gate.wait()
            self.lines.append(line)
        except asyncio.CancelledError:
            self.lines.append("cancelled")
            raise
        finally:
            self.ended.set()

    @seqrpc.method
    def write_plainly(self, line: str) -> None:
        self.thread_began.set()
        self.in_thread.wait(PATIENCE)
        self.lines.append(line)
