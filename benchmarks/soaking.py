"""The clients of ``python -m benchmarks.soak``: each connects, does this and that, and leaves, in one way or another.

Once a second it writes what came of all calls so far, as a line of JSON, until SIGTERM, or until it is killed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvloop

import seqrpc
from benchmarks.rude import WRONG
from benchmarks.targets import Target, Thing
from benchmarks.workloads import MIB

_EXPECTED: dict[str, tuple[type[Exception], ...]] = {
    "fail": (seqrpc.RpcError,),
    "unknown": (seqrpc.RpcError,),
    "invalid": (seqrpc.RpcError,),
    "late": (seqrpc.DeadlineExceeded,),
    "back": (seqrpc.RpcError,),
    "bad_items": (seqrpc.RpcError,),
}
"""What a kind of call is to come to; all others are to come to a result."""

_ALWAYS: tuple[type[Exception], ...] = (seqrpc.Overloaded,)  # may come of any

_VALUES: tuple[Any, ...] = (
    None, True, -1, 1 << 60, 2.5, "text", b"bytes", [], {}, [1, [2, [3]]], {"a": {"b": [None, b"x" * 500]}}, "y" * 3_000
)  # fmt: skip


class Caller(seqrpc.Service):
    """What the server calls back."""

    @seqrpc.method
    async def answer(self) -> int:
        return 42


async def _numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def _words() -> AsyncIterator[Any]:
    yield 1
    yield "no number"


class Client:
    """One connection after the other."""

    def __init__(self, address: str, counts: collections.Counter[str], chance: random.Random) -> None:
        self._address = address
        self._counts = counts
        self._chance = chance
        self._target: Target
        self._connection: seqrpc.Connection
        named = (name for name in dir(self) if name.startswith("do_"))
        self._kinds = {name.removeprefix("do_"): getattr(self, name) for name in named}

    async def live(self) -> None:
        """Connect, call, leave; again and again."""
        chance = self._chance
        while True:
            if chance.random() < 0.1:
                self._be_rude()
            async with seqrpc.connect(self._address, services=[Caller()]) as self._connection:
                self._target = self._connection.proxy(Target)
                for _ in range(chance.randrange(1, 40)):
                    kinds = [chance.choice(list(self._kinds)) for _ in range(chance.randrange(1, 5))]
                    await asyncio.gather(*(self._count(kind, self._kinds[kind]) for kind in kinds))
                    await asyncio.sleep(chance.random() * 0.1)
                if chance.random() < 0.3:  # leave amid calls
                    left = [asyncio.ensure_future(self._target.park(1)) for _ in range(5)]
                    await asyncio.sleep(0)
                    for call in left:
                        call.cancel()
                    await asyncio.gather(*left, return_exceptions=True)

    async def _count(self, kind: str, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            await call()
        except Exception as exc:
            if isinstance(exc, _EXPECTED.get(kind, ()) + _ALWAYS):
                self._counts[f"{kind}: {type(exc).__name__}"] += 1
            else:
                self._counts[f"UNEXPECTED {kind}: {exc!r}"[:200]] += 1
        else:
            self._counts[f"{kind}: ok"] += 1

    def _be_rude(self) -> None:
        """Connect with a plain socket, send what is no packet, and go."""
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock,
        ):
            sock.setblocking(False)
            sock.connect(self._address)
            sock.send(self._chance.choice(WRONG))
            sock.send(b"\x94\x00\x01\xacTarget.count\x90")
            self._counts["rude"] += 1

    async def do_add(self) -> None:
        assert await self._target.add(2, 3) == 5

    async def do_echo(self) -> None:
        value = [self._chance.choice(_VALUES) for _ in range(5)]
        assert await self._target.echo(value) == value

    async def do_long(self) -> None:
        data = bytes(self._chance.randrange(70_000, 300_000))
        assert await self._target.echo(data) == data

    async def do_blob(self) -> None:
        if self._chance.random() < 0.05:
            assert len(await self._target.blob()) == 4 * MIB

    async def do_file(self) -> None:
        with seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) as file:
            (await self._target.file(file)).close()

    async def do_buffer(self) -> None:
        data = seqrpc.Buffer.copy_of(b"abc" * 2_000)
        assert bytes(await self._target.turned(data)) == b"cba" * 2_000

    async def do_stream(self) -> None:
        async with seqrpc.Stream.of(self._target.count()) as items:
            async for number in items:
                if number > self._chance.randrange(1, 3_000):
                    break

    async def do_dropped(self) -> None:
        async for number in self._target.count():
            if number == 10:
                break
        await self._target.thing()

    async def do_items(self) -> None:
        count = self._chance.randrange(500)
        assert await self._target.total(_numbers(count)) == count * (count - 1) // 2

    async def do_bad_items(self) -> None:
        await self._target.total(_words())

    async def do_object(self) -> None:
        async with await self._target.thing() as thing:
            assert await thing.use() == 7

    async def do_given(self) -> None:
        assert await self._target.use(Thing()) == 7

    async def do_fail(self) -> None:
        await self._target.fail()

    async def do_unknown(self) -> None:
        await self._connection.call(f"Target.no{self._chance.randrange(10_000)}")

    async def do_invalid(self) -> None:
        await self._connection.call("Target.add", "one", [2])

    async def do_late(self) -> None:
        async with seqrpc.timeout(self._chance.random() * 0.02):
            await self._target.park(None)

    async def do_cancelled(self) -> None:
        call = asyncio.ensure_future(self._target.park(None))
        await asyncio.sleep(self._chance.random() * 0.02)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

    async def do_notify(self) -> None:
        await self._connection.notify("Target.idle")

    async def do_thread(self) -> None:
        await self._target.in_thread()

    async def do_back(self) -> None:
        await self._target.call_back()


async def _live(address: str, clients: int, seed: int) -> None:
    counts: collections.Counter[str] = collections.Counter()
    tasks = [asyncio.create_task(Client(address, counts, random.Random(f"{seed}{n}")).live()) for n in range(clients)]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    while not ended.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await ended.wait()
        for task in tasks:
            if task.done():
                counts[f"UNEXPECTED end of a client: {task.exception()!r}"[:200]] += 1
                tasks.remove(task)
        print(json.dumps(dict(counts)), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=10.0)


def main() -> None:
    """Be so many clients."""
    address, clients, seed = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(address, int(clients), int(seed)))


if __name__ == "__main__":
    main()
