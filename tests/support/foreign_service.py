"""What the programs in C and the raw packets call: ``python foreign_service.py PATH LOOP``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import seqrpc

LIMITS = seqrpc.Limits(max_message_bytes=1 << 20, max_buffer_bytes=1 << 24)


class Empty(seqrpc.RpcError, code="foreign.Empty"):
    pass


class Client:
    """What the client answers."""

    async def greet(self, name: str) -> str:
        raise NotImplementedError


class Greeter(seqrpc.Service):
    """What the client serves on a channel."""

    @seqrpc.method
    async def greet(self, name: str) -> str:
        raise NotImplementedError


class Counter(seqrpc.Service):
    """An object that a caller gets."""

    def __init__(self, value: int, closed: asyncio.Semaphore) -> None:
        self.value = value
        self.closed = closed

    @seqrpc.method
    async def add(self, number: int) -> int:
        self.value += number
        return self.value

    @seqrpc.method
    async def revoke(self) -> None:
        await seqrpc.revoke(self)

    async def close(self) -> None:
        self.closed.release()


def nobody(_caller: seqrpc.Credentials) -> bool:
    return False


class Foreign(seqrpc.Service):
    def __init__(self) -> None:
        self.waiters = 0
        self.notes: list[str] = []
        self.endless_ended = asyncio.Event()
        self.counters_closed = asyncio.Semaphore(0)

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

    @seqrpc.method
    async def code_of_call_back(self) -> str:
        try:
            return await self.call_back()
        except seqrpc.RpcError as exc:
            return exc.code
        except seqrpc.InvalidResult:
            return "it does not fit"
        except seqrpc.ConnectionLost:
            return "nobody hears this"

    @seqrpc.method
    async def echo(self, value: Any) -> Any:
        return value

    # Streams

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method
    async def count_and_fail(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number
        raise Empty("nothing is left", [1, 2])

    @seqrpc.method
    async def mixed(self, size: int) -> AsyncIterator[str | seqrpc.OwnedFd]:
        yield "small"
        yield "x" * size
        yield seqrpc.OwnedFd(os.memfd_create("text"))
        yield "small"

    @seqrpc.method
    async def endless(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            self.endless_ended.set()

    @seqrpc.method
    async def stopped(self) -> bool:
        return await self.endless_ended.wait()

    @seqrpc.method
    async def wait_after_item(self) -> AsyncIterator[str]:
        yield "the last"
        await asyncio.Event().wait()

    @seqrpc.method
    async def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @seqrpc.method
    async def total(self, numbers: AsyncIterator[int]) -> int:
        total = 0
        async for number in numbers:
            total += number
        return total

    @seqrpc.method
    async def lengths(self, texts: AsyncIterator[str]) -> list[int]:
        return [len(text) async for text in texts]

    @seqrpc.method
    async def first(self, numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    @seqrpc.method
    async def echo_items(self, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for item in items:
            yield item

    @seqrpc.method
    async def why_it_ends(self, items: AsyncIterator[Any]) -> tuple[list[Any], str]:
        taken: list[Any] = []
        try:
            async for item in items:
                taken.append(item)  # noqa: PERF401 - what was taken counts also if this ends with an error
        except seqrpc.RpcError as exc:
            return taken, exc.code
        except seqrpc.RemoteProtocolError:
            return taken, "malformed"
        return taken, "the end"

    @seqrpc.method
    async def why_numbers_end(self, numbers: AsyncIterator[int]) -> tuple[int, str]:
        total = 0
        try:
            async for number in numbers:
                total += number
        except seqrpc.InvalidParams as exc:
            return total, exc.code
        return total, "the end"

    # Channels

    @seqrpc.method
    async def greet_all(self, greeter: Greeter) -> list[str]:
        heard = [await greeter.greet(name) for name in ("Ada", "Grace")]
        try:
            await greeter.greet("x" * 200_000)
        except seqrpc.RpcError as exc:
            heard.append(exc.code)
        await greeter.close()
        return heard

    @seqrpc.method
    async def counter(self, start: int) -> Counter:
        return Counter(start, self.counters_closed)

    @seqrpc.method
    async def wait_counters_closed(self, number: int) -> int:
        for _ in range(number):
            await self.counters_closed.acquire()
        return number

    # Large messages and buffers

    @seqrpc.method
    async def length(self, text: str) -> int:
        return len(text)

    @seqrpc.method
    async def length_and_content(self, text: str, file: seqrpc.OwnedFd) -> tuple[int, str]:
        return len(text), os.pread(file.fileno(), 100, 0).decode()

    @seqrpc.method
    async def repeat(self, times: int) -> str:
        return "x" * times

    @seqrpc.method
    async def repeat_with_file(self, times: int) -> tuple[str, seqrpc.OwnedFd]:
        file = seqrpc.OwnedFd(os.memfd_create("text"))
        os.pwrite(file.fileno(), b"content", 0)
        return "x" * times, file

    @seqrpc.method
    async def reversed(self, first: seqrpc.Buffer, second: memoryview) -> list[seqrpc.Buffer]:
        return [seqrpc.Buffer.copy_of(bytes(content)[::-1]) for content in (first, second)]


async def serve_until_told(path: str) -> None:
    """Do as ``seqrpc.run`` does, on the loop that runs."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with seqrpc.serve(Foreign(), path, limits=LIMITS):
        await told.wait()


if __name__ == "__main__":
    path, loop = sys.argv[1:]
    if loop == "asyncio":
        asyncio.run(serve_until_told(path))
    else:
        seqrpc.run(Foreign(), path, limits=LIMITS)
