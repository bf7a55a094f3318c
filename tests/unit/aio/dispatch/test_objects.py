"""Handlers that give objects, and requests that are large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.daemons import Stage, on_a_pair
from support.dispatch import Counter

import seqrpc
from seqrpc import policy


class Base(seqrpc.Service):
    @seqrpc.method
    async def name(self) -> str:
        return "base"

    @seqrpc.method
    async def inherited(self) -> str:
        return "inherited"


class Special(Base, name="org.example.Special"):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def name(self) -> str:
        return "special"

    @seqrpc.method(allow=~policy.anyone)
    async def more(self) -> str:
        return "more"

    @seqrpc.method
    async def wait(self) -> None:
        self.stage.reach("waiting")
        await asyncio.Event().wait()

    @seqrpc.method
    async def revoke_itself(self) -> str:
        await seqrpc.revoke(self)
        return "revoked"


class Factory(seqrpc.Service):
    def __init__(self) -> None:
        self.special = Special()

    @seqrpc.method
    async def make(self) -> Base:
        return self.special


# Objects on channels


async def test_an_object_on_a_channel_answers_as_what_it_is_annotated_with_and_as_what_it_is() -> None:
    async with on_a_pair(Factory()) as connection:
        base = await connection.proxy(Factory).make()
        assert [await base.name(), await base.inherited()] == ["special", "inherited"]
        channel = await connection.call("Factory.make")
        assert await channel.call("org.example.Special.name") == "special"
        with pytest.raises(seqrpc.PermissionDenied):
            await channel.call("org.example.Special.more")
        with pytest.raises(seqrpc.MethodNotFound):
            await channel.call("Base.more")


async def test_a_handler_that_revokes_its_object_ends_all_other_handlers_of_its_caller() -> None:
    factory = Factory()
    async with on_a_pair(factory) as connection:
        channel = await connection.call("Factory.make")
        waiting = asyncio.ensure_future(channel.call("org.example.Special.wait"))
        await factory.special.stage.wait("waiting")
        assert await channel.call("org.example.Special.revoke_itself") == "revoked"
        with pytest.raises(seqrpc.Cancelled):
            await waiting


class Heavy(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def hold(self, content: bytes, name: str) -> int:
        self.stage.reach(f"{name} began")
        await self.stage.wait(f"{name} may end")
        return len(content)


# Large requests


async def test_large_requests_that_are_worked_on_at_once_are_bounded_and_one_is_always_taken() -> None:
    heavy = Heavy()
    async with on_a_pair(heavy, limits=seqrpc.Limits(max_held_bytes=150_000)) as connection:
        first = asyncio.ensure_future(connection.call("Heavy.hold", bytes(200_000), "a"))
        await heavy.stage.wait("a began")
        with pytest.raises(seqrpc.Overloaded, match="max_held_bytes"):
            await connection.call("Heavy.hold", bytes(100_000), "b")
        heavy.stage.reach("c may end")
        assert await connection.call("Heavy.hold", bytes(100), "c") == 100
        heavy.stage.reach("a may end")
        assert await first == 200_000
        heavy.stage.reach("b may end")
        assert await connection.call("Heavy.hold", bytes(100_000), "b") == 100_000


class Beside(seqrpc.Service):
    @seqrpc.method
    async def add(self, numbers: AsyncIterator[int], names: dict[int, int]) -> int:
        return sum([number async for number in numbers]) + sum(names)

    @seqrpc.method
    async def both(self) -> list[Any]:
        return [Counter(3), {1: 2}]


async def test_a_stream_arrives_beside_a_map_whose_keys_are_numbers() -> None:
    async with on_a_pair(Beside()) as client:
        assert await client.proxy(Beside).add(Counter(3).__aiter__(), {40: 1}) == 43
        numbers, names = await client.call("Beside.both")
        assert [number async for number in numbers] == [0, 1, 2]
        assert names == {1: 2}
