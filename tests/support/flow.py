"""What the tests of handlers that give and take streams have in common."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import msgspec

import seqrpc
from seqrpc import OwnedFd, policy
from support.daemons import Stage
from support.dispatch import Counter


class Point(msgspec.Struct):
    x: int


class Failed(seqrpc.RpcError, code="test.Failed"):
    def __init__(self, number: int) -> None:
        super().__init__(f"failed at {number}", number)


class Flow(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()
        self.held: list[Any] = []
        self.thread = ""

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        self.stage.reach("count began")
        try:
            for number in range(to):
                yield number
        finally:
            self.stage.reach("count ended")

    @seqrpc.method(allow=~policy.anyone)
    async def forbidden(self, to: int) -> AsyncIterator[int]:
        self.stage.reach("forbidden began")
        yield to

    @seqrpc.method
    async def about_the_call(self) -> AsyncIterator[Any]:
        for _ in range(2):
            call = seqrpc.current_call()
            yield [call.method, call.caller.pid, dict(call.meta), call.deadline is not None]
            await asyncio.sleep(0)

    @seqrpc.method
    async def call_back(self, times: int) -> AsyncIterator[str]:
        for _ in range(times):
            yield await seqrpc.current_call().connection.call("Home.hello")
            await self.stage.wait("go on")

    @seqrpc.method
    def call_back_by_another(self, times: int) -> AsyncIterator[str]:
        return self.call_back(times)

    @seqrpc.method
    async def look_at(self, fd: OwnedFd) -> AsyncIterator[int]:
        self.held.append(fd)
        try:
            for step in range(1, 10):
                yield os.fstat(fd.fileno()).st_ino
                await self.stage.wait(f"step {step}")
        finally:
            self.stage.reach("look ended")

    @seqrpc.method
    async def fail_at(self, number: int, how: str) -> AsyncIterator[int]:
        for n in range(number):
            yield n
        if how == "typed":
            raise Failed(number)
        raise KeyError("the secret of the house")

    @seqrpc.method
    async def returned(self, to: int) -> AsyncIterator[int]:
        return self.count(to)

    @seqrpc.method
    def returned_by_a_thread(self, to: int) -> AsyncIterable[int]:
        self.thread = threading.current_thread().name
        return Counter(to)

    @seqrpc.method
    def maker(self, to: int) -> AsyncIterator[int]:
        """A plain function whose result is a stream."""
        return self.count(to)

    @seqrpc.method
    async def unannotated(self):  # type: ignore[no-untyped-def]
        yield {"any": "thing"}

    @seqrpc.method
    async def add_up(self, numbers: AsyncIterator[int]) -> int:
        total = 0
        async for number in numbers:
            total += number
            self.stage.reach(f"at {total}")
        return total

    @seqrpc.method
    async def first(self, numbers: AsyncIterator[int]) -> int:
        async for number in numbers:
            return number
        return -1

    @seqrpc.method
    async def ignore(self, numbers: AsyncIterator[int]) -> None:
        pass

    @seqrpc.method
    async def doubled(self, points: AsyncIterator[Point]) -> AsyncIterator[Point]:
        try:
            async for point in points:
                yield Point(2 * point.x)
        finally:
            self.stage.reach("doubled ended")

    @seqrpc.method
    async def two(self, first: AsyncIterator[int], *, second: AsyncIterable[str]) -> list[str]:
        return [f"{number}{text}" async for number in first async for text in second]

    @seqrpc.method
    async def tolerant(self, numbers: AsyncIterator[int]) -> str:
        try:
            return str([number async for number in numbers])
        except seqrpc.InvalidParams as exc:
            return f"invalid: {exc.message}"

    @seqrpc.method
    async def descriptors(self, files: AsyncIterator[OwnedFd]) -> AsyncIterator[OwnedFd]:
        async for file in files:
            yield file


async def every(stream: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in stream]
