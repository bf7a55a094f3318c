from __future__ import annotations

import asyncio
import itertools
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemons import on_a_pair, raw_client
from support.waiting import PATIENCE
from support.work import Work

import seqrpc
from seqrpc.aio import watchdog
from seqrpc.aio.server import hub_of
from seqrpc.aio.watchdog import Watchdog
from seqrpc.kernel.systemd import Manager


@pytest.fixture
def heard(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return the socket at which a service manager hears; it looks often."""
    path = os.fspath(socket_path.with_name("notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setattr(watchdog, "STATUS_INTERVAL", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.setblocking(False)
        yield sock


async def next_word(sock: socket.socket) -> str:
    async with asyncio.timeout(PATIENCE):
        return (await asyncio.get_running_loop().sock_recv(sock, 1000)).decode()


async def test_it_says_what_the_daemon_does_when_that_has_changed(socket_path: Path, heard: socket.socket) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server:
        Watchdog(Manager(), hub_of(server)).begin()
        words = [await next_word(heard)]
        assert words == ["STATUS=0 connections, 0 calls in flight"]
        with raw_client(socket_path) as client:
            await client.send(0, 1, "Work.work", [])
            await service.stage.wait("began")
            while words[-1] != "STATUS=1 connection, 1 call in flight":  # it may have looked before the call came
                words.append(await next_word(heard))
            service.stage.reach("may go on")
            assert await client.receive() == [1, 1, None, "done"]
            words.append(await next_word(heard))
            assert words[-1] == "STATUS=1 connection, 0 calls in flight"
    assert all(word != after for word, after in itertools.pairwise(words))


async def test_pings_go_on_although_nothing_changes_until_the_loop_is_stuck(
    socket_path: Path, heard: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "50000")
    async with seqrpc.serve(Work(), socket_path) as server:
        Watchdog(Manager(), hub_of(server)).begin()
        words = [await next_word(heard) for _ in range(4)]
        assert words.count("STATUS=0 connections, 0 calls in flight") == 1
        assert words.count("WATCHDOG=1") == 3
        while select.select([heard], [], [], 0)[0]:
            heard.recv(100)
        time.sleep(0.1)  # noqa: ASYNC251 - this is what sticks
        assert not select.select([heard], [], [], 0)[0]
        assert await next_word(heard) == "WATCHDOG=1"


async def test_without_a_manager_there_is_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(watchdog, "STATUS_INTERVAL", 0.0)
    looks: list[object] = []
    monkeypatch.setattr(watchdog, "status_of", looks.append)
    async with on_a_pair(Work()) as connection:
        Watchdog(Manager(), None).begin()  # type: ignore[arg-type]
        for _ in range(10):
            await connection.call("rpc.ping")
    assert looks == []


async def test_a_status_that_was_not_heard_is_told_again(
    socket_path: Path, heard: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    path = socket_path.with_name("notify")
    hidden = socket_path.with_name("hidden")
    path.rename(hidden)
    async with seqrpc.serve(Work(), socket_path) as server:
        Watchdog(Manager(), hub_of(server)).begin()
        async with asyncio.timeout(PATIENCE):
            while "was not told STATUS=" not in caplog.text:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.001)
        hidden.rename(path)
        assert await next_word(heard) == "STATUS=0 connections, 0 calls in flight"


@pytest.mark.parametrize("watchdog_seconds, looks", [(0.001, 1), (4.0, 1), (10.0, 1), (60.0, 6), (1e12, 518_400)])
def test_it_pings_at_half_the_time_and_looks_as_often_as_for_the_status(watchdog_seconds: float, looks: int) -> None:
    interval, per_ping = watchdog._rhythm(watchdog_seconds)
    assert per_ping == looks
    assert interval * per_ping <= watchdog_seconds / 2 * 1.001
    assert interval <= 5.0
    assert watchdog._rhythm(None) == (5.0, 0)
