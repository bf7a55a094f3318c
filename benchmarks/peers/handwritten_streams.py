"""The RPC that people write themselves, over asyncio streams: ``readexactly`` each frame, ``drain`` after writes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

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

LIMIT = 1 << 20
"""What a reader holds before it stops reading from the socket: asyncio's 64 KiB suit lines of text."""


async def read_message(reader: asyncio.StreamReader) -> Any:
    """Return the next message; IncompleteReadError is the end of the connection."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > MAX_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return unpack(await reader.readexactly(length))


def write_message(writer: asyncio.StreamWriter, message: object) -> None:
    body = pack(message)
    if len(body) < 65_536:
        writer.write(LENGTH.pack(len(body)) + body)
    else:  # as in the other, it is not copied to be joined
        writer.writelines((LENGTH.pack(len(body)), body))


class ServerConnection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    self.received(await read_message(self.reader))
                    await self.writer.drain()
        finally:
            for task in self.tasks.values():
                task.cancel()
            self.writer.close()

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
            task = self.tasks[call_id] = asyncio.create_task(self.run(call_id, method, params))
            task.add_done_callback(lambda _: self.tasks.pop(call_id, None))

    def send(self, message: object) -> None:
        write_message(self.writer, message)

    async def run(self, call_id: int, method: str, params: list[Any]) -> None:
        with contextlib.suppress(ConnectionError):  # whoever asked is gone
            try:
                if method in GENERATORS:
                    async for item in GENERATORS[method](*params):
                        self.send((call_id, ITEM, item))
                        await self.writer.drain()
                    self.send((call_id, END, None))
                else:
                    self.send((call_id, RESULT, await COROUTINES[method](*params)))
            except ConnectionError:
                raise
            except Exception as error:
                self.send((call_id, ERROR, repr(error)))
            await self.writer.drain()


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await ServerConnection(reader, writer).serve()


class StreamsClient(HandwrittenClient):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.caught_up = asyncio.Event()
        self.calls = Calls(self.send)
        self.task = asyncio.create_task(self.receive())

    def send(self, message: object) -> None:
        write_message(self.writer, message)

    async def upload(self, data: bytes) -> int:
        answer = self.calls.call("upload", data)
        await self.writer.drain()
        result: int = await answer
        return result

    async def receive(self) -> None:
        """Take what comes until the connection ends, or until this is cancelled."""
        failure: Exception = ConnectionResetError("the connection was closed")
        calls = self.calls
        try:
            while True:
                calls.answer(await read_message(self.reader))
                while calls.streams and calls.behind():
                    self.caught_up.clear()
                    await self.caught_up.wait()
        except (OSError, ValueError) as error:
            failure = error
        except asyncio.IncompleteReadError:
            pass
        finally:
            calls.fail(failure)

    def read_on(self) -> None:
        self.caught_up.set()

    async def close(self) -> None:
        self.task.cancel()
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class HandwrittenStreams(Peer):
    name = "handwritten.streams"
    requires = ("msgpack", "uvloop")
    imports = ("asyncio", "msgpack", "uvloop")
    workloads = WORKLOADS

    async def serve(self, address: str) -> None:
        server = await asyncio.start_unix_server(serve_connection, address, limit=LIMIT, backlog=1024)
        async with server:
            await server.serve_forever()

    async def connect(self, address: str) -> Client:
        return StreamsClient(*await asyncio.open_unix_connection(address, limit=LIMIT))
