"""dbus-fast: D-Bus in Python with its hot parts compiled, over a ``dbus-daemon``; its users run it on uvloop, too.

Clients make their own messages, as those users' do, rather than proxies: each proxy object asks the bus to tell it of
every connection that comes or goes, which with a thousand of them is a million messages. Handlers that wait for nothing
are plain functions, which dbus-fast calls without a task. Descriptors must be asked for when a connection is made, and
cost every message that it reads a little, so they have connections of their own, the service's and the client's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Annotated, Any

from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBytes, DBusInt64, DBusSignature, DBusUnixFd
from dbus_fast.errors import DBusError
from dbus_fast.service import ServiceInterface, dbus_method

from benchmarks.peers import bus_daemon
from benchmarks.peers.base import Client, Peer, Record
from benchmarks.peers.bus_daemon import INTERFACE, NAME, PATH

NAME_FOR_DESCRIPTORS = f"{NAME}.Descriptors"

Structure = Annotated[Any, DBusSignature(bus_daemon.RECORD)]


class Machine(ServiceInterface):
    """What the clients call."""

    def __init__(self) -> None:
        super().__init__(INTERFACE)

    @dbus_method()
    def Add(self, a: DBusInt64, b: DBusInt64) -> DBusInt64:  # noqa: N802 - D-Bus spells members so
        return a + b

    @dbus_method()
    def Record(self, record: Structure) -> Structure:  # noqa: N802 - as above
        return bus_daemon.structure(bus_daemon.record_of(record))

    @dbus_method()
    def Upload(self, data: DBusBytes) -> DBusInt64:  # noqa: N802 - as above
        return len(data)

    @dbus_method()
    def Descriptor(self, fd: DBusUnixFd) -> DBusInt64:  # noqa: N802 - as above
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    @dbus_method()
    async def Park(self) -> DBusInt64:  # noqa: N802 - as above
        return await asyncio.get_running_loop().create_future()  # never


class DbusFastClient(Client):
    """A connection to the bus."""

    def __init__(self, address: str, bus: MessageBus) -> None:
        self._address = address
        self._bus = bus
        self._bus_for_descriptors: MessageBus | None = None

    async def _call(self, member: str, signature: str, *body: object) -> Any:
        return await call(self._bus, Message(NAME, PATH, INTERFACE, member, signature=signature, body=list(body)))

    async def add(self, a: int, b: int) -> int:
        total: int = await self._call("Add", "xx", a, b)
        return total

    async def record(self, record: Record) -> Record:
        return bus_daemon.record_of(await self._call("Record", bus_daemon.RECORD, bus_daemon.structure(record)))

    async def upload(self, data: bytes) -> int:
        length: int = await self._call("Upload", "ay", data)
        return length

    async def descriptor(self, fd: int) -> int:
        if self._bus_for_descriptors is None:
            bus = MessageBus(self._address, negotiate_unix_fd=True)
            self._bus_for_descriptors = await bus.connect()
        message = Message(
            NAME_FOR_DESCRIPTORS, PATH, INTERFACE, "Descriptor", signature="h", body=[0], unix_fds=[fd]
        )  # the body has the index of the descriptor
        size: int = await call(self._bus_for_descriptors, message)
        return size

    async def park(self) -> None:
        await self._call("Park", "")

    async def close(self) -> None:
        for bus in (self._bus, self._bus_for_descriptors):
            if bus is not None:
                bus.disconnect()
                await bus.wait_for_disconnect()


async def call(bus: MessageBus, message: Message) -> Any:
    """Return the one result of a call, or raise the error that came instead, which dbus-fast leaves to its users."""
    reply = await bus.call(message)
    if reply.message_type is MessageType.ERROR:
        raise DBusError(reply.error_name or "", str(reply.body), reply)
    return reply.body[0] if reply.body else None


class DbusFast(Peer):
    """No streams, as a signal is sent whether or not anybody keeps up.

    Not a thousand connections either: the service has one to the bus, the answers to a thousand calls at once do not
    fit in its socket, and dbus-fast takes ``EAGAIN`` for the end of the connection (as python-dbus-next does, its
    origin: issue 153 there).
    """

    name = "dbus-fast"
    requires = ("dbus_fast",)
    imports = ("dbus_fast.aio", "dbus_fast.service")
    distribution = "dbus-fast"
    workloads = frozenset(
        {
            "lone",
            "in-flight",
            "connections-64",
            "connections-100",
            "record",
            "upload-1m",
            "upload-64m",
            "descriptors",
            "memory",
            "import",
        }
    )

    def missing(self) -> str | None:
        return super().missing() or bus_daemon.missing()

    async def serve(self, address: str) -> None:
        with bus_daemon.bus(address) as bus_address:
            for_descriptors = await MessageBus(bus_address, negotiate_unix_fd=True).connect()
            bus = await MessageBus(bus_address).connect()
            try:
                for_descriptors.export(PATH, Machine())
                await for_descriptors.request_name(NAME_FOR_DESCRIPTORS)
                bus.export(PATH, Machine())
                await bus.request_name(NAME)
                await asyncio.get_running_loop().create_future()
            finally:
                logging.disable()  # parked calls are cancelled now, and dbus-fast logs each
                bus.disconnect()
                for_descriptors.disconnect()

    async def connect(self, address: str) -> Client:
        bus_address = bus_daemon.bus_address(address)
        bus = await MessageBus(bus_address).connect()
        try:
            await call(bus, Message(NAME, PATH, "org.freedesktop.DBus.Peer", "Ping"))
        except DBusError as exc:
            bus.disconnect()
            raise ConnectionRefusedError("the bus is there, and the service not yet") from exc
        return DbusFastClient(bus_address, bus)
