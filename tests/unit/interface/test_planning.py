"""What annotations are planned to be, and which cannot be."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import IO, Annotated, Any

import msgspec
import pytest
from support.annotations import (
    Box,
    Feed,
    Mixed,
    OtherVault,
    Point,
    Shape,
    StructHolder,
    StructOfDataServices,
    StructOfServices,
    TypedDictOfServices,
    Unresolved,
    Vault,
)

from seqrpc.interface.conversion import convert
from seqrpc.interface.planning import plan, plan_stream
from seqrpc.interface.standins import DataclassStandIn, StreamStandIn, UnionStandIn
from seqrpc.interface.types import types_in
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd


def test_dataclasses_around_a_descriptor_keep_their_defaults() -> None:
    planned = plan(Mixed)
    first, second = convert({"source": "a"}, planned), convert({"source": "a"}, planned)
    assert first == Mixed("a")
    assert first.tags is not second.tags


@pytest.mark.parametrize(
    "annotation",
    [
        object,
        socket.socket,
        list[socket.socket],
        int | socket.socket,
        IO[str],
        Callable[[], int],
        Iterator[int],
        StructHolder | Shape,
        Shape | Point,
    ],
)
def test_types_that_cannot_be_sent_are_a_type_error(annotation: Any) -> None:
    with pytest.raises(TypeError):
        plan(annotation)


def test_a_dataclass_that_cannot_be_resolved_is_an_error() -> None:
    with pytest.raises(NameError, match="NoSuchName"):
        plan(Unresolved)


@pytest.mark.parametrize(
    "annotation, message",
    [
        (StructOfServices, r"values of type Vault cannot be sent within a Struct \(a dataclass would do\)"),
        (list[StructOfServices], "within a Struct"),
        (StructOfDataServices, "values of type DataVault cannot be sent within a Struct"),
        (TypedDictOfServices, "values of type Vault cannot be sent"),
        (Vault | OtherVault, "a service does not say which of them it is"),
        (AsyncIterator[int] | AsyncIterator[str] | None, "a stream does not say which of them it is"),
        (AsyncIterator[socket.socket], "values of type socket cannot be sent"),
        (AsyncIterator[StructOfServices], "within a Struct"),
        (list[AsyncIterator[Callable[[], int]]], "cannot be sent|not supported"),
    ],
)
def test_what_cannot_be_among_them_is_a_type_error(annotation: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        plan(annotation)


@dataclasses.dataclass
class Link:
    """Holds its own kind, and nothing that msgspec cannot have."""

    next: Link | None = None


@dataclasses.dataclass
class Behind:
    """Has a stand-in, since it may hold a descriptor; what else it holds is looked at all the same."""

    source: OwnedFd | str
    sock: socket.socket | None = None


@pytest.mark.parametrize(
    "annotation, message",
    [
        (OwnedFd | socket.socket, "values of type socket cannot be sent"),
        (Behind, "values of type socket cannot be sent"),
        (list[Behind | int], "values of type socket cannot be sent"),
        (OwnedFd | StructOfServices, r"values of type Vault cannot be sent within a Struct \(a dataclass would do\)"),
    ],
)
def test_what_cannot_be_sent_is_found_beside_a_descriptor_too(annotation: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        plan(annotation)


@pytest.mark.parametrize("annotation", [int, list[Point], dict[str, OwnedFd], OwnedFd | None, Box[OwnedFd], Link, Any])
def test_what_msgspec_can_have_is_left_as_it_is(annotation: Any) -> None:
    assert plan(annotation) is annotation


def test_what_it_cannot_have_is_swapped_and_nothing_around_it() -> None:
    either = plan(OwnedFd | str)
    assert isinstance(either, UnionStandIn)
    assert plan(None) is type(None)
    assert plan(AsyncIterator[int] | None) == plan(AsyncIterator[int]) | None
    assert plan(dict[str, list[Vault]]) == dict[str, list[plan(Vault)]]  # type: ignore[misc]
    assert plan(Annotated[Vault, "a note"]) == Annotated[plan(Vault), "a note"]
    assert plan(Buffer | OwnedFd).choices == ()


def test_streams_and_services_are_planned_once() -> None:
    assert plan(AsyncIterator[int]) is plan_stream(AsyncIterator[int])
    assert plan(Vault) is plan(Vault)
    assert plan(memoryview) is plan(memoryview)


def test_a_dataclass_may_hold_a_stream_of_its_own_kind() -> None:
    planned = plan(Feed)
    assert isinstance(planned, DataclassStandIn)
    inside = [getattr(info, "cls", None) for info in types_in(planned)]
    streams = [cls for cls in inside if isinstance(cls, StreamStandIn)]
    assert [(stream.item_type, stream.parts) for stream in streams] == [(Feed, (planned,))]
    assert convert({"name": "a", "more": None}, planned) == Feed("a")
    with pytest.raises(msgspec.ValidationError, match=r"Expected a stream, got `list` - at `\$.more`"):
        convert({"name": "a", "more": []}, planned)
