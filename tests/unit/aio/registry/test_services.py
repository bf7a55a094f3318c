"""Which services there are, and which of them a call reaches."""

from __future__ import annotations

import pytest
from support.daemons import on_a_pair
from support.dispatch import Everything

import seqrpc
from seqrpc.aio.registry import Registry


def test_a_registry_takes_services_only_and_no_name_twice() -> None:
    with pytest.raises(TypeError, match=r"an object of a seqrpc\.Service was expected, got 5"):
        Registry([5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"an object of a seqrpc\.Service was expected, got <class"):
        Registry([Everything])  # type: ignore[list-item]

    class Another(seqrpc.Service, name="Everything"):
        pass

    with pytest.raises(ValueError, match="two services are named 'Everything'"):
        Registry([Everything(), Another()])


def test_a_registry_knows_whether_anything_takes_descriptors() -> None:
    class Plain(seqrpc.Service):
        @seqrpc.method
        async def add(self, a: int) -> int:
            return a

    assert not Registry([Plain()]).takes_descriptors
    assert Registry([Plain(), Everything()]).takes_descriptors
    assert not Registry([]).takes_descriptors


async def test_several_services_share_one_address() -> None:
    class Other(seqrpc.Service, name="org.example.Other"):
        @seqrpc.method
        async def hello(self) -> str:
            return "hello"

    async with on_a_pair(Everything(), Other()) as connection:
        assert await connection.call("org.example.Other.hello") == "hello"
        assert await connection.call("Everything.add", 1) == 111
