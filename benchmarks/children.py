"""What children cost: ``python -m benchmarks.children`` measures workers beside what people use instead.

One child each of seqrpc's and of the standard library's. In each round every peer does a share of each workload in
turn, so that a slow minute of the machine meets all of them; a figure is the median of the rounds, with the lowest and
the highest. Results are checked.

    pipe               multiprocessing's Pipe and Process (spawn): what is below the pools, one call at a time
    pool               multiprocessing.Pool of one (spawn)
    futures            concurrent.futures.ProcessPoolExecutor of one (spawn)
    seqrpc.Worker      a service with a coroutine method, a proxy
    seqrpc.WorkerPool  the same in a pool of one
    seqrpc.executor    seqrpc.WorkerExecutor of one: plain functions, as in the pools
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import uvloop

import seqrpc

T = TypeVar("T")

CALLS = 20_000
WINDOW = 64
ARRAY_BYTES = 64 * 1024 * 1024

_SPAWN = multiprocessing.get_context("spawn")


def add(a: int, b: int) -> int:
    """Return a sum: the tiny call."""
    return a + b


def total(array: Any) -> float:
    """Return the sum of an array of float64."""
    return float(np.frombuffer(array, dtype="f8").sum())


class Adds(seqrpc.Service):
    """The same as a service."""

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        """Return a sum."""
        return a + b

    @seqrpc.method
    async def total(self, array: seqrpc.Buffer) -> float:
        """Return the sum of an array of float64."""
        return total(array)


def _echo(connection: Connection) -> None:
    """Be the child at the end of a pipe."""
    functions: dict[str, Callable[..., Any]] = {"add": add, "total": total}
    while (asked := connection.recv()) is not None:
        name, args = asked
        connection.send(functions[name](*args))


class Peer(Protocol):
    """What is measured: one child and a way to call it."""

    def start(self) -> None:
        """Start the child, and return once it has answered something."""
        ...

    def lone(self, calls: int) -> None:
        """Make so many tiny calls, one at a time."""
        ...

    def in_flight(self, calls: int) -> None:
        """Make so many, 64 of them at a time."""
        ...

    def array(self, array: Any) -> float:
        """Have an array summed."""
        ...

    def stop(self) -> None:
        """End the child."""
        ...


class Pipe:
    """A child at the end of a pipe."""

    def start(self) -> None:
        """Start it."""
        self._ours, theirs = _SPAWN.Pipe()
        self._child = _SPAWN.Process(target=_echo, args=(theirs,))
        self._child.start()
        theirs.close()
        assert self._call("add", 1, 2) == 3

    def _call(self, name: str, *args: Any) -> Any:
        self._ours.send((name, args))
        return self._ours.recv()

    def lone(self, calls: int) -> None:
        """Call, and wait."""
        for number in range(calls):
            assert self._call("add", number, 1) == number + 1

    def in_flight(self, calls: int) -> None:
        """Send ahead."""
        for number in range(calls):
            self._ours.send(("add", (number, 1)))
            if number >= WINDOW:
                assert self._ours.recv() == number - WINDOW + 1
        for number in range(max(0, calls - WINDOW), calls):
            assert self._ours.recv() == number + 1

    def array(self, array: Any) -> float:
        """Pickle it."""
        result: float = self._call("total", array)
        return result

    def stop(self) -> None:
        """Say so."""
        self._ours.send(None)
        self._child.join()
        self._ours.close()


class Futures:
    """An executor of concurrent.futures."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Remember how to make it."""
        self._make = make

    def start(self) -> None:
        """Start it, and its child."""
        self._executor = self._make()
        assert self._executor.submit(add, 1, 2).result() == 3

    def lone(self, calls: int) -> None:
        """Submit, and wait."""
        submit = self._executor.submit
        for number in range(calls):
            assert submit(add, number, 1).result() == number + 1

    def in_flight(self, calls: int) -> None:
        """Keep so many submitted."""
        submit, waiting = self._executor.submit, deque[Future[int]]()
        for number in range(calls):
            waiting.append(submit(add, number, 1))
            if len(waiting) >= WINDOW:
                waiting.popleft().result()
        while waiting:
            last = waiting.popleft().result()
        assert last == calls

    def array(self, array: Any) -> float:
        """Send it as the executor does."""
        if isinstance(self._executor, seqrpc.WorkerExecutor):
            with seqrpc.Buffer.copy_of(array) as buffer:
                return self._executor.submit(total, buffer).result()
        result: float = self._executor.submit(total, array).result()
        return result

    def stop(self) -> None:
        """Shut it down."""
        self._executor.shutdown()


class Pool(Futures):
    """multiprocessing.Pool, whose results are not futures."""

    def __init__(self) -> None:
        """Use spawn, as the others."""
        super().__init__(lambda: _SPAWN.Pool(1))

    def start(self) -> None:
        """Start it, and its child."""
        self._executor = self._make()
        assert self._executor.apply(add, (1, 2)) == 3

    def lone(self, calls: int) -> None:
        """Apply, and wait."""
        for number in range(calls):
            assert self._executor.apply(add, (number, 1)) == number + 1

    def in_flight(self, calls: int) -> None:
        """Keep so many applied."""
        waiting: deque[Any] = deque()
        for number in range(calls):
            waiting.append(self._executor.apply_async(add, (number, 1)))
            if len(waiting) >= WINDOW:
                waiting.popleft().get()
        while waiting:
            waiting.popleft().get()

    def array(self, array: Any) -> float:
        """Pickle it."""
        result: float = self._executor.apply(total, (array,))
        return result

    def stop(self) -> None:
        """Close it."""
        self._executor.close()
        self._executor.join()


class Seqrpc:
    """A worker, or a pool of one."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Make its loop."""
        self._make = make
        self._loop = uvloop.new_event_loop()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(coroutine)

    def start(self) -> None:
        """Start it."""

        async def start() -> None:
            self._worker = self._make()
            await self._worker.start()
            self._proxy = self._worker.proxy(Adds)
            assert await self._proxy.add(1, 2) == 3

        self._run(start())

    def lone(self, calls: int) -> None:
        """Call, and wait."""

        async def call() -> None:
            for number in range(calls):
                assert await self._proxy.add(number, 1) == number + 1

        self._run(call())

    def in_flight(self, calls: int) -> None:
        """Have so many tasks that call."""

        async def some(numbers: Any) -> None:
            for number in numbers:
                assert await self._proxy.add(number, 1) == number + 1

        async def call() -> None:
            numbers = iter(range(calls))
            await asyncio.gather(*(some(numbers) for _ in range(WINDOW)))

        self._run(call())

    def array(self, array: Any) -> float:
        """Copy it into a buffer, which travels as a descriptor."""

        async def call() -> float:
            with seqrpc.Buffer.copy_of(array) as buffer:
                result: float = await self._proxy.total(buffer)
                return result

        return self._run(call())

    def stop(self) -> None:
        """Close it."""
        self._run(self._worker.close())


def _peers() -> dict[str, Peer]:
    return {
        "pipe": Pipe(),
        "pool": Pool(),
        "futures": Futures(lambda: ProcessPoolExecutor(1, mp_context=_SPAWN)),
        "seqrpc.Worker": Seqrpc(lambda: seqrpc.Worker(Adds)),
        "seqrpc.WorkerPool": Seqrpc(lambda: seqrpc.WorkerPool(Adds, size=1, calls_per_worker=WINDOW)),
        "seqrpc.executor": Futures(lambda: seqrpc.WorkerExecutor(1)),
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(rounds: int, calls: int, array_bytes: int) -> dict[str, dict[str, list[float]]]:
    """Return the figures of all peers by workload, one for each round."""
    peers = _peers()
    array = np.arange(array_bytes // 8, dtype="f8")
    expected = float(array.sum())
    found: dict[str, dict[str, list[float]]] = {name: {} for name in peers}

    def note(name: str, workload: str, value: float) -> None:
        found[name].setdefault(workload, []).append(value)

    def summed(peer: Peer) -> None:
        assert peer.array(array) == expected

    for _ in range(rounds):
        for name, peer in peers.items():
            note(name, "start, ms", 1e3 * _seconds(peer.start))
        for name, peer in peers.items():
            note(name, "lone, us", 1e6 * _seconds(lambda peer=peer: peer.lone(calls)) / calls)  # type: ignore[misc]
        for name, peer in peers.items():
            note(name, "64 in flight, /s", calls / _seconds(lambda peer=peer: peer.in_flight(calls)))  # type: ignore[misc]
        for name, peer in peers.items():
            summed(peer)
            note(name, "array, ms", 1e3 * _seconds(lambda peer=peer: summed(peer)))  # type: ignore[misc]
        for peer in peers.values():
            peer.stop()
    return found


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):,.1f} ({min(values):,.0f} to {max(values):,.0f})"


def main(argv: list[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=CALLS, help="tiny calls in each round, of each kind")
    parser.add_argument("--array-bytes", type=int, default=ARRAY_BYTES)
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args(argv)
    found = measure(args.rounds, args.calls, args.array_bytes)
    workloads = list(next(iter(found.values())))
    print(f"{'':20}" + "".join(f"{workload:>28}" for workload in workloads))
    for name, figures in found.items():
        print(f"{name:20}" + "".join(f"{_cell(values):>28}" for values in figures.values()))
    futures, worker = found["futures"], found["seqrpc.Worker"]
    for workload, is_rate in (("64 in flight, /s", True), ("array, ms", False)):
        theirs, ours = statistics.median(futures[workload]), statistics.median(worker[workload])
        times = ours / theirs if is_rate else theirs / ours
        print(f"{workload}: seqrpc.Worker is {times:.2f} times as fast as futures")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
