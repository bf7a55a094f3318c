"""Streams beside a bare loop over the same kind of pair, in one run: ``python -m benchmarks.streams``.

The bare loop is two processes with blocking sockets and msgpack: the one packs an item and sends it in a packet of its
own, the other receives and unpacks it, nothing else. The RPC is ``seqrpc`` with an async generator whose items are
checked by annotation, uvloop at both ends.

The second table is about a lone item: how long after it was yielded its reader has it, beside how long after a handler
returned its caller has the answer. Both tell the time of the one clock that the two processes share.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator

import msgpack
import uvloop

import seqrpc
from benchmarks.calls import connected, machine, process

ROUNDS = 7
ITEMS = 50_000
LONE = 200
PAUSE = 0.001  # seconds between lone items

ROW: dict[str, int | str] = {"name": "apt/history.log", "size": 123_456, "lines": 789}

Row = dict[str, int | str]
Times = dict[str, list[float]]


class Source(seqrpc.Service):
    @seqrpc.method
    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @seqrpc.method
    async def rows(self, count: int) -> AsyncIterator[Row]:
        for _ in range(count):
            yield ROW

    @seqrpc.method
    async def times(self, count: int) -> AsyncIterator[int]:
        for _ in range(count):
            await asyncio.sleep(PAUSE)
            yield time.monotonic_ns()

    @seqrpc.method
    async def time(self) -> int:
        await asyncio.sleep(PAUSE)
        return time.monotonic_ns()


def rpc_server(path: str) -> None:
    seqrpc.run(Source(), path)


def bare_server(sock: socket.socket) -> None:
    """For the name of what is wanted, and how many, send as many items."""
    while asked := sock.recv(100):
        what, count = msgpack.unpackb(asked)
        for number in range(count):
            sock.send(msgpack.packb((0, number if what == "numbers" else ROW)))


def bare_items(sock: socket.socket, what: str, count: int) -> float:
    start = time.perf_counter()
    sock.send(msgpack.packb((what, count)))
    for _ in range(count):
        _kind, item = msgpack.unpackb(sock.recv(65_536))
    assert item == (count - 1 if what == "numbers" else ROW)
    return time.perf_counter() - start


async def stream_items(source: Source, what: str, count: int) -> float:
    start = time.perf_counter()
    received = 0
    if what == "numbers":
        async for number in source.numbers(count):
            assert number == received
            received += 1
    else:
        async for row in source.rows(count):  # noqa: B007 - the last is looked at
            received += 1
        assert row == ROW
    assert received == count
    return time.perf_counter() - start


async def lone_items(source: Source, count: int) -> float:
    late = [time.monotonic_ns() - sent async for sent in source.times(count)]
    return statistics.median(late) / 1e9


async def lone_answers(source: Source, count: int) -> float:
    late = []
    for _ in range(count):
        sent = await source.time()
        late.append(time.monotonic_ns() - sent)
    return statistics.median(late) / 1e9


async def measure(path: str, bare: socket.socket, items: int, lone: int, rounds: int) -> tuple[Times, Times]:
    rates: Times = {f"{what}, {how}": [] for what in ("numbers", "rows") for how in ("bare loop", "stream")}
    latencies: Times = {"an answer": [], "an item": []}
    connection = await connected(path)
    try:
        source = connection.proxy(Source)
        await stream_items(source, "numbers", min(items, 1000))
        for _ in range(rounds):
            for what in ("numbers", "rows"):
                rates[f"{what}, bare loop"].append(items / bare_items(bare, what, items))
                rates[f"{what}, stream"].append(items / await stream_items(source, what, items))
            latencies["an answer"].append(await lone_answers(source, lone))
            latencies["an item"].append(await lone_items(source, lone))
    finally:
        await connection.close()
    return rates, latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many (default: %(default)s)")
    parser.add_argument("--items", type=int, default=ITEMS, help="items of each kind in a round (default: %(default)s)")
    parser.add_argument("--lone", type=int, default=LONE, help="lone items in a round (default: %(default)s)")
    args = parser.parse_args()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with tempfile.TemporaryDirectory() as directory, ours:
        path = f"{directory}/source.sock"
        with process(bare_server, theirs), process(rpc_server, path):
            theirs.close()
            rates, latencies = uvloop.run(measure(path, ours, args.items, args.lone, args.rounds))
            ours.close()
    print(machine())
    print(f"{args.rounds} interleaved rounds of {args.items} items; medians, lowest and highest:")
    for what in ("numbers", "rows"):
        bare = statistics.median(rates[f"{what}, bare loop"])
        for how in ("bare loop", "stream"):
            values = rates[f"{what}, {how}"]
            median = statistics.median(values)
            spread = f"{median:9,.0f} items/s ({min(values):,.0f} to {max(values):,.0f})"
            print(f"{what:>8}, {how:>9}: {spread}, {median / bare:5.2f} times the bare loop's rate")
    print(f"{args.rounds} interleaved rounds of {args.lone}; medians of medians, lowest and highest:")
    answer = statistics.median(latencies["an answer"])
    for name, values in latencies.items():
        median = statistics.median(values)
        spread = f"{median * 1e6:7.1f} µs ({min(values) * 1e6:.1f} to {max(values) * 1e6:.1f})"
        print(f"{name:>19}: {spread}, {median / answer:5.2f} times an answer's")


if __name__ == "__main__":
    main()
