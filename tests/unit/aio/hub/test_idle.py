"""Connections on which nothing happens, where the server is told to close those."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.daemons import raw_client
from support.waiting import PATIENCE
from support.work import Work

import seqrpc
from seqrpc.aio.accounts import DESCRIPTORS
from seqrpc.aio.server import hub_of


class Slow(seqrpc.Service):
    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    @seqrpc.method
    async def wait(self) -> int:
        await self.go_on.wait()
        return 5


async def test_one_on_which_nothing_comes_is_closed_and_one_that_works_is_not(socket_path: Path) -> None:
    slow = Slow()
    limits = seqrpc.Limits(idle_timeout=0.1)
    async with (
        asyncio.timeout(PATIENCE),
        seqrpc.serve(slow, socket_path, limits=limits) as server,
        seqrpc.connect(socket_path) as busy,
    ):
        call = asyncio.ensure_future(busy.call("Slow.wait"))
        for _ in range(2):
            with raw_client(socket_path) as idle:
                assert await idle.receive() == [5, "nothing came for 0.1 s (idle_timeout)"]
                assert await idle.receive() is None
        assert len(server.connections) == 1
        slow.go_on.set()
        assert await call == 5
        await busy.wait_closed()
        assert busy.closing_reason == "nothing came for 0.1 s (idle_timeout)"


async def test_without_a_bound_nobody_looks(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        assert hub_of(server)._sweep is None


async def test_a_connection_needs_room_among_the_descriptors_of_its_user(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        await connection.call("rpc.ping")
        (uid,) = hub_of(server).ledger.accounts
        account = hub_of(server).ledger.account_of(uid)
        numbers = set(range(10**6, 10**6 + account.most(DESCRIPTORS)[0]))
        account.fds |= numbers
        with raw_client(socket_path) as second:
            assert "descriptors here already" in (await second.receive())[1]
            assert await second.receive() is None
        account.fds -= numbers
        async with seqrpc.connect(socket_path) as third:
            assert await third.call("Work.add", 1, 2) == 3
