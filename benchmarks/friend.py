"""The friendly caller of ``python -m benchmarks.hostile``: a call every 10 ms, whatever became of those before.

Told to ``measure`` so many seconds by a line of JSON, it answers with what its calls took. It is a user of its own:
neither the daemon's, nor root, nor the attackers'.
"""

from __future__ import annotations

import asyncio
import collections
import json
import sys
import time
from typing import Any

import uvloop

import seqrpc
from benchmarks.processes import FRIEND_UID, become

EVERY = 0.010
"""Seconds from one call to the next."""

WAITS = 20.0
"""Seconds for which calls are waited for at the end; those that are not answered then have failed."""


async def _call(target: Any, took: list[float], failures: collections.Counter[str]) -> None:
    started = time.perf_counter()
    try:
        if await target.add(2, 3) != 5:
            failures["a wrong answer"] += 1
    except asyncio.CancelledError:
        failures[f"no answer in {WAITS:g} s or more"] += 1
    except Exception as exc:
        failures[f"{type(exc).__name__}: {exc}"[:100]] += 1
    took.append(time.perf_counter() - started)


async def _measure(connection: seqrpc.Connection, seconds: float) -> dict[str, Any]:
    """Call, and return what each call took, in seconds, and how they failed that did."""
    from benchmarks.targets import Target  # noqa: PLC0415 - once, before anything is measured

    target = connection.proxy(Target)
    took: list[float] = []
    failures: collections.Counter[str] = collections.Counter()
    calls: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    begin = loop.time()
    count = max(1, round(seconds / EVERY))
    for number in range(count):
        await asyncio.sleep(begin + number * EVERY - loop.time())
        calls.add(asyncio.create_task(_call(target, took, failures)))
    _done, waiting = await asyncio.wait(calls, timeout=WAITS)
    for call in waiting:
        call.cancel()
    if waiting:
        await asyncio.wait(waiting)
    return {"seconds": took, "failures": dict(failures)}


async def _obey(address: str) -> None:
    async with seqrpc.connect(address) as connection:
        await _measure(connection, 0.05)  # all that is loaded late is: whoever it becomes may not be able to read it
    become(FRIEND_UID)
    async with seqrpc.connect(address) as connection:
        await _measure(connection, 0.15)
        print(json.dumps({}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await _measure(connection, json.loads(line)["seconds"])), flush=True)


def main() -> None:
    """Do as told until the standard input ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_obey(sys.argv[1]))


if __name__ == "__main__":
    main()
