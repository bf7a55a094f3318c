from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from support.waiting import PATIENCE

import seqrpc
from seqrpc.aio import idleness
from seqrpc.aio.idleness import Idleness, check_idle_timeout
from seqrpc.kernel import sockets


class Hub:
    """What is looked at of a server; a test changes it at each look."""

    def __init__(self, *sockets: socket.socket) -> None:
        self.sockets = sockets
        self.connections_taken = 0
        self.looks: list[bool] = []
        """What the next looks find, the last one again and again."""
        self.changed = 0.0
        """When there was a look that found anything but the last."""

    @property
    def is_idle(self) -> bool:
        if len(self.looks) > 1:
            self.changed = time.monotonic()
            return self.looks.pop(0)
        return self.looks[0]


class Daemon:
    """One that ends when it is idle for so long."""

    def __init__(self, hub: Hub, idle_timeout: float = 0.02) -> None:
        self.hub = hub
        self.left = asyncio.Event()
        self.refusals = 0
        self.idleness = Idleness(cast("Any", hub), idle_timeout, self.leave)

    def leave(self) -> bool:
        if self.refusals:
            self.refusals -= 1
            return False
        self.left.set()
        return True

    async def time_until_it_leaves(self) -> float:
        """Return the seconds from when there was something to do last."""
        self.hub.changed = time.monotonic()
        self.idleness.begin()
        async with asyncio.timeout(PATIENCE):
            await self.left.wait()
        return time.monotonic() - self.hub.changed


@pytest.fixture
def listening(socket_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(socket_path))
        sock.listen()
        yield sock


async def test_it_leaves_when_nobody_came_for_so_long_and_not_before(listening: socket.socket) -> None:
    hub = Hub(listening)
    hub.looks = [True]
    assert await Daemon(hub).time_until_it_leaves() >= 0.02


async def test_it_stays_while_it_is_busy_and_begins_anew_afterwards(listening: socket.socket) -> None:
    hub = Hub(listening)
    hub.looks = [True, False, False, True]
    assert await Daemon(hub).time_until_it_leaves() >= 0.02
    assert hub.looks == [True]


async def test_who_came_and_went_between_two_looks_was_somebody(listening: socket.socket) -> None:
    class Visited(Hub):
        @property
        def is_idle(self) -> bool:
            self.connections_taken += len(self.looks) > 1
            return super().is_idle

    hub = Visited(listening)
    hub.looks = [True] * 6
    assert await Daemon(hub).time_until_it_leaves() >= 0.02
    assert hub.looks == [True]


async def test_who_waits_to_be_accepted_is_somebody(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(listening.getsockname())

        def somebody_waits(sock: socket.socket) -> bool:
            nonlocal looks
            looks += 1
            waits = really(sock)
            if looks == 10:
                listening.accept()[0].close()
            return waits

        really = sockets.somebody_waits
        monkeypatch.setattr(idleness, "somebody_waits", somebody_waits)
        hub = Hub(listening)
        hub.looks = [True]
        await Daemon(hub).time_until_it_leaves()
    assert looks > 10


async def test_a_daemon_that_does_something_else_just_then_is_asked_again(listening: socket.socket) -> None:
    hub = Hub(listening)
    hub.looks = [True]
    daemon = Daemon(hub)
    daemon.refusals = 2
    assert await daemon.time_until_it_leaves() >= 3 * 0.02
    assert daemon.refusals == 0


async def test_where_nobody_is_accepted_any_more_nothing_is_looked_at() -> None:
    hub = Hub()
    daemon = Daemon(hub)
    daemon.idleness.begin()  # it would fail to look
    assert not daemon.left.is_set()


@pytest.mark.parametrize(
    "timeout, error",
    [("5", TypeError), (0, ValueError), (-1.0, ValueError), (math.inf, ValueError), (math.nan, ValueError)],
)
def test_what_is_no_time_is_refused(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^idle_timeout= takes seconds, more than 0, or None, got "):
        check_idle_timeout(timeout, "systemd:x")


@pytest.mark.parametrize("address", ["x.sock", "@x", Path("fd:3")])
def test_an_address_of_its_own_is_refused_with_the_reason(address: str | Path) -> None:
    check_idle_timeout(None, address)
    with pytest.raises(seqrpc.AddressError, match=r"nobody would be left to start it again for the next caller$"):
        check_idle_timeout(1, address)


@pytest.mark.parametrize("address", ["systemd:x", "fd:3", None])
def test_a_socket_that_others_hold_will_do(address: str | None) -> None:
    check_idle_timeout(0.5, address)
