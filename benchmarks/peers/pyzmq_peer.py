"""ZeroMQ through ``zmq.asyncio``: a ROUTER serves, each client is a DEALER, over ``ipc``, with messages in msgpack.

ZeroMQ carries messages and knows no calls, so call ids are added here, as users do. A message is a frame in msgpack,
(call id, method, parameters) or (call id, kind, value); what is uploaded has a frame of its own, raw. A ROUTER drops
what is sent to a client whose queue is full, so a stream has credit, which its reader renews. When a client goes the
ROUTER is not told: a held call stays until the server ends. Descriptors cannot be passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

import msgpack
import zmq
import zmq.asyncio

from benchmarks.peers.base import Client, Peer, Record

RESULT, ITEM, END = range(3)
CREDIT = 500
"""Items of a stream under way; ZeroMQ queues 1,000 messages for each client."""
TAKE = 100
"""Messages taken at once, before others have a turn."""

Call = tuple[bytes, int]
"""The client, as the ROUTER names it, and its call id."""

pack = msgpack.Packer(autoreset=True).pack
unpack = msgpack.unpackb


async def park() -> None:
    await asyncio.get_running_loop().create_future()


async def numbers(count: int) -> AsyncGenerator[int, None]:
    for number in range(count):
        yield number


async def messages(socket: zmq.asyncio.Socket) -> AsyncIterator[list[bytes]]:
    """All that comes. What is there already is taken without the several turns of the loop that an await costs here."""
    plain: zmq.Socket[bytes] = zmq.Socket.shadow(socket)
    while True:
        yield await socket.recv_multipart()
        with contextlib.suppress(zmq.Again):
            for _ in range(TAKE):
                yield plain.recv_multipart(zmq.NOBLOCK)


class Credit:
    """How many items of a stream may still be sent."""

    def __init__(self) -> None:
        self.left = CREDIT
        self.renewed = asyncio.Event()

    def renew(self, items: int) -> None:
        self.left += items
        self.renewed.set()

    async def spend(self) -> None:
        while self.left == 0:
            self.renewed.clear()
            await self.renewed.wait()
        self.left -= 1


class Server:
    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self.socket = socket
        self.tasks: dict[Call, asyncio.Task[None]] = {}
        self.credits: dict[Call, Credit] = {}

    async def run(self) -> None:
        async for client, message, *data in messages(self.socket):
            call_id, method, params = unpack(message)
            if method == "add":
                await self.send(client, call_id, RESULT, params[0] + params[1])
            elif method == "record":
                await self.send(client, call_id, RESULT, vars(Record(**params[0])))
            elif method == "upload":
                await self.send(client, call_id, RESULT, len(data[0]))
            else:
                self.about_task((client, call_id), method, params)

    def about_task(self, call: Call, method: str, params: list[Any]) -> None:
        """Start what takes time, or do what a client asks about one that it started."""
        if method == "credit" and call in self.credits:
            self.credits[call].renew(*params)
        elif method == "cancel" and call in self.tasks:
            self.tasks[call].cancel()
        elif method == "park":
            self.start(call, park())
        elif method == "numbers":
            credit = self.credits[call] = Credit()
            self.start(call, self.produce(call, params[0], credit))

    def start(self, call: Call, work: Coroutine[Any, Any, None]) -> None:
        self.tasks[call] = asyncio.create_task(work)
        self.tasks[call].add_done_callback(lambda _: (self.tasks.pop(call), self.credits.pop(call, None)))

    async def send(self, client: bytes, call_id: int, kind: int, value: object) -> None:
        await self.socket.send_multipart((client, pack((call_id, kind, value))))

    async def produce(self, call: Call, count: int, credit: Credit) -> None:
        async for number in numbers(count):
            await credit.spend()
            await self.send(*call, ITEM, number)
        await self.send(*call, END, None)


class Stream:
    """What came of a stream and was not read. It does not grow beyond the credit."""

    def __init__(self) -> None:
        self.items: deque[int] = deque()
        self.ended = False
        self.changed = asyncio.Event()


class ZmqClient(Client):
    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self.socket = socket
        self.loop = asyncio.get_running_loop()
        self.last_id = 0
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.streams: dict[int, Stream] = {}
        self.task = asyncio.create_task(self.receive())

    async def receive(self) -> None:
        async for (message,) in messages(self.socket):
            call_id, kind, value = unpack(message)
            if kind == RESULT:
                future = self.waiting.pop(call_id)
                if not future.done():  # it was cancelled
                    future.set_result(value)
            elif (stream := self.streams.get(call_id)) is not None:
                if kind == ITEM:
                    stream.items.append(value)
                else:
                    stream.ended = True
                stream.changed.set()

    async def call(self, method: str, *params: object, data: bytes | None = None) -> Any:
        self.last_id = call_id = self.last_id + 1
        future = self.waiting[call_id] = self.loop.create_future()
        message = pack((call_id, method, params))
        if data is None:
            await self.socket.send(message)
        else:
            await self.socket.send_multipart((message, data), copy=False)
        return await future

    async def add(self, a: int, b: int) -> int:
        result: int = await self.call("add", a, b)
        return result

    async def record(self, record: Record) -> Record:
        return Record(**await self.call("record", vars(record)))

    async def upload(self, data: bytes) -> int:
        result: int = await self.call("upload", data=data)
        return result

    async def park(self) -> None:
        await self.call("park")

    async def numbers(self, count: int) -> AsyncIterator[int]:
        self.last_id = call_id = self.last_id + 1
        stream = self.streams[call_id] = Stream()
        await self.socket.send(pack((call_id, "numbers", (count,))))
        taken = 0
        try:
            while stream.items or not stream.ended:
                if not stream.items:
                    stream.changed.clear()
                    await stream.changed.wait()
                    continue
                yield stream.items.popleft()
                taken += 1
                if taken == CREDIT // 2:
                    await self.socket.send(pack((call_id, "credit", (taken,))))
                    taken = 0
        finally:
            del self.streams[call_id]
            if not stream.ended:
                await self.socket.send(pack((call_id, "cancel", None)))

    async def close(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the socket was closed"))
        self.socket.close(linger=0)


class Pyzmq(Peer):
    name = "pyzmq"
    requires = ("zmq", "msgpack", "uvloop")
    imports = ("zmq.asyncio", "msgpack")
    distribution = "pyzmq"
    workloads = frozenset(
        {
            "lone", "in-flight", "connections-64", "connections-100", "connections-1000", "record", "upload-1m",
            "upload-64m", "stream", "memory", "import",
        }
    )  # fmt: skip

    async def serve(self, address: str) -> None:
        with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as socket:
            socket.setsockopt(zmq.BACKLOG, 1024)
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(f"ipc://{address}")
            await Server(socket).run()

    async def connect(self, address: str) -> Client:
        os.stat(address)  # raises OSError if there is no server yet; zmq would try again, but not soon
        context = zmq.asyncio.Context.instance()
        if context.get(zmq.MAX_SOCKETS) < 4096:
            context.set(
                zmq.MAX_SOCKETS, 4096
            )  # its 1,023 do not suffice for 1,000 connections and what is left of others
        socket = context.socket(zmq.DEALER)
        socket.connect(f"ipc://{address}")
        client = ZmqClient(socket)
        await client.add(0, 0)  # connect only begins to
        return client
