"""sdbus: Python over systemd's sd-bus, which is C, through a ``dbus-daemon``."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from sdbus import DbusInterfaceCommonAsync, dbus_method_async, sd_bus_open_user
from sdbus.exceptions import DbusServiceUnknownError, SdBusLibraryError
from sdbus.sd_bus_internals import SdBus

from benchmarks.peers import bus_daemon
from benchmarks.peers.base import Client, Peer, Record
from benchmarks.peers.bus_daemon import INTERFACE, NAME, PATH


class Machine(DbusInterfaceCommonAsync, interface_name=INTERFACE):  # type: ignore[call-arg] # if it is not there
    """The service, and its proxy."""

    @dbus_method_async("xx", "x")
    async def add(self, a: int, b: int) -> int:
        return a + b

    @dbus_method_async(bus_daemon.RECORD, bus_daemon.RECORD)
    async def record(self, structure: tuple[Any, ...]) -> tuple[Any, ...]:
        return (bus_daemon.structure(bus_daemon.record_of(structure)),)  # else it is taken for as many results

    @dbus_method_async("ay", "x")
    async def upload(self, data: bytes) -> int:
        return len(data)

    @dbus_method_async("h", "x")
    async def descriptor(self, fd: int) -> int:
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    @dbus_method_async()
    async def park(self) -> None:
        await asyncio.get_running_loop().create_future()  # never


def opened(bus_address: str) -> SdBus:
    """Return a new connection to this bus. sd-bus takes the address from the environment only.

    Raises:
        OSError: there is no bus.
    """
    os.environ["DBUS_SESSION_BUS_ADDRESS"] = bus_address
    try:
        return sd_bus_open_user()
    except SdBusLibraryError as exc:
        raise ConnectionRefusedError(str(exc)) from exc


class SdbusClient(Client):
    """A connection to the bus."""

    def __init__(self, bus: SdBus) -> None:
        self._bus = bus
        self._machine = Machine.new_proxy(NAME, PATH, bus)

    async def ping(self) -> None:
        """Raise ``DbusServiceUnknownError`` if nobody has the service's name."""
        await self._machine.dbus_ping()

    async def add(self, a: int, b: int) -> int:
        return await self._machine.add(a, b)

    async def record(self, record: Record) -> Record:
        return bus_daemon.record_of(await self._machine.record(bus_daemon.structure(record)))

    async def upload(self, data: bytes) -> int:
        return await self._machine.upload(data)

    async def descriptor(self, fd: int) -> int:
        return await self._machine.descriptor(fd)

    async def park(self) -> None:
        await self._machine.park()

    async def close(self) -> None:
        self._bus.close()


class Sdbus(Peer):
    """No streams, as a signal is sent whether or not anybody keeps up."""

    name = "sdbus"
    requires = ("sdbus",)
    distribution = "sdbus"
    workloads = frozenset(
        {
            "lone",
            "in-flight",
            "connections-64",
            "connections-100",
            "connections-1000",
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
            bus = opened(bus_address)
            machine = Machine()
            machine.export_to_dbus(PATH, bus)
            await bus.request_name_async(NAME, 0)
            await asyncio.get_running_loop().create_future()

    async def connect(self, address: str) -> Client:
        client = SdbusClient(opened(bus_daemon.bus_address(address)))
        try:
            await client.ping()
        except DbusServiceUnknownError as exc:
            await client.close()
            raise ConnectionRefusedError("the bus is there, and the service not yet") from exc
        return client
