"""gRPC in Python itself: ``grpclib``, on the h2 library, on the caller's own event loop, over a Unix socket.

Written as its generated stubs and bases would have it. It has no limit on message sizes to lift. Its server lets a
connection have 100 calls under way, what the h2 library advertises, and says no word about how to change that: further
ones wait at the client. It passes no descriptors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from benchmarks.peers.base import Client, Peer, Record
from benchmarks.peers.protobuf_messages import SERVICE, Blob, Empty, Number, RecordMessage, Terms

BACKLOG = 1024
"""Connections that may wait to be accepted: a thousand come at once."""

ServerStream: TypeAlias = Stream[Any, Any]


class Machine:
    """The service."""

    async def add(self, stream: ServerStream) -> None:
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(Number(value=request.a + request.b))

    async def record(self, stream: ServerStream) -> None:
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(request)

    async def upload(self, stream: ServerStream) -> None:
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(Number(value=len(request.data)))

    async def numbers(self, stream: ServerStream) -> None:
        request = await stream.recv_message()
        assert request is not None
        for value in range(request.value):
            await stream.send_message(Number(value=value))

    async def park(self, stream: ServerStream) -> None:
        await stream.recv_message()
        await asyncio.Event().wait()

    def __mapping__(self) -> dict[str, Handler]:
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            f"/{SERVICE}/Add": Handler(self.add, unary, Terms, Number),
            f"/{SERVICE}/Record": Handler(self.record, unary, RecordMessage, RecordMessage),
            f"/{SERVICE}/Upload": Handler(self.upload, unary, Blob, Number),
            f"/{SERVICE}/Numbers": Handler(self.numbers, stream, Number, Number),
            f"/{SERVICE}/Park": Handler(self.park, unary, Empty, Empty),
        }


class GrpclibClient(Client):
    """A channel, which is one connection, and the stubs that generated code would make on it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._add = UnaryUnaryMethod(channel, f"/{SERVICE}/Add", Terms, Number)
        self._record = UnaryUnaryMethod(channel, f"/{SERVICE}/Record", RecordMessage, RecordMessage)
        self._upload = UnaryUnaryMethod(channel, f"/{SERVICE}/Upload", Blob, Number)
        self._numbers = UnaryStreamMethod(channel, f"/{SERVICE}/Numbers", Number, Number)
        self._park = UnaryUnaryMethod(channel, f"/{SERVICE}/Park", Empty, Empty)

    async def add(self, a: int, b: int) -> int:
        reply = await self._add(Terms(a=a, b=b))
        value: int = reply.value
        return value

    async def record(self, record: Record) -> Record:
        """Make a message of the record, and return the message that comes back."""
        reply: Record = await self._record(RecordMessage(**vars(record)))
        return reply

    async def upload(self, data: bytes) -> int:
        reply = await self._upload(Blob(data=data))
        length: int = reply.value
        return length

    async def numbers(self, count: int) -> AsyncIterator[int]:
        async with self._numbers.open() as stream:
            await stream.send_message(Number(value=count), end=True)
            async for reply in stream:
                yield reply.value

    async def park(self) -> None:
        await self._park(Empty())

    async def close(self) -> None:
        self._channel.close()


class Grpclib(Peer):
    name = "grpclib"
    requires = ("grpclib", "google.protobuf")
    imports = ("grpclib.client", "grpclib.server", "google.protobuf.message_factory")
    distribution = "grpclib"
    workloads = frozenset(
        {
            "lone", "in-flight", "connections-64", "connections-100", "connections-1000", "record",
            "upload-1m", "upload-64m", "stream", "memory", "import",
        }
    )  # fmt: skip

    async def serve(self, address: str) -> None:
        server = Server([Machine()])
        await server.start(path=address, backlog=BACKLOG)
        try:
            await server.wait_closed()
        finally:
            server.close()
            await server.wait_closed()

    async def connect(self, address: str) -> Client:
        client = GrpclibClient(Channel(path=address))
        try:
            await client.add(0, 0)  # a channel connects when it is first used
        except OSError:
            await client.close()
            raise
        return client
