"""Large payloads beside memcpy and a plain pipeline, in one run: ``python -m benchmarks.payloads``.

Each is sent from one process to another, and one answer comes back. The pipeline is two processes with blocking
sockets that pass the payload in packets of 64 KiB, without a message around it. The RPC is ``seqrpc`` with a typed
method and the default policy, uvloop at both ends: the payload as ``bytes``, as a ``Buffer`` that is made and filled
for each call, and as one that is sent again. The receiver of a buffer looks at a byte of each page.
memcpy is one copy within one process, into memory that was touched before.

The second table shows that a call with a ``Buffer`` takes as long however large that is: buffers of two sizes, filled
before, whose receiver does not look at them. What is proportional to the size, the first touch, is shown apart.
"""

from __future__ import annotations

import argparse
import mmap
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable

import uvloop

import seqrpc
from benchmarks.calls import connected, machine, process

ROUNDS = 7
MIB = 1 << 20
PACKET = 65_536

Times = dict[str, list[float]]


class Sink(seqrpc.Service):
    @seqrpc.method
    async def take_bytes(self, data: bytes) -> int:
        return len(data)

    @seqrpc.method
    async def take_buffer(self, data: seqrpc.Buffer, *, touch: bool) -> int:
        if touch:
            _a_byte_of_each_page = data[:: mmap.PAGESIZE]
        return len(data)


def rpc_server(path: str, limits: seqrpc.Limits) -> None:
    seqrpc.run(Sink(), path, limits=limits)


def pipeline_server(sock: socket.socket) -> None:
    """For a number as text take as many bytes in packets, and answer."""
    packet = bytearray(PACKET)
    while size := sock.recv(100):
        left = int(size)
        while left:
            left -= sock.recv_into(packet)
        sock.send(b"+")


def through_pipeline(sock: socket.socket, payload: memoryview) -> None:
    sock.send(str(len(payload)).encode())
    for offset in range(0, len(payload), PACKET):
        sock.send(payload[offset : offset + PACKET])
    assert sock.recv(10) == b"+"


def fill(buffer: seqrpc.Buffer) -> None:
    piece = b"x" * min(MIB, len(buffer))
    for offset in range(0, len(buffer), MIB):
        buffer[offset : offset + MIB] = piece[: len(buffer) - offset]


async def payloads(connection: seqrpc.Connection, pipeline: socket.socket, size: int, times: int, rounds: int) -> Times:
    """Return the seconds that one payload takes, in each way, in each round."""
    sink = connection.proxy(Sink)
    payload = b"x" * size
    view = memoryview(payload)
    touched = memoryview(bytearray(payload))
    sent_before = seqrpc.Buffer.copy_of(payload)

    async def memcpy() -> None:
        touched[:] = view

    async def packets() -> None:
        through_pipeline(pipeline, view)

    async def as_bytes() -> None:
        assert await sink.take_bytes(payload) == size

    async def fresh_buffer() -> None:
        with seqrpc.Buffer.allocate(size) as buffer:
            buffer[:] = payload
            assert await sink.take_buffer(buffer, touch=True) == size

    async def same_buffer() -> None:
        assert await sink.take_buffer(sent_before, touch=True) == size

    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "memcpy": memcpy,
        "pipeline of 64 KiB packets": packets,
        "bytes": as_bytes,
        "Buffer, made and filled": fresh_buffer,
        "Buffer, sent again": same_buffer,
    }
    taken: Times = {name: [] for name in ways}
    for way in ways.values():
        await way()
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(times):
                await way()
            taken[name].append((time.perf_counter() - start) / times)
    sent_before.close()
    return taken


async def buffers(connection: seqrpc.Connection, sizes: list[int], rounds: int) -> dict[int, Times]:
    """Return the seconds of first touch, first call and another call with buffers of each size."""
    sink = connection.proxy(Sink)
    taken: dict[int, Times] = {size: {"first touch": [], "first call": [], "another call": []} for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            with seqrpc.Buffer.allocate(size) as buffer:
                begin = time.perf_counter()
                fill(buffer)
                taken[size]["first touch"].append(time.perf_counter() - begin)
                for name in ("first call", "another call"):
                    begin = time.perf_counter()
                    assert await sink.take_buffer(buffer, touch=False) == size
                    taken[size][name].append(time.perf_counter() - begin)
    return taken


def named(size: int) -> str:
    return f"{size >> 30} GiB" if size >= 1 << 30 and not size % (1 << 30) else f"{size / MIB:g} MiB"


def print_payloads(size: int, taken: Times) -> None:
    rates = {name: [size / seconds / 1e9 for seconds in values] for name, values in taken.items()}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"\n{named(size)}: GB/s, lowest and highest, ratio to memcpy, ratio to the pipeline")
    for name, median in medians.items():
        memcpy, pipeline = list(medians.values())[:2]
        low, high = min(rates[name]), max(rates[name])
        print(f"{name:>28}: {median:7.2f} ({low:.2f} to {high:.2f}) {median / memcpy:8.2f} {median / pipeline:8.2f}")


def print_buffers(taken: dict[int, Times]) -> None:
    print("\nA Buffer whose receiver does not look at it: ms, lowest and highest")
    medians: dict[tuple[int, str], float] = {}
    for size, times in taken.items():
        for name, values in times.items():
            medians[size, name] = median = statistics.median(values)
            low, high = min(values) * 1e3, max(values) * 1e3
            print(f"{named(size):>12}, {name:>12}: {median * 1e3:9.3f} ({low:.3f} to {high:.3f})")
    small, large = taken
    for name in ("first call", "another call"):
        bound = medians[small, name] + medians[large, "first touch"]
        print(
            f"{name} of {named(large)}: {medians[large, name] / medians[small, name]:.2f} times that of {named(small)},"
            f" {medians[large, name] / bound:.3f} of that plus its first touch"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many (default: %(default)s)")
    parser.add_argument("--mib", type=float, nargs="+", default=[1, 64], help="sizes of payloads, in MiB")
    parser.add_argument("--large", type=float, default=1024, help="MiB of the large buffer (default: %(default)s)")
    args = parser.parse_args()
    sizes = [int(mib * MIB) for mib in args.mib]
    limits = seqrpc.Limits(max_message_bytes=max(PACKET, *sizes) + MIB)

    async def measure(path: str, pipeline: socket.socket) -> tuple[dict[int, Times], dict[int, Times]]:
        connection = await connected(path, limits)
        try:
            largest = max(sizes)
            by_size = {
                size: await payloads(connection, pipeline, size, max(1, min(32, largest // size)), args.rounds)
                for size in sizes
            }
            return by_size, await buffers(connection, [min(sizes), int(args.large * MIB)], args.rounds)
        finally:
            await connection.close()

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with tempfile.TemporaryDirectory() as directory, ours:
        path = f"{directory}/sink.sock"
        with process(pipeline_server, theirs), process(rpc_server, path, limits):
            theirs.close()
            by_size, taken = uvloop.run(measure(path, ours))
            ours.close()
    print(machine())
    print(f"{args.rounds} interleaved rounds; medians")
    for size, times in by_size.items():
        print_payloads(size, times)
    print_buffers(taken)


if __name__ == "__main__":
    main()
