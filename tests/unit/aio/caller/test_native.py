"""Calls that something native sends: the same comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.waiting import comes_true

import seqrpc
from seqrpc import DeadlineExceeded
from seqrpc.aio.connection import link_of
from seqrpc.interface.alarms import alarms_of

pytestmark = pytest.mark.skipif(seqrpc.__twin__ != "native", reason="nothing is native here")


class Desk(seqrpc.Service):
    """Answers, or waits for ever and remembers how it ended."""

    def __init__(self) -> None:
        self.waiting = 0
        self.stopped = 0

    @seqrpc.method
    async def echo(self, value: object) -> object:
        return value

    @seqrpc.method
    async def wait(self) -> None:
        self.waiting += 1
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.stopped += 1
            raise


@pytest.fixture
async def desk(socket_path: Path) -> AsyncIterator[tuple[Desk, seqrpc.Connection]]:
    service = Desk()
    async with seqrpc.serve(service, socket_path), seqrpc.connect(socket_path) as connection:
        assert link_of(connection).lane is not None
        yield service, connection


async def test_the_alarm_of_an_answered_call_does_not_wait_for_its_time(desk: tuple[Desk, seqrpc.Connection]) -> None:
    _service, connection = desk
    for number in range(100):
        async with seqrpc.timeout(60):
            assert await connection.call("Desk.echo", number) == number
    assert len(alarms_of(asyncio.get_running_loop())) < 60


async def test_a_deadline_that_passes_stops_the_call_and_its_handler(desk: tuple[Desk, seqrpc.Connection]) -> None:
    service, connection = desk
    with pytest.raises(DeadlineExceeded):
        async with seqrpc.timeout(0.02):
            await connection.call("Desk.wait")
    await comes_true(lambda: service.stopped == 1)
    assert await connection.call("Desk.echo", 1) == 1


@pytest.mark.parametrize("seconds", [None, 60])
async def test_a_call_that_is_cancelled_stops_its_handler(
    desk: tuple[Desk, seqrpc.Connection], seconds: float | None
) -> None:
    service, connection = desk

    async def ask() -> None:
        async with seqrpc.timeout(seconds):
            await connection.call("Desk.wait")

    asking = asyncio.create_task(ask())
    await comes_true(lambda: service.waiting == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await comes_true(lambda: service.stopped == 1)
