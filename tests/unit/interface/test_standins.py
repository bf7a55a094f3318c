"""What stands in for types that msgspec cannot have says of what, and makes it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from support.annotations import Mixed, Node, Vault, living_values

from seqrpc.aio.proxy import Proxy
from seqrpc.errors import InvalidResult
from seqrpc.interface.conversion import Terms, convert
from seqrpc.interface.planning import plan
from seqrpc.interface.service import RemoteService
from seqrpc.interface.standins import (
    UNMADE,
    DataclassStandIn,
    MemoryStandIn,
    ServiceStandIn,
    StandIn,
    StreamStandIn,
    UnionStandIn,
    expected,
)
from seqrpc.interface.streams import ReceivedStream
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd


class Items(ReceivedStream[Any]):
    """The reading end of a stream: what came is here already."""

    def __init__(self, *came: Any) -> None:
        self.items = list(came)

    def _checked(self, check: Any) -> None:
        self.items = check(self.items)


def test_a_stream_s_says_what_its_items_are() -> None:
    planned = plan(AsyncIterator[OwnedFd | str])
    assert isinstance(planned, StreamStandIn)
    assert planned.item_type == OwnedFd | str
    assert isinstance(planned.parts[0], UnionStandIn)
    assert convert(Items("a"), planned).items == ["a"]
    with pytest.raises(InvalidResult, match="Expected `str`, got `int`"):
        convert(Items(1), planned)
    with pytest.raises(msgspec.ValidationError, match="Expected a stream, got `list`"):
        convert(["a"], planned)
    assert plan(AsyncIterator).item_type is Any
    assert convert(Items(1, "a"), plan(AsyncIterator)).items == [1, "a"]


def test_a_service_s_says_which() -> None:
    planned = plan(Vault)
    assert isinstance(planned, ServiceStandIn)
    assert (planned.service, planned.parts) == (Vault, ())
    with living_values() as (_stream, channel, _buffer):
        assert isinstance(convert(channel, planned), Proxy)
    with pytest.raises(msgspec.ValidationError, match="Expected a channel, got `int`"):
        convert(5, planned)


def test_a_union_s_says_what_may_be_chosen_in_the_order_in_which_it_is_tried() -> None:
    planned = plan(Vault | int | OwnedFd | None | AsyncIterator[str])
    assert isinstance(planned, UnionStandIn)
    assert planned.carriers == (OwnedFd,)
    assert planned.choices == (int | None, plan(Vault), plan(AsyncIterator[str]))
    assert planned.parts == (*planned.carriers, *planned.choices)
    assert [convert(value, planned) for value in (5, None)] == [5, None]
    with pytest.raises(msgspec.ValidationError, match="`; Expected a channel, got `str`; "):
        convert("x", planned)
    with Buffer.copy_of(b"abc") as buffer:
        assert convert(buffer, plan(OwnedFd | Buffer)) is buffer
        with pytest.raises(msgspec.ValidationError, match="got `Buffer`; Expected a channel, got `Buffer`"):
            convert(buffer, planned)
    with pytest.raises(msgspec.ValidationError, match=r"^Expected a descriptor$"):
        convert(5, plan(OwnedFd | Buffer))


def test_a_dataclass_s_says_which_and_has_its_fields() -> None:
    planned = plan(Mixed)
    assert isinstance(planned, DataclassStandIn)
    assert planned.original is Mixed
    (mirror,) = planned.parts
    assert mirror.__name__ == "Mixed"
    assert [field.name for field in msgspec.structs.fields(mirror)] == ["source", "name", "tags"]
    node: Any = plan(Node)
    assert {field.name: field.type for field in msgspec.structs.fields(node.parts[0])}["children"] == list[node]
    assert convert({"source": "a"}, planned) == Mixed("a")


def test_memory_s_makes_views() -> None:
    planned = plan(memoryview)
    assert isinstance(planned, MemoryStandIn)
    assert convert(b"abc", planned) == memoryview(b"abc")
    with pytest.raises(msgspec.ValidationError, match="Expected a buffer or bytes, got `str`"):
        convert("abc", planned)


@dataclasses.dataclass
class Far(Mixed):
    """Is a Mixed, too."""


@pytest.mark.parametrize(
    "annotation, made, other",
    [
        (AsyncIterator[int], Items(), [1]),
        (Vault, RemoteService(), Vault()),
        (memoryview, memoryview(b""), b""),
        (Mixed, Far("a"), {"source": "a"}),
    ],
    ids=["stream", "service", "memory", "dataclass"],
)
def test_values_are_instances_of_a_stand_in_that_makes_such(annotation: Any, made: Any, other: Any) -> None:
    planned = plan(annotation)
    assert isinstance(made, planned)
    assert isinstance(UNMADE, planned)
    assert not isinstance(other, planned)


def test_a_union_s_may_make_anything_and_one_of_no_kind_makes_nothing() -> None:
    assert isinstance(object(), plan(OwnedFd | Any))
    nothing = StandIn()
    assert not isinstance(object(), nothing)
    with pytest.raises(NotImplementedError):
        convert(1, nothing, Terms(InvalidResult))


def test_what_is_something_else_is_named_by_its_type() -> None:
    assert expected("a stream", 5) == "Expected a stream, got `int`"
