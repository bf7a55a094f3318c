"""Servers in a program that cancels all its tasks and goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.lifespans import Vault
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio.server import hub_of


class Loan(seqrpc.Service):
    def __init__(self, lender: Lender) -> None:
        self.lender = lender

    async def close(self) -> None:
        self.lender.tell("has the loan back")


class Lender(Vault):
    """Gives an object away; a handler of it goes on once it is cancelled."""

    @seqrpc.method
    async def lend(self) -> Loan:
        return Loan(self)

    @seqrpc.method
    async def go_on(self) -> None:
        self.stage.reach("goes on")
        try:
            await asyncio.Event().wait()
        finally:
            await self.stage.wait("may end")


TOLD = ["Lender begins", "Lender ends", "Lender has the loan back"]


def cancel_all() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.mark.parametrize("turns", range(8))
async def test_a_server_that_is_closed_as_all_tasks_are_cancelled_is_closed_by_who_is_not(
    turns: int, socket_path: Path
) -> None:
    lender = Lender()
    server = await seqrpc.serve(lender, socket_path)
    async with seqrpc.connect(socket_path) as connection:
        loan = await connection.call("Lender.lend")
        call = asyncio.gather(connection.call("Lender.go_on"), return_exceptions=True)
        await lender.stage.wait("goes on")
        hub_of(server).abandon()
        await turns_of_the_loop(turns)
        cancel_all()
        lender.stage.reach("may end")
        async with asyncio.timeout(PATIENCE):
            await server.close()
            await server.wait_closed()
            await loan.wait_closed()
        await asyncio.wait([call])
        await comes_true(lambda: sorted(lender.told) == TOLD)


@pytest.mark.parametrize("turns", range(8))
async def test_a_server_whose_closing_was_cancelled_is_not_waited_for_for_ever(turns: int, socket_path: Path) -> None:
    lender = Lender()
    server = await seqrpc.serve(lender, socket_path)
    async with seqrpc.connect(socket_path) as connection:
        call = asyncio.gather(connection.call("Lender.go_on"), return_exceptions=True)
        await lender.stage.wait("goes on")
        hub_of(server).abandon()
        await turns_of_the_loop(turns)
        cancel_all()
        lender.stage.reach("may end")
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
        await asyncio.wait([call])
    await server.close()
    assert lender.told == TOLD[:2]
