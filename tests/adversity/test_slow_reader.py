"""A reader that stops reading holds up its producer, and nothing and nobody else (bar 4).

It stops for as long as a thousand other calls on the same connection take; SEQRPC_STALL_SECONDS=10 makes it longer.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.daemons import daemon, said_ready
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc import Connection, Stream
from seqrpc.limits import DEFAULT_LIMITS

STALL_SECONDS = float(os.environ.get("SEQRPC_STALL_SECONDS", "0"))
"""Seconds that the reader stops at least."""

CALLS = 1000

USUAL = 5.0
"""Times the median latency without a stalled stream that the median with one may be: generous, for it is a ratio
on a busy machine; a call that waited for the stream would never be answered."""

GROWTH = 1 << 20
"""Bytes that the producer's process may grow by."""


class Source(seqrpc.Service):
    """Streams without an end, and calls beside them."""

    def __init__(self) -> None:
        self.yielded = 0

    @seqrpc.method
    async def items(self, size: int, begin: int = 0) -> AsyncIterator[bytes]:
        number = begin
        while True:
            yield b"%d" % number + b" " * size
            number += 1
            self.yielded += 1

    @seqrpc.method
    async def echo(self, number: int) -> int:
        return number

    @seqrpc.method
    async def progress(self) -> int:
        """Return how many items were ever yielded."""
        return self.yielded

    @seqrpc.method
    async def upload(self, items: AsyncIterator[bytes]) -> int:
        """Read one item, then none until the caller gives up."""
        first = await anext(items)
        await asyncio.Event().wait()
        return len(first)


_PRODUCER = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
import seqrpc
from test_slow_reader import Source

async def main():
    async with seqrpc.serve(Source(), sys.argv[1]) as server:
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def producing(path: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], Connection]]:
    """Serve in a process of its own; yield it and a connection to it."""
    here = Path(__file__).parent
    with daemon(_PRODUCER, path, here, here.parent) as child:
        await said_ready(child)
        async with seqrpc.connect(path) as connection:
            yield child, connection


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is its own (proc_pid_status(5))."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


async def median_latency(connection: Connection) -> float:
    """Call a thousand times one after the other; return the median of the seconds that it took."""
    proxy = connection.proxy(Source)
    taken = []
    for number in range(CALLS):
        begin = time.perf_counter()
        assert await proxy.echo(number) == number
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


async def until_it_stands(connection: Connection) -> int:
    """Wait until the producer produces nothing more; return how much that was."""
    proxy = connection.proxy(Source)
    before, same = -1, 0
    async with asyncio.timeout(PATIENCE):
        while same < 3 * DEFAULT_LIMITS.max_packets_per_wakeup:  # so many calls may be answered before it has a turn
            now = await proxy.progress()
            same = same + 1 if now == before else 0
            before = now
    return before


@pytest.mark.parametrize("size", [10, 1_000, 60_000])
async def test_a_stalled_reader_costs_neither_memory_nor_other_calls(socket_path: Path, size: int) -> None:
    async with producing(socket_path) as (child, connection):
        proxy = connection.proxy(Source)
        async for _item in proxy.items(size):  # what is made once is made now
            break
        usual = await median_latency(connection)
        before = resident_bytes(child.pid)

        stream = proxy.items(size, 7_000)
        assert int((await anext(stream))[:10]) == 7_000
        begin = time.monotonic()
        produced = await until_it_stands(connection)
        stalled = await median_latency(connection)
        while time.monotonic() - begin < STALL_SECONDS:
            stalled = min(stalled, await median_latency(connection))
        assert await proxy.progress() == produced, "it waits for its reader"
        grown = resident_bytes(child.pid) - before

        for number in range(7_001, 8_000):  # nothing is lost by the wait
            assert int((await anext(stream))[:10]) == number
        assert isinstance(stream, Stream)
        await stream.aclose()
        assert grown < GROWTH
        assert stalled < USUAL * usual


async def test_a_stalled_reader_of_an_upload_costs_neither_memory_nor_other_calls(socket_path: Path) -> None:
    yielded = 0

    async def items() -> AsyncIterator[bytes]:
        nonlocal yielded
        while True:
            yield b"x" * 1_000
            yielded += 1

    async with producing(socket_path) as (child, connection):
        usual = await median_latency(connection)
        before = resident_bytes(os.getpid()), resident_bytes(child.pid)
        upload = asyncio.create_task(connection.proxy(Source).upload(items()))
        await comes_true(lambda: yielded > 0)
        stood, same = -1, 0
        while same < 50:  # each of these calls gives the producer, which is on this loop, a turn
            await connection.call("rpc.ping")
            same = same + 1 if stood == yielded else 0
            stood = yielded
        stalled = await median_latency(connection)
        assert yielded == stood
        grown = resident_bytes(os.getpid()) - before[0], resident_bytes(child.pid) - before[1]
        upload.cancel()
        await asyncio.wait([upload])
        assert max(grown) < GROWTH
        assert stalled < USUAL * usual
