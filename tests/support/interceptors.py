"""Interceptors that write down what they see."""

from __future__ import annotations

import asyncio
from typing import Any

import seqrpc
from seqrpc.aio.interceptors import Proceed
from support.waiting import PATIENCE


class Audit(seqrpc.Interceptor):
    """Keeps the records of what has ended."""

    def __init__(self) -> None:
        self.records: list[seqrpc.CallRecord] = []
        self._news = asyncio.Event()

    def ended(self, record: seqrpc.CallRecord) -> None:
        self.records.append(record)
        self._news.set()

    async def wait(self, number: int) -> list[seqrpc.CallRecord]:
        """Wait until so many have ended; return their records."""
        async with asyncio.timeout(PATIENCE):
            while len(self.records) < number:
                self._news.clear()
                await self._news.wait()
        return self.records

    @property
    def seen(self) -> list[tuple[str | None, str | None]]:
        """Methods and codes."""
        return [(record.method, record.code) for record in self.records]


class Diary(seqrpc.Interceptor):
    """Writes down calls as they begin and end, on either side."""

    def __init__(self, name: str, lines: list[str]) -> None:
        self.name = name
        self.lines = lines

    async def _around(self, what: str, proceed: Proceed) -> Any:
        self.lines.append(f"{self.name} > {what}")
        try:
            result = await proceed()
        except BaseException as exc:
            self.lines.append(f"{self.name} ! {type(exc).__name__}")
            raise
        self.lines.append(f"{self.name} < {result if isinstance(result, int | None) else type(result).__name__}")
        return result

    async def handle(self, call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        return await self._around(call.method, proceed)

    async def request(self, call: seqrpc.OutgoingCall, proceed: Proceed) -> Any:
        return await self._around(call.method, proceed)
