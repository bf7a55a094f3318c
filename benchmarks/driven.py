"""The process that drives one checkout of seqrpc for ``benchmarks.checkouts``, which runs this file by its path.

Its arguments are the checkout, a directory for its socket, the loop, and the user to become ("" for none). It serves at
a path and calls that from the same process, on one loop, so that the processor time of the process is that of both
sides of a call. Commands and answers are lines of JSON on its standard input and output; while it waits for one the
loop stands still. It uses only what version 0.1 had, and of ``benchmarks`` only what does not know seqrpc.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

CHECKOUT, DIRECTORY, LOOP, UID = sys.argv[1:]

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from benchmarks.peers.base import RECORD, Record  # noqa: E402 - of this tree, whatever the checkout has
from benchmarks.workloads import IN_FLIGHT  # noqa: E402 - as above

sys.path[0] = CHECKOUT
import seqrpc  # noqa: E402 - the checkout's


class Driven(seqrpc.Service):
    """What is called."""

    def __init__(self) -> None:
        self.noted = 0

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def add_by_anyone(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def waits(self, a: int) -> int:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[int] = loop.create_future()
        loop.call_soon(waiter.set_result, a)
        return await waiter

    @seqrpc.method
    async def record(self, record: Record) -> Record:
        return record

    @seqrpc.method
    async def descriptor(self, file: seqrpc.OwnedFd) -> int:
        return file.fileno()  # not detached: closed when this returns

    @seqrpc.method
    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @seqrpc.method(oneway=True)
    async def note(self, a: int) -> None:
        self.noted += a

    @seqrpc.method
    async def take_noted(self) -> int:
        noted, self.noted = self.noted, 0
        return noted


@dataclass
class Caller:
    """What calls it, and what that needs."""

    proxy: Driven
    file: seqrpc.OwnedFd


@asynccontextmanager
async def ready() -> AsyncIterator[Caller]:
    """Serve, and connect."""
    address = os.path.join(DIRECTORY, "socket")
    async with seqrpc.serve(Driven(), address), seqrpc.connect(address) as connection:
        with seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) as file:
            yield Caller(connection.proxy(Driven), file)


async def _lone(caller: Caller, count: int) -> None:
    for _ in range(count):
        assert await caller.proxy.add(2, 3) == 5


async def _in_flight(caller: Caller, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(_lone(caller, count // IN_FLIGHT))


async def _policy_free(caller: Caller, count: int) -> None:
    for _ in range(count):
        assert await caller.proxy.add_by_anyone(2, 3) == 5


async def _waits(caller: Caller, count: int) -> None:
    for _ in range(count):
        assert await caller.proxy.waits(5) == 5


async def _deadline(caller: Caller, count: int) -> None:
    for _ in range(count):
        async with seqrpc.timeout(60):
            assert await caller.proxy.add(2, 3) == 5


async def _record(caller: Caller, count: int) -> None:
    for _ in range(count):
        assert (await caller.proxy.record(RECORD)).id == RECORD.id


async def _descriptor(caller: Caller, count: int) -> None:
    for _ in range(count):
        assert await caller.proxy.descriptor(caller.file) >= 0


async def _stream(caller: Caller, count: int) -> None:
    expected = 0
    async for number in caller.proxy.numbers(count):
        assert number == expected
        expected += 1
    assert expected == count


async def _notify(caller: Caller, count: int) -> None:
    for _ in range(count):
        await caller.proxy.note(1)
    noted = 0
    while noted < count:  # their handlers are tasks: those that have begun have ended, and others may not have begun
        noted += await caller.proxy.take_noted()
    assert noted == count


KINDS: dict[str, Callable[[Caller, int], Awaitable[None]]] = {
    "lone": _lone,
    "in-flight": _in_flight,
    "policy-free": _policy_free,
    "waits": _waits,
    "deadline": _deadline,
    "record": _record,
    "descriptor": _descriptor,
    "stream": _stream,
    "notify": _notify,
}
STEPS = {"in-flight": IN_FLIGHT, "stream": 100}
"""Of which numbers the counts of calls are multiples, where not of 1."""


async def processor_seconds(caller: Caller, kind: str, count: int) -> float:
    """Return the processor time, the kernel's included, that so many calls take."""
    go = KINDS[kind]
    gc.collect()  # what was there before is not looked through on their account alone; else it is on, as everywhere
    start = time.process_time()
    await go(caller, count)
    return time.process_time() - start


async def count_for(caller: Caller, kind: str, seconds: float) -> int:
    """Return how many calls take about so much processor time; making them warms up what makes them."""
    step = STEPS.get(kind, 1)
    count = step
    while (taken := await processor_seconds(caller, kind, count)) < seconds / 4:
        count *= max(2, min(10, int(seconds / 2 / max(taken, 1e-6))))
    return max(1, round(count / step * seconds / taken)) * step


async def do(caller: Caller, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out a command."""
    if command["do"] == "prepare":
        return {"count": await count_for(caller, command["kind"], command["seconds"])}
    return {"seconds": await processor_seconds(caller, command["kind"], command["count"])}


def about() -> dict[str, Any]:
    """Say what is driven."""
    package = os.path.realpath(os.path.dirname(seqrpc.__file__))
    if package != os.path.realpath(os.path.join(CHECKOUT, "seqrpc")):
        raise ImportError(f"{package} was imported, and not what is in {CHECKOUT}")
    module = sys.modules.get("seqrpc.twin")  # version 0.1 had no twin
    return {
        "version": seqrpc.__version__,
        "twin": getattr(module, "TWIN", "pure"),
        "reason": getattr(module, "REASON", ""),
        "loop": LOOP if LOOP == "asyncio" else f"{LOOP} {metadata.version(LOOP)}",
    }


def check_extension() -> None:
    """See that the native part is of the sources beside it: another one would be measured in its place, or hang.

    Raises:
        ImportError: it is not.
    """
    module = sys.modules.get("seqrpc._native")  # by now, if at all
    build = os.path.join(CHECKOUT, "native", "build.py")
    if module is None or not os.path.exists(build):
        return
    spec = importlib.util.spec_from_file_location("native_build", build)
    assert spec is not None
    assert spec.loader is not None
    building = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(building)
    if building.digest() != module.SOURCES:
        raise ImportError(f"{module.__file__} is not of the sources in {CHECKOUT}: run native/build.py there")


async def main() -> None:
    """Do as told until the standard input ends."""
    _loaded = seqrpc.serve  # and all that it needs
    check_extension()
    async with ready() as caller:
        for kind, go in KINDS.items():  # whoever this process becomes may not be able to read what is imported then
            await go(caller, STEPS.get(kind, 1))
    what = about()
    if UID:
        os.setgroups([])
        os.setresgid(int(UID), int(UID), int(UID))
        os.setresuid(int(UID), int(UID), int(UID))
    async with ready() as caller:
        print(json.dumps(what), flush=True)
        while line := sys.stdin.readline():
            answer: dict[str, Any]
            try:
                answer = await do(caller, json.loads(line))
            except Exception as exc:
                traceback.print_exc()
                answer = {"failed": f"{type(exc).__name__}: {exc}"}
            print(json.dumps(answer), flush=True)


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of the kind that was asked for."""
    if LOOP == "asyncio":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - asyncio's does without

    return uvloop.new_event_loop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
