"""The daemon that hostile callers are let loose on: ``python -m benchmarks.targets ADDRESS``, until SIGTERM.

It is a usual one: ``seqrpc.run``, so uvloop, the default policy, which admits this user and root, and default limits.
What is ``allow=anyone`` is there for the friendly caller, who is another user, and for the attacks of admitted ones.
With ``--asyncio`` it is ``seqrpc.serve`` on asyncio's own loop.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import seqrpc
from benchmarks.workloads import MIB

SLOW = 0.020
"""Seconds that ``slow`` keeps the loop, and that the policy of ``guarded`` takes."""

_PARKED = 1.0  # seconds that ``park`` keeps what it was given
_ANSWER = bytes(4 * MIB)


def _slow_policy(caller: seqrpc.Credentials) -> bool:  # noqa: ARG001 - it admits nobody
    time.sleep(SLOW)
    return False


def _failing_policy(caller: seqrpc.Credentials) -> bool:
    raise RuntimeError(f"no opinion of {caller.uid}")


class Thing(seqrpc.Service):
    """An object that is given to whoever asks for one."""

    @seqrpc.method
    async def use(self) -> int:
        return 7


class Target(seqrpc.Service):
    """What is called: by the friendly caller, by those who are refused, and by those who are admitted and mean ill."""

    def __init__(self) -> None:
        self.server: seqrpc.Server | None = None
        """Serves this; None until it does."""

    @seqrpc.method
    async def state(self) -> dict[str, int]:
        """Return what this process has: tasks, and connections. Garbage is collected first: it may hold descriptors."""
        assert self.server is not None
        gc.collect()
        return {"tasks": len(asyncio.all_tasks()), "connections": len(self.server.connections)}

    @seqrpc.method
    async def block(self, seconds: float) -> None:
        """Keep the loop."""
        time.sleep(seconds)  # noqa: ASYNC251 - this is what it is for

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def refused(self, value: Any) -> None:
        """Take anything, from those who are admitted by default."""

    @seqrpc.method(allow=_slow_policy)
    async def guarded(self) -> None:
        """Be refused, after a while."""

    @seqrpc.method(allow=_failing_policy)
    async def broken(self) -> None:
        """Be refused, with a traceback in the log."""

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def take(self, value: Any) -> None:
        """Take anything, from anyone."""

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def idle(self) -> None:
        """Do nothing, for anyone."""

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def park(self, value: Any) -> None:  # noqa: ARG002 - it is held, not looked at
        await asyncio.sleep(_PARKED)

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def first(self, numbers: AsyncIterator[int]) -> int:
        async for number in numbers:
            return number
        return 0

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def count(self) -> AsyncIterator[int]:
        """Count without end."""
        number = 0
        while True:
            yield number
            number += 1

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def thing(self) -> Thing:
        return Thing()

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def use(self, thing: Thing) -> int:
        return await thing.use()

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def echo(self, value: Any) -> Any:
        return value

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def file(self, file: seqrpc.OwnedFd) -> seqrpc.OwnedFd:
        return seqrpc.OwnedFd.dup(file)

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def turned(self, data: seqrpc.Buffer) -> seqrpc.Buffer:
        return seqrpc.Buffer.copy_of(bytes(data)[::-1])

    @seqrpc.method(allow=seqrpc.policy.anyone)
    def in_thread(self) -> None:
        time.sleep(SLOW)

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def blob(self) -> bytes:
        await asyncio.sleep(0.05)  # so that all calls are in flight before the first answer
        return _ANSWER

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def slow(self) -> None:
        time.sleep(SLOW)  # noqa: ASYNC251 - a handler that computes for so long

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def fail(self) -> None:
        raise ValueError("this was to happen")

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def call_back(self) -> None:
        try:
            await seqrpc.current_call().connection.call("Caller.answer")
        except seqrpc.SeqrpcError as exc:
            raise RuntimeError("the caller did not answer") from exc


def _end_with_whoever_started_us() -> None:
    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


async def _serve_on_asyncio(target: Target, address: str, limits: seqrpc.Limits) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with seqrpc.serve(target, address, mode=0o666, accept_descriptors=True, limits=limits) as target.server:
        await ended.wait()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--log", help="log there, from INFO on; by default warnings go to the standard error")
    parser.add_argument("--drain-timeout", type=float, default=seqrpc.Limits().drain_timeout)
    parser.add_argument("--close-timeout", type=float, default=seqrpc.Limits().close_timeout)
    parser.add_argument("--asyncio", action="store_true", help="serve on asyncio's own loop")
    args = parser.parse_args()
    if args.log is not None:
        logging.basicConfig(filename=args.log, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    _end_with_whoever_started_us()
    limits = seqrpc.Limits(drain_timeout=args.drain_timeout, close_timeout=args.close_timeout)
    target = Target()
    if args.asyncio:
        asyncio.run(_serve_on_asyncio(target, args.address, limits))
        return
    # Descriptors are taken, whatever the methods need: this is about what comes with refused calls.
    seqrpc.run(
        target,
        args.address,
        mode=0o666,
        accept_descriptors=True,
        limits=limits,
        on_start=lambda server: setattr(target, "server", server),
    )


if __name__ == "__main__":
    main()
