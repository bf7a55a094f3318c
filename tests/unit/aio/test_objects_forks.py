"""Objects that were given away, in forked children of their process and on other loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from support.daemons import on_a_pair
from support.processes import in_child

import seqrpc
from seqrpc.aio.objects import ObjectDeparture
from seqrpc.limits import DEFAULT_LIMITS


class Item(seqrpc.Service):
    def __init__(self) -> None:
        self.closed = 0

    @seqrpc.method
    async def number(self) -> int:
        return 7

    async def close(self) -> None:
        self.closed += 1


class Shop(seqrpc.Service):
    def __init__(self, item: Item) -> None:
        self._item = item

    @seqrpc.method
    async def item(self) -> Item:
        return self._item


def outcome(use: Callable[[], Any]) -> str:
    try:
        return str(asyncio.run(use()))
    except seqrpc.SeqrpcError as exc:
        return type(exc).__name__


async def test_a_fork_takes_back_nothing_but_what_it_gave_away_itself() -> None:
    item = Item()
    async with on_a_pair(Shop(item)) as connection:
        held = await connection.proxy(Shop).item()
        assert await held.number() == 7

        async def give_and_revoke() -> str:
            async with on_a_pair(Shop(item)) as own:
                in_child_held = await own.proxy(Shop).item()
                assert await in_child_held.number() == 7
                await seqrpc.revoke(item)
                try:
                    await in_child_held.number()
                except seqrpc.Unavailable:
                    return "revoked"
            return "not revoked"

        def work() -> list[Any]:
            uses = (lambda: seqrpc.revoke(item), lambda: seqrpc.revoke(Item()), give_and_revoke)
            return [*map(outcome, uses), item.closed]

        assert in_child(work) == ["WrongProcess", "None", "revoked", 1]
        assert await held.number() == 7
        assert item.closed == 0
        async with held:
            pass
    assert item.closed == 1


async def test_another_loop_takes_back_nothing_that_this_one_gave_away() -> None:
    item = Item()
    async with on_a_pair(Shop(item)) as connection:
        held = await connection.proxy(Shop).item()
        assert await held.number() == 7
        assert await asyncio.to_thread(outcome, lambda: seqrpc.revoke(item)) == "WrongLoop"
        assert await asyncio.to_thread(outcome, lambda: seqrpc.revoke(Item())) == "None"
        assert await held.number() == 7
        await seqrpc.revoke(item)


def test_nobody_holds_what_a_loop_that_has_ended_gave_away() -> None:
    item = Item()

    async def give() -> None:
        async with on_a_pair(Shop(item)) as connection:
            await connection.proxy(Shop).item()

    asyncio.run(give())
    asyncio.run(seqrpc.revoke(item))


async def test_a_pair_that_is_about_to_leave_stays_in_its_process() -> None:
    def nothing(*_values: Any) -> None:
        """Do nothing."""

    departure = ObjectDeparture(Item(), DEFAULT_LIMITS, lambda _own: None, nothing, nothing, dropped=nothing)  # type: ignore[arg-type,return-value]
    assert departure.fileno() >= 0
    assert in_child(departure.fileno) == -1
    departure.unsent()
