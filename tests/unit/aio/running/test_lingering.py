"""Calls that want no answer run to their end, also when the connection that brought them ends first."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from support.waiting import PATIENCE, comes_true

import seqrpc


class Log(seqrpc.Service):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.in_thread = threading.Event()
        self.thread_began = threading.Event()
        self.ended = asyncio.Event()

    @seqrpc.method
    async def write(self, line: str) -> None:
        self.began.set()
        try:
            await self.gate.wait()
            self.lines.append(line)
        except asyncio.CancelledError:
            self.lines.append("cancelled")
            raise
        finally:
            self.ended.set()

    @seqrpc.method
    def write_plainly(self, line: str) -> None:
        self.thread_began.set()
        self.in_thread.wait(PATIENCE)
        self.lines.append(line)


async def is_without_connections(server: seqrpc.Server) -> None:
    await comes_true(lambda: not server.connections)


async def test_a_coroutine_goes_on_where_it_waits(socket_path: Path) -> None:
    log = Log()
    async with seqrpc.serve(log, socket_path) as server:
        async with seqrpc.connect(socket_path) as connection:
            await connection.notify("Log.write", "one")
            call = asyncio.ensure_future(connection.call("Log.write", "never"))
            await log.began.wait()
            log.ended.clear()
        with pytest.raises(seqrpc.ConnectionLost):
            await call
        await comes_true(lambda: not server.connections)
        log.gate.set()
        await comes_true(lambda: "one" in log.lines)
    assert sorted(log.lines) == ["cancelled", "one"] or log.lines == ["one"]


async def test_plain_functions_that_wait_for_a_thread_still_get_one(socket_path: Path) -> None:
    log = Log()
    async with seqrpc.serve(log, socket_path, limits=seqrpc.Limits(max_threads=1, close_timeout=PATIENCE)) as server:
        async with seqrpc.connect(socket_path) as connection:
            for line in ("one", "two", "three"):
                await connection.notify("Log.write_plainly", line)
            await comes_true(log.thread_began.is_set)
        await comes_true(lambda: not server.connections)
        log.in_thread.set()
        await comes_true(lambda: log.lines == ["one", "two", "three"])


async def test_what_a_client_serves_goes_on_too(socket_path: Path) -> None:
    log, ours = Log(), seqrpc.Limits(max_threads=1, close_timeout=PATIENCE)
    async with seqrpc.serve((), socket_path) as server:
        async with seqrpc.connect(socket_path, services=log, limits=ours) as connection:
            await connection.call("rpc.ping")
            (other,) = server.connections
            for line in ("one", "two"):
                await other.notify("Log.write_plainly", line)
            await other.call("rpc.ping")  # both have come
            await comes_true(log.thread_began.is_set)
        log.in_thread.set()
        await comes_true(lambda: log.lines == ["one", "two"])


async def test_they_have_close_timeout(socket_path: Path) -> None:
    log = Log()
    async with seqrpc.serve(log, socket_path, limits=seqrpc.Limits(close_timeout=0.05)):
        async with seqrpc.connect(socket_path) as connection:
            await connection.notify("Log.write", "one")
            await log.began.wait()
        await asyncio.wait_for(log.ended.wait(), PATIENCE)
    assert log.lines == ["cancelled"]


async def test_a_drain_waits_for_them_and_a_close_does_not(socket_path: Path) -> None:
    for drains in (True, False):
        log = Log()
        server = await seqrpc.serve(log, socket_path, limits=seqrpc.Limits(close_timeout=30))
        async with seqrpc.connect(socket_path) as connection:
            await connection.notify("Log.write", "one")
            await log.began.wait()
        await is_without_connections(server)
        ending = asyncio.ensure_future(server.drain() if drains else server.close())
        await asyncio.sleep(0)
        if drains:
            assert not ending.done()
            log.gate.set()
        await asyncio.wait_for(ending, PATIENCE)
        assert log.lines == (["one"] if drains else ["cancelled"])


async def test_a_server_on_a_pair_ends_after_them() -> None:
    log = Log()
    ours, theirs = seqrpc.socket_pair()
    server = await seqrpc.serve(log, sock=theirs)
    async with seqrpc.connect(sock=ours) as connection:
        await connection.notify("Log.write", "one")
        await log.began.wait()
    waiting = asyncio.ensure_future(server.wait_closed())
    await comes_true(lambda: not server.connections)
    assert not waiting.done()
    log.gate.set()
    await asyncio.wait_for(waiting, PATIENCE)
    assert log.lines == ["one"]


async def test_who_connects_anew_leaves_no_more_behind_than_one_connection_may(socket_path: Path) -> None:
    log = Log()
    async with seqrpc.serve(log, socket_path, limits=seqrpc.Limits(max_calls_in_flight=3, close_timeout=30)) as server:
        for number in range(3):
            async with seqrpc.connect(socket_path) as connection:
                for _ in range(2):
                    await connection.notify("Log.write", f"{number}")
                await connection.call("rpc.ping")
            await is_without_connections(server)
        await comes_true(lambda: log.lines.count("cancelled") == 4)
        log.gate.set()
        await comes_true(lambda: log.lines.count("0") == 2)
