"""A program in which one allocation fails, the next one each time, while calls are made; run with ``python -m``.

It prints what went wrong, a line each: nothing if both ends let go of everything, and can be used afterwards. What
memory there is not is told by ``_testcapi``, which comes with most builds of Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any

import seqrpc
from seqrpc import policy
from seqrpc.aio.connection import link_of
from seqrpc.kernel.closing import CLOSER
from support.descriptors import open_fds

_testcapi: Any = import_module("_testcapi")  # of Python's own tests: nobody has types of it

CLEAN = 12
"""So many allocations in a row whose failure changes nothing are taken for the end of what is done in a moment."""

TURNS = 40
"""Turns of the loop in which a call is made."""

ATTEMPTS = 20
"""Looks at what is left: what a thread closes, and what refers to itself, may take several."""

LIMITS = seqrpc.Limits(close_timeout=0.02)
"""What the loop has lost is not waited for at the end either."""

KINDS = frozenset(
    {"Lane", "Handling", "Link", "Session", "Carrier", "Request", "Response", "HandledCall", "Dispatcher"}
)
"""Classes of objects that there are as many of as before, once a connection has ended."""

PLAIN = [1, 2.5, "three", b"four", {"five": [None, True, 1 << 40]}, "x" * 40, [[], {}], -70_000, {"a": {"b": [1.5]}}]


class Shortage:
    """The allocation that fails: its number, counted from one moment on."""

    def __init__(self) -> None:
        self.moment = ""
        self.number = 0
        self.is_armed = False

    def begin(self, moment: str) -> None:
        """Count from now on, if this is the moment."""
        if self.is_armed and moment == self.moment:
            self.is_armed = False
            _testcapi.set_nomemory(self.number, self.number + 1)

    def begin_step(self, moment: str) -> None:
        """Do so until the task that runs waits or ends."""
        if self.is_armed and moment == self.moment:
            loop: Any = asyncio.get_running_loop()
            loop.call_soon(_testcapi.remove_mem_hooks)
            loop._ready.rotate(1)  # this comes next, before whatever the loop has to do as well
            self.begin(moment)

    def end(self) -> None:
        """Have memory again."""
        _testcapi.remove_mem_hooks()


SHORTAGE = Shortage()


class Loop(asyncio.SelectorEventLoop):
    """Tells when either side begins to read."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: dict[int, str] = {}

    def _add_reader(self, fd: int, callback: Callable[..., object], *args: object) -> Any:
        def read(*args: object) -> None:
            SHORTAGE.begin(self.moments.get(fd, ""))
            try:
                callback(*args)
            finally:
                SHORTAGE.end()

        return super()._add_reader(fd, read, *args)  # type: ignore[misc]


class Desk(seqrpc.Service):
    """Answers in all ways."""

    @seqrpc.method
    async def echo(self, value: object) -> object:
        SHORTAGE.begin_step("answer")
        return value

    @seqrpc.method(allow=~policy.anyone)
    async def refused(self) -> None:
        raise AssertionError

    @seqrpc.method
    async def fails(self) -> None:
        SHORTAGE.begin_step("answer")
        raise ValueError("no")

    @seqrpc.method
    async def waits(self, number: int) -> int:
        SHORTAGE.begin_step("wait")
        await asyncio.sleep(0)
        SHORTAGE.begin_step("answer")
        return number

    @seqrpc.method
    async def holds(self) -> None:
        try:
            SHORTAGE.begin_step("wait")
            await asyncio.Event().wait()
        finally:
            SHORTAGE.begin_step("answer")


async def echo(there: seqrpc.Connection) -> None:
    SHORTAGE.begin_step("call")
    assert await there.call("Desk.echo", PLAIN) == PLAIN


async def wait(there: seqrpc.Connection) -> None:
    SHORTAGE.begin_step("call")
    assert await there.proxy(Desk).waits(3) == 3


async def refuse(there: seqrpc.Connection) -> None:
    SHORTAGE.begin_step("call")
    with contextlib.suppress(seqrpc.PermissionDenied):
        await there.call("Desk.refused")


async def fail(there: seqrpc.Connection) -> None:
    SHORTAGE.begin_step("call")
    with contextlib.suppress(seqrpc.Internal):
        await there.call("Desk.fails")


async def cancel(there: seqrpc.Connection) -> None:
    task = asyncio.ensure_future(there.call("Desk.holds"))
    for _ in range(8):
        await asyncio.sleep(0)
    SHORTAGE.begin_step("cancel")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


MOMENTS = ("call", "server", "wait", "answer", "client", "cancel")
CALLS = (echo, wait, refuse, fail, cancel)


async def use(call: Callable[[seqrpc.Connection], Any], pair: bool, path: str) -> None:
    """Make a call while an allocation fails, and some when none does."""
    loop: Any = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        if pair:
            ours, theirs = seqrpc.socket_pair()
            other = await stack.enter_async_context(seqrpc.connect(sock=ours, services=[Desk()], limits=LIMITS))
            there = await stack.enter_async_context(seqrpc.connect(sock=theirs, limits=LIMITS))
            number = link_of(other).transport.get_extra_info("socket").fileno()
        else:
            await stack.enter_async_context(seqrpc.serve(Desk(), path, limits=LIMITS))
            there = await stack.enter_async_context(seqrpc.connect(path, limits=LIMITS))
            await there.call("rpc.ping")
            number = max(loop._selector.get_map())  # who was accepted last
        await call(there)
        await there.call("rpc.ping")
        loop.moments[link_of(there).transport.get_extra_info("socket").fileno()] = "client"
        loop.moments[number] = "server"
        SHORTAGE.is_armed = True
        task = asyncio.ensure_future(call(there))
        # The loop may lose what was to wake a task, and with it the task: it is not waited for in vain.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        SHORTAGE.end()
        SHORTAGE.is_armed = False
        task.cancel()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if (
            task.done()
            and not task.cancelled()
            and not isinstance(task.exception(), MemoryError | seqrpc.SeqrpcError | None)
        ):
            say(1, f"{told()}: {task.exception()!r}")
        with contextlib.suppress(seqrpc.ConnectionLost, seqrpc.Unavailable):
            async with asyncio.timeout(20):
                assert await there.call("Desk.echo", PLAIN) == PLAIN


def say(fd: int, text: str) -> None:
    os.write(fd, text.encode() + b"\n")


def told() -> str:
    return f"{SHORTAGE.moment}, allocation {SHORTAGE.number}"


def nodes() -> int:
    """Return of how many nodes contexts consist. Python itself loses one, at times, that it had no memory to set."""
    return sum(type(each).__name__.startswith("hamt") for each in gc.get_objects())


def alive() -> tuple[Any, ...]:
    """Return what there is."""
    assert CLOSER.wait_idle(20)
    gc.collect()
    kinds = Counter(type(each).__name__ for each in gc.get_objects())
    return len(open_fds()), {name: count for name, count in kinds.items() if name in KINDS}


def run(call: Callable[[seqrpc.Connection], Any], pair: bool, path: str) -> list[str]:
    """Do so on a loop of its own; return what was said meanwhile."""
    said: list[str] = []
    loop = Loop()
    loop.set_exception_handler(lambda _loop, context: said.append(str(context)))
    main = loop.create_task(use(call, pair, path))
    try:
        while not main.done():
            try:
                loop.run_until_complete(main)
            except MemoryError as exc:  # the loop itself had none
                said.append(repr(exc))
            finally:
                SHORTAGE.end()
    finally:
        loop.close()
    return said


def main() -> None:
    logging.disable()
    warnings.simplefilter("ignore")  # of coroutines that could not be begun
    sys.unraisablehook = lambda _unraisable: None
    count = itertools.count()
    with tempfile.TemporaryDirectory() as directory:
        for pair, call, moment in itertools.product((False, True), CALLS, MOMENTS):
            SHORTAGE.moment = moment
            SHORTAGE.number = 1_000_000
            for _ in range(2):
                run(call, pair, f"{directory}/{next(count)}")
            before, clean, SHORTAGE.number = alive(), 0, 0
            nodes_before = nodes()
            gc.freeze()
            while clean < CLEAN:
                SHORTAGE.number += 1
                clean = 0 if run(call, pair, f"{directory}/{next(count)}") else clean + 1
            gc.unfreeze()
            for _ in range(ATTEMPTS):
                after = alive()
                if after == before or (after[0] == before[0] and nodes() > nodes_before):
                    break
            else:
                say(1, f"{call.__name__}, {told()}: {before} before, {after} after")
    say(2, f"{next(count)} connections, twin {seqrpc.__twin__}")


if __name__ == "__main__":
    main()
