"""What runs on although its connection ended is known, bounded and waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.accounts import new_account
from support.oneway import Log
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc.aio.registry import Registry
from seqrpc.aio.running import RunningCalls


async def is_without_connections(server: seqrpc.Server) -> None:
    await comes_true(lambda: not server.connections)


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


async def test_all_who_wait_until_it_is_quiet_are_told_and_at_once_where_it_is() -> None:
    registry = Registry([Log()])
    told: list[str] = []
    registry.when_quiet(lambda: told.append("at once"))
    assert told == ["at once"]
    running = RunningCalls(registry, {}, new_account())
    ended = [asyncio.get_running_loop().create_future() for _ in range(2)]
    another = RunningCalls(registry, {}, new_account())
    for calls, future in zip((running, another), ended, strict=True):
        registry.linger(calls, future)
    for name in ("first", "second"):
        registry.when_quiet(lambda name=name: told.append(name))  # type: ignore[misc]
    ended[0].set_result(None)
    await asyncio.sleep(0)
    assert told == ["at once"]
    ended[1].set_result(None)
    await asyncio.sleep(0)
    assert told == ["at once", "first", "second"]
