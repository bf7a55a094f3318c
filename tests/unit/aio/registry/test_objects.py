"""What an object answers that others hold."""

from __future__ import annotations

import pytest
from support.daemons import on_a_pair
from support.special import Factory

import seqrpc

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
