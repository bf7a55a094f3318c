"""The full stack on one connection beside the bare floor, in one run: ``python -m benchmarks.calls``.

The floor is two processes with blocking sockets and msgpack: pack, send, receive, unpack at each end, nothing else.
The RPC is ``seqrpc`` with a typed method, checked arguments and the default policy, uvloop at both ends.
Rounds of the three are interleaved; what counts is the ratio of medians within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context

import msgpack
import uvloop

import seqrpc

ROUNDS = 7
IN_FLIGHT = 64
DEFAULT_LIMITS = seqrpc.Limits()


class Calculator(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b


def floor_server(sock: socket.socket) -> None:
    while data := sock.recv(65_536):
        _kind, call_id, _method, params = msgpack.unpackb(data)
        sock.send(msgpack.packb((1, call_id, None, params[0] + params[1])))


def floor_calls(sock: socket.socket, calls: int) -> float:
    start = time.perf_counter()
    for call_id in range(calls):
        sock.send(msgpack.packb((0, call_id, "Calculator.add", (2, 3))))
        _kind, _call_id, _error, result = msgpack.unpackb(sock.recv(65_536))
        assert result == 5
    return (time.perf_counter() - start) / calls


def rpc_server(path: str) -> None:
    seqrpc.run(Calculator(), path)


async def rpc_calls(calculator: Calculator, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        assert await calculator.add(2, 3) == 5
    return (time.perf_counter() - start) / calls


async def rpc_calls_in_flight(calculator: Calculator, calls: int) -> float:
    async def caller() -> None:
        for _ in range(calls // IN_FLIGHT):
            assert await calculator.add(2, 3) == 5

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(caller())
    return (time.perf_counter() - start) / (calls // IN_FLIGHT * IN_FLIGHT)


@contextlib.contextmanager
def process(target: Callable[..., None], *args: object) -> Iterator[None]:
    child = get_context("fork").Process(target=target, args=args)
    child.start()
    try:
        yield
    finally:
        assert child.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)
        child.join()


async def connected(path: str, limits: seqrpc.Limits = DEFAULT_LIMITS) -> seqrpc.Connection:
    while True:
        try:
            return await seqrpc.connect(path, limits=limits)
        except seqrpc.ConnectError:
            await asyncio.sleep(0.01)  # the server is still starting


def machine() -> str:
    return f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} CPUs"


async def measure(path: str, floor: socket.socket, calls: int, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"floor": [], "one at a time": [], f"{IN_FLIGHT} in flight": []}
    connection = await connected(path)
    try:
        calculator = connection.proxy(Calculator)
        await rpc_calls(calculator, 200)
        for _ in range(rounds):
            times["floor"].append(floor_calls(floor, calls))
            times["one at a time"].append(await rpc_calls(calculator, calls))
            times[f"{IN_FLIGHT} in flight"].append(await rpc_calls_in_flight(calculator, calls))
    finally:
        await connection.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000, help="calls of each kind in a round")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many (default: %(default)s)")
    args = parser.parse_args()
    calls = args.calls
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with tempfile.TemporaryDirectory() as directory, ours:
        path = f"{directory}/calculator.sock"
        with process(floor_server, theirs), process(rpc_server, path):
            theirs.close()
            times = uvloop.run(measure(path, ours, calls, args.rounds))
            ours.close()
    print(machine())
    print(f"{args.rounds} interleaved rounds of {calls} calls; medians, lowest and highest:")
    floor = statistics.median(times["floor"])
    for name, values in times.items():
        median = statistics.median(values)
        spread = f"{median * 1e6:6.1f} µs a call ({min(values) * 1e6:.1f} to {max(values) * 1e6:.1f})"
        print(f"{name:>14}: {spread}, {median / floor:5.2f} times the floor's time, {floor / median:5.2f} its rate")


if __name__ == "__main__":
    main()
