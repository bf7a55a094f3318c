"""Channels in forked children of the process that has them, and on other loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.processes import in_child

import seqrpc
from seqrpc.aio.channels import end_of


class Item(seqrpc.Service):
    @seqrpc.method
    async def number(self) -> int:
        return 7


class Shop(seqrpc.Service):
    @seqrpc.method
    async def item(self) -> Item:
        return Item()


def outcome(use: Callable[[], Any]) -> str:
    try:
        return str(asyncio.run(use()))
    except seqrpc.SeqrpcError as exc:
        return type(exc).__name__


@pytest.mark.parametrize("used", [False, True])
async def test_a_copy_in_a_fork_holds_nothing_and_says_so(used: bool) -> None:
    async with on_a_pair(Shop()) as connection:
        channel = await connection.call("Shop.item")
        if used:
            assert await channel.call("Item.number") == 7

        async def detach() -> None:
            end_of(channel).detach()

        def use() -> list[Any]:
            uses = (lambda: channel.call("Item.number"), lambda: channel.notify("Item.number"), channel.wait_closed)
            return [*map(outcome, (*uses, detach, channel.close)), channel.closed]

        assert in_child(use) == [*["WrongProcess"] * 4, "None", True]
        assert await channel.call("Item.number") == 7
        await channel.close()


async def test_it_is_used_on_the_loop_that_used_it_first() -> None:
    async with on_a_pair(Shop()) as connection:
        channel = await connection.call("Shop.item")
        assert await channel.call("Item.number") == 7

        async def detach() -> None:
            end_of(channel).detach()

        for use in (lambda: channel.call("Item.number"), channel.wait_closed, channel.close, detach):
            assert await asyncio.to_thread(outcome, use) == "WrongLoop"
        assert await channel.call("Item.number") == 7
        await channel.close()
        assert await asyncio.to_thread(outcome, channel.close) == "None", "there is nothing left to close"
