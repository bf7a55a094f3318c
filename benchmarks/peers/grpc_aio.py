"""gRPC as most people run it from Python: ``grpc.aio``, of the package grpcio, over a Unix socket.

Its sockets are served by threads of its C++ core, which wake the event loop. Written as generated stubs and servicers
would have it. The limits on message sizes, 4 MiB where nothing is said, are lifted. A channel shares its connection
with others to the same address unless it is told to have one of its own, so it is told. It passes no descriptors.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from benchmarks.peers.base import Client, Peer, Record
from benchmarks.peers.protobuf_messages import SERVICE, Blob, Empty, Number, RecordMessage, Terms

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
READY_TIMEOUT = 5.0
"""Seconds for a connection to stand: a server that only just starts may cost a second, gRPC's first back-off."""


class Machine:
    """The servicer."""

    async def add(self, request: Any, _context: Any) -> Any:
        return Number(value=request.a + request.b)

    async def record(self, request: Any, _context: Any) -> Any:
        return request

    async def upload(self, request: Any, _context: Any) -> Any:
        return Number(value=len(request.data))

    async def numbers(self, request: Any, _context: Any) -> AsyncIterator[Any]:
        for value in range(request.value):
            yield Number(value=value)

    async def park(self, _request: Any, _context: Any) -> Any:
        await asyncio.Event().wait()


def handlers(machine: Machine) -> dict[str, Any]:
    """Return how each method is called, as generated code registers it with a server."""
    serialize = {kind: kind.SerializeToString for kind in (Number, RecordMessage, Empty)}
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return {
        "Add": unary(machine.add, Terms.FromString, serialize[Number]),
        "Record": unary(machine.record, RecordMessage.FromString, serialize[RecordMessage]),
        "Upload": unary(machine.upload, Blob.FromString, serialize[Number]),
        "Numbers": stream(machine.numbers, Number.FromString, serialize[Number]),
        "Park": unary(machine.park, Empty.FromString, serialize[Empty]),
    }


class GrpcClient(Client):
    """A channel and the stubs that generated code would make on it."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        unary = channel.unary_unary
        self._add = unary(f"/{SERVICE}/Add", Terms.SerializeToString, Number.FromString, _registered_method=True)
        self._record = unary(
            f"/{SERVICE}/Record", RecordMessage.SerializeToString, RecordMessage.FromString, _registered_method=True
        )
        self._upload = unary(f"/{SERVICE}/Upload", Blob.SerializeToString, Number.FromString, _registered_method=True)
        self._numbers = channel.unary_stream(
            f"/{SERVICE}/Numbers", Number.SerializeToString, Number.FromString, _registered_method=True
        )
        self._park = unary(f"/{SERVICE}/Park", Empty.SerializeToString, Empty.FromString, _registered_method=True)

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
        async for reply in self._numbers(Number(value=count)):
            yield reply.value

    async def park(self) -> None:
        await self._park(Empty())

    async def close(self) -> None:
        await self._channel.close()


class GrpcAio(Peer):
    name = "grpc.aio"
    requires = ("grpc", "google.protobuf")
    imports = ("grpc.aio", "google.protobuf.message_factory")
    distribution = "grpcio"
    workloads = frozenset(
        {
            "lone", "in-flight", "connections-64", "connections-100", "connections-1000", "record",
            "upload-1m", "upload-64m", "stream", "memory", "import",
        }
    )  # fmt: skip

    async def serve(self, address: str) -> None:
        server = grpc.aio.server(options=UNLIMITED)
        methods = handlers(Machine())
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        server.add_registered_method_handlers(SERVICE, methods)
        server.add_insecure_port(f"unix:{address}")
        await server.start()
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(0)

    async def connect(self, address: str) -> Client:
        os.stat(address)  # FileNotFoundError where nobody listens yet: an attempt that fails costs a second's back-off
        channel = grpc.aio.insecure_channel(f"unix:{address}", [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)])
        try:
            await asyncio.wait_for(channel.channel_ready(), READY_TIMEOUT)
        except TimeoutError:
            await channel.close()
            raise
        return GrpcClient(channel)
