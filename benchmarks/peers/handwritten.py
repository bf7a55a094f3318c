"""What the two hand-written RPCs have in common: the frames, and the methods that they serve.

A frame is the length of what follows, in four bytes, and a message in msgpack. A request is (call id, method,
parameters), and (call id, None, None) gives a call up. An answer is (call id, kind, value). Call ids let answers come
in any order, so that calls can be made while others wait.

As in most such code, plain functions are called at once and coroutines get a task, a dataclass travels as a map of
its fields, and nothing is checked: not the parameters, not the results, not who calls. Nor do descriptors travel: the
transports of asyncio have no way to send one.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import msgpack

from benchmarks.peers.base import Client, Record

RESULT, ERROR, ITEM, END = range(4)
LENGTH = struct.Struct(">I")
MAX_BYTES = 128 << 20
"""The longest frame; a longer one is no frame but garbage, and ends the connection."""
AHEAD = 10_000
"""Items of a stream that may wait for their reader before its connection is no longer read."""

pack: Callable[[object], bytes] = msgpack.Packer(autoreset=True).pack
unpack: Callable[..., Any] = msgpack.unpackb


class RemoteError(Exception):
    """A method raised; the text is that of its exception."""


def add(a: int, b: int) -> int:
    return a + b


def record(fields: dict[str, Any]) -> dict[str, Any]:
    return vars(Record(**fields))


def upload(data: bytes) -> int:
    return len(data)


async def park() -> None:
    await asyncio.get_running_loop().create_future()


async def numbers(count: int) -> AsyncGenerator[int, None]:
    for number in range(count):
        yield number


FUNCTIONS: dict[str, Callable[..., object]] = {"add": add, "record": record, "upload": upload}
COROUTINES: dict[str, Callable[..., Any]] = {"park": park}
GENERATORS: dict[str, Callable[..., AsyncGenerator[object, None]]] = {"numbers": numbers}


class Stream:
    """The reading end of a stream: items that came and were not taken, and the one who waits for more."""

    __slots__ = ("ended", "failure", "items", "waiter")

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self.ended = False
        self.failure: Exception | None = None
        self.waiter: asyncio.Future[None] | None = None

    def put(self, item: object) -> None:
        self.items.append(item)
        if self.waiter is not None:
            self._wake()

    def end(self, failure: Exception | None = None) -> None:
        self.ended, self.failure = True, failure
        self._wake()

    def _wake(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def more(self) -> bool:
        """Wait until there is an item, or return False at the end."""
        if not self.items and not self.ended:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        if not self.items and self.failure is not None:
            raise self.failure
        return bool(self.items)


class Calls:
    """The calls of a client that wait for answers."""

    def __init__(self, send: Callable[[object], None]) -> None:
        self.send = send
        self.loop = asyncio.get_running_loop()
        self.last_id = 0
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.streams: dict[int, Stream] = {}

    def call(self, method: str, *params: object) -> asyncio.Future[Any]:
        self.last_id = call_id = self.last_id + 1
        future = self.waiting[call_id] = self.loop.create_future()
        self.send((call_id, method, params))
        return future

    def answer(self, message: Any) -> None:
        call_id, kind, value = message
        if kind == ITEM:
            stream = self.streams.get(call_id)
            if stream is not None:
                stream.put(value)
        elif kind == END or call_id in self.streams:
            if (stream := self.streams.pop(call_id, None)) is not None:
                stream.end(RemoteError(value) if kind == ERROR else None)
        else:
            future = self.waiting.pop(call_id, None)
            if future is None or future.done():  # it was cancelled
                return
            if kind == RESULT:
                future.set_result(value)
            else:
                future.set_exception(RemoteError(value))

    def behind(self) -> bool:
        """Whether a stream's reader has so much to read that no more should come."""
        for stream in self.streams.values():  # noqa: SIM110 - any() would cost more than the rest
            if len(stream.items) > AHEAD:
                return True
        return False

    def fail(self, failure: Exception) -> None:
        """End all that wait: there will be no more answers."""
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(failure)
        for stream in self.streams.values():
            stream.end(failure)
        self.waiting.clear()
        self.streams.clear()


class HandwrittenClient(Client):
    """The methods as those of an object, as one would write them beside either RPC."""

    calls: Calls

    async def add(self, a: int, b: int) -> int:
        result: int = await self.calls.call("add", a, b)
        return result

    async def record(self, record: Record) -> Record:
        return Record(**await self.calls.call("record", vars(record)))

    async def upload(self, data: bytes) -> int:
        result: int = await self.calls.call("upload", data)
        return result

    async def park(self) -> None:
        await self.calls.call("park")

    async def numbers(self, count: int) -> AsyncIterator[int]:
        calls = self.calls
        calls.last_id = call_id = calls.last_id + 1
        stream = calls.streams[call_id] = Stream()
        items = stream.items
        calls.send((call_id, "numbers", (count,)))
        try:
            while items or await stream.more():
                yield items.popleft()
                if not items:
                    self.read_on()
        finally:
            if calls.streams.pop(call_id, None) is not None:
                calls.send((call_id, None, None))
                self.read_on()

    def read_on(self) -> None:
        """Read from the connection again, if that was stopped because a stream's reader was behind."""


WORKLOADS = frozenset(
    {
        "lone", "in-flight", "connections-64", "connections-100", "connections-1000", "record", "upload-1m",
        "upload-64m", "stream", "memory", "import",
    }
)  # fmt: skip
