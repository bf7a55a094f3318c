"""Calls that want no answer run to their end, also when the connection that brought them ends first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.oneway import Log
from support.waiting import PATIENCE, comes_true

import seqrpc


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
