"""The RPC that people write themselves, over ``asyncio.Protocol``: what is sent in a turn of the loop is sent at once.

uvloop gathers the writes of a turn by itself, in one ``writev``: for calls and answers that was measured to be faster
than to gather them here first. The items of a stream, of which a turn may have thousands, are joined here.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from benchmarks.peers.base import Client, Peer
from benchmarks.peers.handwritten import (
    COROUTINES,
    END,
    ERROR,
    FUNCTIONS,
    GENERATORS,
    ITEM,
    LENGTH,
    MAX_BYTES,
    RESULT,
    WORKLOADS,
    Calls,
    HandwrittenClient,
    pack,
    unpack,
)

GATHER_BYTES = 65_536
"""Items that are as much as this together are written, and a message longer than this is not copied to be joined."""
READ_BYTES = 262_144
"""uvloop reads as much at once."""

length_of = LENGTH.unpack_from


class Connection(asyncio.Protocol):
    """Frames in both directions. ``received`` is called with each message, within the turn that brought it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.left = bytearray()  # the beginning of a frame that is not here as a whole
        self.needed = LENGTH.size
        self.gathered = bytearray()
        self.writable = asyncio.Event()
        self.writable.set()

    def received(self, message: Any) -> None:
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes | bytearray) -> None:
        if self.left:
            self.left += data
            data = self.left
            if len(data) < self.needed:
                return
        size, at, received = len(data), 0, self.received
        parts = data if size <= READ_BYTES else memoryview(data)  # a view copies nothing, but is slower to cut up
        while size - at >= 4:
            begin = at + 4
            end = begin + length_of(data, at)[0]
            if end > size:
                break
            received(unpack(parts[begin:end]))
            at = end
        del parts
        if at < size or data is self.left:
            self.keep(data, at)

    def keep(self, data: bytes | bytearray, at: int) -> None:
        """Keep what follows ``at`` until the rest of that frame is here."""
        if data is self.left:
            del self.left[:at]
        else:
            self.left += memoryview(data)[at:]
        if self.left:
            self.needed = LENGTH.size if len(self.left) < LENGTH.size else LENGTH.size + length_of(self.left)[0]
            if self.needed > MAX_BYTES:
                self.transport.abort()

    def send(self, message: object) -> None:
        if self.gathered:
            self.flush()
        body = pack(message)
        if len(body) < GATHER_BYTES:
            self.transport.write(LENGTH.pack(len(body)) + body)
        else:
            self.transport.writelines((LENGTH.pack(len(body)), body))

    def send_later(self, message: object) -> None:
        """Send when this turn ends, or when enough has gathered to be written at once."""
        body = pack(message)
        gathered = self.gathered
        if not gathered:
            self.loop.call_soon(self.flush)
        gathered += LENGTH.pack(len(body))
        gathered += body
        if len(gathered) > GATHER_BYTES:
            self.flush()

    def flush(self) -> None:
        if self.gathered:
            self.transport.write(self.gathered)
            self.gathered = bytearray()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


class ServerConnection(Connection):
    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[int, asyncio.Task[None]] = {}

    def received(self, message: Any) -> None:
        call_id, method, params = message
        if (function := FUNCTIONS.get(method)) is not None:
            try:
                result = function(*params)
            except Exception as error:
                self.send((call_id, ERROR, repr(error)))
            else:
                self.send((call_id, RESULT, result))
        elif method is None:
            if (task := self.tasks.get(call_id)) is not None:
                task.cancel()
        else:
            task = self.tasks[call_id] = self.loop.create_task(self.run(call_id, method, params))
            task.add_done_callback(lambda _: self.tasks.pop(call_id, None))

    async def run(self, call_id: int, method: str, params: list[Any]) -> None:
        try:
            if method in GENERATORS:
                await self.produce(call_id, method, params)
            else:
                self.send((call_id, RESULT, await COROUTINES[method](*params)))
        except Exception as error:
            self.send((call_id, ERROR, repr(error)))

    async def produce(self, call_id: int, method: str, params: list[Any]) -> None:
        send, is_writable, writable = self.send_later, self.writable.is_set, self.writable.wait
        async for item in GENERATORS[method](*params):
            send((call_id, ITEM, item))
            if not is_writable():
                await writable()
        send((call_id, END, None))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        for task in self.tasks.values():
            task.cancel()
        self.writable.set()


class ClientConnection(Connection):
    calls: Calls

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls(self.send)
        self.paused = False
        self.received = self.calls.answer  # type: ignore[method-assign]

    def data_received(self, data: bytes | bytearray) -> None:
        super().data_received(data)
        if self.calls.streams and not self.paused and self.calls.behind():
            self.transport.pause_reading()
            self.paused = True

    def read_on(self) -> None:
        if self.paused:
            self.transport.resume_reading()
            self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.fail(exc or ConnectionResetError("the server closed the connection"))


class ProtocolClient(HandwrittenClient):
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.calls = connection.calls
        self.read_on = connection.read_on  # type: ignore[method-assign]

    async def close(self) -> None:
        self.connection.transport.close()


class HandwrittenProtocol(Peer):
    name = "handwritten.protocol"
    requires = ("msgpack", "uvloop")
    imports = ("asyncio", "msgpack", "uvloop")
    workloads = WORKLOADS

    async def serve(self, address: str) -> None:
        server = await asyncio.get_running_loop().create_unix_server(ServerConnection, address, backlog=1024)
        async with server:
            await server.serve_forever()

    async def connect(self, address: str) -> Client:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(ClientConnection, address)
        return ProtocolClient(connection)
