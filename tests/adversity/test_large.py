"""Large messages leave no descriptor and no mapping, and those over the limit cost their call only (bar 1)."""

from __future__ import annotations

import asyncio
import gc
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
import uvloop
from support.descriptors import open_fds
from support.waiting import comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Buffer, Connection, Limits, TooLarge

MIB = 1 << 20
GIB = 1 << 30

NEEDED = 10 * GIB
"""Bytes of memory that must be free for 1 GiB both ways: the message and its copies at both ends, all in here."""


class Echo(seqrpc.Service):
    """Gives back what it gets."""

    @seqrpc.method
    async def echo(self, data: bytes) -> bytes:
        return data

    @seqrpc.method
    async def make(self, size: int) -> bytes:
        return bytes(size)

    @seqrpc.method
    async def size(self, data: bytes) -> int:
        return len(data)

    @seqrpc.method
    async def pass_on(self, buffer: Buffer) -> Buffer:
        return buffer


@asynccontextmanager
async def served(path: Path, limits: Limits, callers: Limits | None = None) -> AsyncIterator[Connection]:
    async with (
        seqrpc.serve(Echo(), path, limits=limits),
        seqrpc.connect(path, limits=callers or limits) as connection,
    ):
        yield connection


def memory_files() -> list[str]:
    """Return the mappings of memory files in this process."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:" in line]


def mapped_bytes() -> int:
    """Return the size of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")


@asynccontextmanager
async def nothing_is_left() -> AsyncIterator[None]:
    """Check that the block leaves neither a descriptor nor a memory file that is mapped.

    What came is closed by a thread of its own, and what is sent by the task that sent it: a moment later.
    """
    # What was sent before may be kept a moment longer.
    await comes_true(lambda: not any("memfd:seqrpc-message" in what for what in open_fds().values()))
    fds, files = open_fds(), memory_files()
    yield
    with suppress(TimeoutError):
        await comes_true(lambda: open_fds() == fds and memory_files() == files)
    assert open_fds() == fds
    assert memory_files() == files


async def test_a_mebibyte_comes_back_and_nothing_is_left(socket_path: Path) -> None:
    data = os.urandom(MIB)
    async with served(socket_path, Limits()) as connection:
        proxy = connection.proxy(Echo)
        await proxy.echo(data)  # what is allocated once is allocated now
        gc.collect()
        before = mapped_bytes()
        async with nothing_is_left():
            for _ in range(50):
                assert await proxy.echo(data) == data
            gc.collect()
            assert mapped_bytes() - before < 20 * MIB, "mappings are left"


async def test_buffers_come_back_and_nothing_is_left(socket_path: Path) -> None:
    async with served(socket_path, Limits()) as connection:
        proxy = connection.proxy(Echo)
        await connection.call("rpc.ping")
        async with nothing_is_left():
            for number in range(50):
                with closing(Buffer.allocate(MIB)) as buffer:
                    buffer[:4] = number.to_bytes(4, "big")
                    with closing(await proxy.pass_on(buffer)) as back:
                        assert back[:4] == number.to_bytes(4, "big")
                        assert len(back) == MIB
            await turns_of_the_loop()  # the last handler's is gone with its task


@pytest.mark.parametrize("way", ["request", "answer"])
async def test_a_message_over_the_limit_is_too_large_and_the_next_call_works(socket_path: Path, way: str) -> None:
    small, large = Limits(max_message_bytes=MIB), Limits(max_message_bytes=4 * MIB)
    limits = (small, large) if way == "request" else (large, small)
    async with served(socket_path, *limits) as connection:
        proxy = connection.proxy(Echo)
        await connection.call("rpc.ping")
        async with nothing_is_left():
            for _ in range(20):
                with pytest.raises(TooLarge):
                    await (proxy.size(bytes(2 * MIB)) if way == "request" else proxy.make(2 * MIB))
                assert await proxy.echo(b"next") == b"next"
                assert await proxy.echo(bytes(MIB // 2)) == bytes(MIB // 2)


async def test_a_message_over_this_sides_own_limit_is_not_sent(socket_path: Path) -> None:
    async with served(socket_path, Limits()) as connection:
        proxy = connection.proxy(Echo)
        await connection.call("rpc.ping")
        async with nothing_is_left():
            with pytest.raises(TooLarge, match="max_message_bytes"):
                await proxy.size(bytes(65 * MIB))
            with pytest.raises(TooLarge, match="max_message_bytes"):
                await proxy.make(65 * MIB)
            assert await proxy.echo(b"next") == b"next"


async def test_large_calls_that_are_cancelled_leave_nothing(socket_path: Path) -> None:
    data = bytes(MIB)
    async with served(socket_path, Limits()) as connection:
        await connection.call("rpc.ping")
        async with nothing_is_left():
            for number in range(40):
                call = asyncio.create_task(connection.call("Echo.echo", data))
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                call.cancel()
                await asyncio.wait([call])
                del call
            await connection.call("rpc.ping")
            await connection.call("Echo.echo", data)


def free_bytes() -> int:
    """Return the memory that is to be had without swapping."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


@pytest.mark.skipif(free_bytes() < NEEDED, reason=f"needs {NEEDED // GIB} GiB of free memory")
def test_a_gibibyte_comes_back_and_nothing_is_left(socket_path: Path) -> None:
    limits = Limits(max_message_bytes=GIB + MIB)

    async def story() -> None:
        async with served(socket_path, limits) as connection:
            proxy = connection.proxy(Echo)
            await proxy.echo(bytes(MIB))
            gc.collect()
            before = mapped_bytes()
            async with nothing_is_left():
                data = os.urandom(MIB) * 1024
                answer = await proxy.echo(data)
                assert answer == data
                del answer, data
                gc.collect()
                assert await proxy.echo(b"next") == b"next"
            assert mapped_bytes() - before < 100 * MIB, "mappings are left"

    uvloop.run(story())
