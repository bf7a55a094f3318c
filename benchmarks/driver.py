"""The client process of a peer: ``python -m benchmarks.driver NAME ADDRESS SERVER``, which does as it is told.

Commands and answers are lines of JSON on its standard input and output. It connects, and finds out how much work fills
the time of a round, when it is told to ``prepare`` a workload; ``measure`` does one round of it and answers with its
figures; ``finish`` closes the connections. Between commands it waits, and costs nothing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.imports import time_import
from benchmarks.loops import Go, ready
from benchmarks.memory import server_memory
from benchmarks.peers.base import BlockingPeer, Peer, Unsupported
from benchmarks.peers.registry import find
from benchmarks.serving import many_files, new_loop
from benchmarks.workloads import WORKLOADS, Workload

Figures = dict[str, float]

_TURNS = 5
"""Into so many parts the work of a round is divided."""


async def work_for(go: Go, seconds: float, step: int) -> int:
    """Return how many units of work take so long: a multiple of ``step``. It warms up what does it."""
    count = step
    while True:
        start = time.perf_counter()
        await go(count)
        taken = time.perf_counter() - start
        if taken >= seconds / 4:
            return max(1, round(count / step * seconds / taken)) * step
        count *= max(2, min(10, int(seconds / 2 / taken)))


def shares(count: int, step: int, most: int) -> list[int]:
    """Divide units of work into at most so many parts that are as equal as multiples of ``step`` can be."""
    steps = count // step
    parts = min(most, steps)
    return [(steps * (part + 1) // parts - steps * part // parts) * step for part in range(parts)]


async def in_turn(loops: Mapping[str, Go], counts: Mapping[str, int], step: int) -> Figures:
    """Do the work of all variants, a part of each in turn, in an order that is drawn each time; return its seconds.

    What runs first after a pause has both processes on one processor, for a while. So some work goes before that does
    not count: else a variant that did the same as the first took 1.25 times as long.
    """
    names = list(loops)
    if len(names) == 1:
        return {name: await loops[name](counts[name]) for name in names}
    parts = {name: shares(counts[name], step, _TURNS) for name in names}
    seconds = dict.fromkeys(names, 0.0)
    await loops[names[0]](parts[names[0]][0])
    for turn in range(_TURNS):
        for name in random.sample(names, len(names)):
            if turn < len(parts[name]):
                seconds[name] += await loops[name](parts[name][turn])
    return seconds


async def prepare(workload: Workload, seconds: float, loops: Mapping[str, Go]) -> Callable[[], Awaitable[Figures]]:
    """Return what does a round of the workload."""
    counts = {variant: await work_for(go, seconds, workload.step) for variant, go in loops.items()}

    async def round_of_it() -> Figures:
        gc.collect()  # connections that were just made are not looked through on account of the calls
        taken = await in_turn(loops, counts, workload.step)
        return {variant: workload.figure(taken[variant], counts[variant]) for variant in loops}

    return round_of_it


class Driver:
    """One peer's client process."""

    def __init__(self, peer: Peer | BlockingPeer, address: str, server: int) -> None:
        self.peer = peer
        self.address = address
        self.server = server
        self.held = AsyncExitStack()
        self.round: Callable[[], Awaitable[Figures]] | None = None

    async def do(self, command: dict[str, Any]) -> Figures:
        """Carry out a command."""
        if command["do"] == "prepare":
            await self.prepare(WORKLOADS[command["workload"]], command["seconds"])
        elif command["do"] == "measure":
            assert self.round is not None
            return await self.round()
        elif command["do"] == "finish":
            self.round = None
            await self.held.aclose()
        return {}

    async def prepare(self, workload: Workload, seconds: float) -> None:
        """Get ready for rounds of a workload."""
        if workload.name == "import":
            self.round = lambda: time_import(self.peer, seconds)
        elif workload.name == "memory":
            self.round = lambda: server_memory(self.peer, self.address, self.server, workload.connections)
        else:
            loops = await self.held.enter_async_context(ready(workload, self.peer, self.address))
            self.round = await prepare(workload, seconds, loops)


async def obey(driver: Driver) -> None:
    """Do as told until the standard input ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer: dict[str, Any]
        try:
            answer = {"figures": await driver.do(json.loads(line))}
        except Unsupported as exc:
            answer = {"unsupported": str(exc)}
        except Exception as exc:
            traceback.print_exc()
            answer = {"failed": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), flush=True)
    await driver.held.aclose()


def main() -> None:
    """Be the client process."""
    name, address, server = sys.argv[1:]
    many_files()
    peer = find(name)
    driver = Driver(peer, address, int(server))
    factory = (lambda: new_loop(peer)) if isinstance(peer, Peer) else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(obey(driver))


if __name__ == "__main__":
    main()
