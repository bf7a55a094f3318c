"""Which services there are, and which of them a call reaches."""

from __future__ import annotations

import pytest
from support.daemons import on_a_pair
from support.dispatch import Everything

import seqrpc
from seqrpc import policy
from seqrpc.aio.registry import Registry


def test_a_registry_takes_services_only_and_no_name_twice() -> None:
    with pytest.raises(TypeError, match=r"an object of a seqrpc\.Service was expected, got 5"):
        Registry([5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"an object of Everything was expected, got the class: write Everything\(\)"):
        Registry([Everything])  # type: ignore[list-item]

    class Another(seqrpc.Service, name="Everything"):
        pass

    with pytest.raises(ValueError, match="two services are named 'Everything'"):
        Registry([Everything(), Another()])


@pytest.mark.parametrize(
    "name, is_unmarked",
    [
        ("Half.forgotten", True),
        ("Half.marked", False),
        ("Half.close", False),
        ("Half.lifespan", False),
        ("Half.number", False),
        ("Half._hidden", False),
        ("Half.nothing", False),
        ("Half.", False),
        ("Other.forgotten", False),
        ("forgotten", False),
        ("rpc.ping", False),
    ],
)
def test_a_function_that_is_not_marked_is_known_from_what_is_not_there(name: str, is_unmarked: bool) -> None:
    class Half(seqrpc.Service):
        number = 5

        @seqrpc.method
        async def marked(self) -> None: ...

        async def forgotten(self) -> None: ...

        async def _hidden(self) -> None: ...

    assert Registry([Half()]).is_unmarked(name) is is_unmarked


def test_what_is_built_in_is_made_once() -> None:
    one, other = Registry([]), Registry([Everything()], policy.uid(1))  # as each end of each channel has one
    assert one.entries["rpc.ping"] is other.entries["rpc.ping"]
    assert one.entries is not other.entries
    assert list(one.unread) == list(other.unread) == ["rpc.ping"]


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


def test_a_registry_knows_its_methods_by_their_names_on_the_wire_and_who_may_call_them() -> None:
    class Open(seqrpc.Service, allow=policy.anyone):
        @seqrpc.method
        async def one(self) -> None: ...

        @seqrpc.method(allow=policy.root)
        async def two(self) -> None: ...

    service, plain = Open(), Everything()
    mine = policy.uid(4_242)
    registry = Registry([service, plain], mine)
    assert registry.services == (service, plain)
    assert (registry.policies["Open.one"], registry.policies["Open.two"]) == (policy.anyone, policy.root)
    assert registry.policies["Everything.add"] is registry.policy is mine
    assert registry.policies.keys() == registry.entries.keys()
    assert registry.unread == {"rpc.ping"}
    for name, allow in (("Open.three", policy.anyone), ("Everything.x", mine), ("Nobody.x", mine), ("", mine)):
        assert registry.policy_of_unknown(name) is allow


def test_two_services_of_one_name_are_told_apart_by_another_name() -> None:
    class Twin(seqrpc.Service):
        @seqrpc.method
        async def name(self) -> str:
            return "first"

    class Other(Twin, name="org.example.Twin"):
        pass

    with pytest.raises(ValueError, match=r"two services are named 'Twin'; give one class another name="):
        Registry([Twin(), Twin()])
    assert {name for name in Registry([Twin(), Other()]).entries if name.endswith("name")} == {
        "Twin.name",
        "org.example.Twin.name",
    }
