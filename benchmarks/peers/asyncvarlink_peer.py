"""Varlink, the JSON protocol of systemd's services: ``asyncvarlink``, whose service is a class with annotations.

Those are read as they stand, so in this file they are not postponed. A server answers a connection's calls one after
the other, as varlink wants it: what is in flight at a time is sent ahead, and a call that is held holds up all behind
it. Bytes go as base64 in a string. 64 MiB of them are left out: what is received is gathered from pieces of 4 KiB by
adding each to all before it, which for as many takes minutes.
"""

# ruff: noqa: N802 - varlink has names of methods begin with a capital

import asyncio
import base64
import contextlib
import dataclasses
import os
import socket
from collections.abc import AsyncIterator
from typing import Any, get_type_hints

from asyncvarlink import (
    FileDescriptor,
    VarlinkClientProtocol,
    VarlinkInterface,
    VarlinkInterfaceRegistry,
    VarlinkTransport,
    connect_unix_varlink,
    create_unix_server,
    varlinkmethod,
)

from benchmarks.peers.base import Client, Peer, Record

BACKLOG = 1024
"""Connections that may wait to be accepted: a thousand come at once, and asyncvarlink would have two wait."""

_hints = get_type_hints(Record)
for _field in dataclasses.fields(Record):
    _field.type = _hints[_field.name]  # base.py postpones its annotations: what asyncvarlink would see are strings


class Machine(VarlinkInterface, name="org.benchmarks.machine"):  # type: ignore[call-arg] # if it is not there
    """The service, and the interface of which the client's proxy is made. What need not wait is a plain function."""

    def __init__(self) -> None:
        self._never = asyncio.Event()  # who waits must be held by somebody: a connection whose call runs is not read,
        # so that the loop does not hold it

    @varlinkmethod(return_parameter="sum")
    def Add(self, *, a: int, b: int) -> int:
        return a + b

    @varlinkmethod(return_parameter="record")
    def Echo(self, *, record: Record) -> Record:
        return record

    @varlinkmethod(return_parameter="length")
    def Upload(self, *, data: str) -> int:
        return len(base64.b64decode(data))

    @varlinkmethod(return_parameter="size")
    def Size(self, *, file: FileDescriptor) -> int:
        return os.fstat(file.fileno()).st_size  # who does not take it has it closed

    @varlinkmethod(return_parameter="number")
    async def Numbers(self, *, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @varlinkmethod
    async def Park(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # asyncvarlink trips over calls that are cancelled
            await self._never.wait()


class VarlinkClient(Client):
    """A connection with a proxy of the interface."""

    def __init__(self, transport: VarlinkTransport, protocol: VarlinkClientProtocol) -> None:
        self._transport = transport
        self._machine: Any = protocol.make_proxy(Machine)

    async def add(self, a: int, b: int) -> int:
        reply = await self._machine.Add(a=a, b=b)
        total: int = reply["sum"]
        return total

    async def record(self, record: Record) -> Record:
        reply = await self._machine.Echo(record=record)
        returned: Record = reply["record"]
        return returned

    async def upload(self, data: bytes) -> int:
        reply = await self._machine.Upload(data=base64.b64encode(data).decode("ascii"))
        length: int = reply["length"]
        return length

    async def descriptor(self, fd: int) -> int:
        reply = await self._machine.Size(file=FileDescriptor(fd))  # lent: a bare number would be closed
        size: int = reply["size"]
        return size

    async def numbers(self, count: int) -> AsyncIterator[int]:
        async for reply in self._machine.Numbers(count=count):
            yield reply["number"]

    async def park(self) -> None:
        await self._machine.Park()

    async def close(self) -> None:
        self._transport.close()
        await self._transport.closed_future


class Asyncvarlink(Peer):
    name = "asyncvarlink"
    requires = ("asyncvarlink",)
    distribution = "asyncvarlink"
    workloads = frozenset(
        {
            "lone", "in-flight", "connections-64", "connections-100", "connections-1000", "record",
            "upload-1m", "descriptors", "stream", "memory", "import",
        }
    )  # fmt: skip

    async def serve(self, address: str) -> None:
        registry = VarlinkInterfaceRegistry()
        registry.register_interface(Machine())
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(address)
            server = await create_unix_server(registry.protocol_factory, sock=sock)
            sock.listen(BACKLOG)
            try:
                await asyncio.Event().wait()
            finally:
                server.close()

    async def connect(self, address: str) -> Client:
        return VarlinkClient(*await connect_unix_varlink(VarlinkClientProtocol, address))
