"""HTTP/1.1 with JSON over a Unix socket: ``aiohttp`` at both ends, at hand wherever there is a web service already.

One session with one connection is one client. Such a connection carries one request at a time, as aiohttp sends none
ahead, so ``in-flight`` is left out. Uploads are raw bytes in a request's body; a stream is a response whose body is a
line of JSON for each item. The limit on the size of bodies, 1 MiB where nothing is said, is lifted. It passes no
descriptors.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from benchmarks.peers.base import Client, Peer, Record

BASE = "http://machine"
BACKLOG = 1024
"""Connections that may wait to be accepted: a thousand come at once."""
LARGEST_BODY = 1 << 30
KEEPALIVE = 3600.0
"""Seconds that a connection stays open unused: here it is made once, not again whenever other peers had their turns."""
SHUTDOWN_TIMEOUT = 0.1
"""Seconds that a server which is to end waits for its requests; 0 would be without end."""


async def add(request: web.Request) -> web.Response:
    terms = await request.json()
    return web.json_response(terms["a"] + terms["b"])


async def record(request: web.Request) -> web.Response:
    return web.json_response(vars(Record(**await request.json())))


async def upload(request: web.Request) -> web.Response:
    return web.json_response(len(await request.read()))


async def numbers(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    for number in range(int(request.query["count"])):
        await response.write(b"%d\n" % number)
    await response.write_eof()
    return response


async def park(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise web.HTTPNoContent


class HttpClient(Client):
    """A session of which all requests go through one connection."""

    def __init__(self, address: str) -> None:
        connector = aiohttp.UnixConnector(address, limit=1, keepalive_timeout=KEEPALIVE)
        self._session = aiohttp.ClientSession(BASE, connector=connector)

    async def add(self, a: int, b: int) -> int:
        async with self._session.post("/add", json={"a": a, "b": b}) as response:
            total: int = await response.json()
            return total

    async def record(self, record: Record) -> Record:
        async with self._session.post("/record", json=vars(record)) as response:
            return Record(**await response.json())

    async def upload(self, data: bytes) -> int:
        async with self._session.post("/upload", data=data) as response:
            length: int = await response.json()
            return length

    async def numbers(self, count: int) -> AsyncIterator[int]:
        async with self._session.get("/numbers", params={"count": count}) as response:
            async for line in response.content:
                yield json.loads(line)

    async def park(self) -> None:
        async with self._session.post("/park"):
            pass

    async def close(self) -> None:
        await self._session.close()


class Aiohttp(Peer):
    name = "aiohttp"
    requires = ("aiohttp",)
    imports = ("aiohttp", "aiohttp.web")
    distribution = "aiohttp"
    workloads = frozenset(
        {
            "lone", "connections-64", "connections-100", "connections-1000", "record",
            "upload-1m", "upload-64m", "stream", "memory", "import",
        }
    )  # fmt: skip

    async def serve(self, address: str) -> None:
        app = web.Application(client_max_size=LARGEST_BODY)
        for handler in (add, record, upload, park):
            app.router.add_post(f"/{handler.__name__}", handler)
        app.router.add_get("/numbers", numbers)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,  # else who parks would stay when the connection has ended
            keepalive_timeout=KEEPALIVE,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
        )
        await runner.setup()
        await web.UnixSite(runner, address, backlog=BACKLOG).start()
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def connect(self, address: str) -> Client:
        client = HttpClient(address)
        try:
            await client.add(0, 0)  # a session connects when it is first used
        except OSError:
            await client.close()
            raise
        return client
