"""What annotations are planned to be, and which cannot be."""

from __future__ import annotations

import dataclasses
import enum
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO, Annotated, Any

import attrs
import msgspec
import pytest
from support.annotations import (
    Box,
    Circle,
    Feed,
    Mixed,
    OtherVault,
    Point,
    Positive,
    Shape,
    Square,
    StructHolder,
    StructOfDataServices,
    StructOfServices,
    TypedDictOfServices,
    Unresolved,
    Vault,
    living_values,
)

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.conversion import convert
from seqrpc.interface.planning import listed, plan, plan_shape, plan_struct
from seqrpc.interface.standins import (
    AliasStandIn,
    CodedStandIn,
    MapStandIn,
    MemoryStandIn,
    ObjectStandIn,
    ServiceStandIn,
    StreamStandIn,
    UnionStandIn,
)
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
        socket.socket,
        list[socket.socket],
        int | socket.socket,
        IO[str],
        Callable[[], int],
        Iterator[int],
        StructHolder | Shape,
        Shape | Point,
        Vault | OtherVault,
        AsyncIterator[int] | AsyncIterator[str] | None,
        AsyncIterator[socket.socket],
        list[AsyncIterator[Callable[[], int]]],
        Unresolved,
    ],
)
def test_types_that_cannot_be_sent_are_a_type_error(annotation: Any) -> None:
    with pytest.raises(TypeError):
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


@pytest.mark.parametrize("annotation", [OwnedFd | socket.socket, Behind, list[Behind | int]])
def test_what_cannot_be_sent_is_found_beside_a_descriptor_too(annotation: Any) -> None:
    with pytest.raises(TypeError, match=r"values of type socket cannot be sent: write seqrpc\.OwnedFd"):
        plan(annotation)


@pytest.mark.parametrize(
    "annotation",
    [int, list[Point], dict[str, OwnedFd], OwnedFd | None, Box[OwnedFd], Link, Any, IPv4Address, Circle | Square],
)
def test_what_msgspec_can_have_is_left_as_it_is(annotation: Any) -> None:
    assert plan(annotation).kind == annotation


def test_what_it_cannot_have_is_swapped_and_nothing_around_it() -> None:
    assert isinstance(plan(OwnedFd | str).kind, UnionStandIn)
    assert plan(None).kind is type(None)
    assert isinstance(plan(list[Vault]).kind.__args__[0], ServiceStandIn)
    assert isinstance(plan(dict[str, tuple[int, memoryview]]).kind.__args__[1].__args__[1], MemoryStandIn)
    assert isinstance(plan(Annotated[Vault, "a note"]).kind, ServiceStandIn)
    assert isinstance(plan(Annotated[Mixed, msgspec.Meta(description="one")]).kind.__origin__, ObjectStandIn)
    either = plan(AsyncIterator[int] | None).kind
    assert isinstance(either.__args__[0], StreamStandIn)
    assert either.__args__[1] is type(None)
    assert plan(list[object]).kind == list[Any]
    assert plan(Iterable[int]).kind == list[int]


@attrs.define
class Attrs:
    x: int


@pytest.mark.parametrize(
    "annotation", [Attrs, list[Attrs], str | bytes, str | None | bytes, Positive | tuple[int, int]]
)
def test_what_msgspec_would_do_differently_is_made_here(annotation: Any) -> None:
    assert plan(annotation).kind != annotation


@dataclasses.dataclass
class Told:
    x: int

    def __post_init__(self) -> None:
        raise AssertionError


def test_to_look_at_values_no_code_of_the_application_s_is_planned_to_run() -> None:
    shape = shape_of(Told)
    assert plan_shape(shape).kind is Told
    assert isinstance(plan_shape(shape, looking=True).kind, ObjectStandIn)
    assert isinstance(plan_shape(shape_of(Path), looking=True).kind, CodedStandIn)
    assert plan_shape(shape_of(Point), looking=True).kind is Point


@pytest.mark.parametrize(
    "annotation, value",
    [
        (Positive | tuple[int, int], [1, 2]),
        (Positive | list[int], [1, 2]),
        (Annotated[str, msgspec.Meta(min_length=1)] | tuple[int, int] | None, "a"),
    ],
)
def test_unions_that_would_corrupt_memory_are_never_msgspec_s(annotation: Any, value: Any) -> None:
    made = convert(value, plan(annotation))
    assert made == (tuple(value) if "tuple" in str(annotation) and isinstance(value, list) else value)
    with pytest.raises(msgspec.ValidationError, match=r"Expected"):
        convert(0.5, plan(annotation))
    with pytest.raises(msgspec.ValidationError, match=r"Expected"):
        convert([1, "a"], plan(annotation))


def test_a_dataclass_may_hold_a_stream_of_its_own_kind() -> None:
    planned = plan(Feed)
    assert isinstance(planned.kind, ObjectStandIn)
    assert convert({"name": "a", "more": None}, planned) == Feed("a")
    with pytest.raises(msgspec.ValidationError, match=r"Expected a stream, got `list` - at `\$.more`"):
        convert({"name": "a", "more": []}, planned)


@pytest.mark.parametrize("annotation", [StructOfServices, StructOfDataServices, TypedDictOfServices])
def test_services_are_in_objects_of_all_kinds(annotation: Any) -> None:
    with living_values() as (_stream, channel, _buffer):
        made = convert({"vault": channel, "vaults": [channel]}, plan(annotation))
        proxy = made["vault"] if isinstance(made, dict) else getattr(made, "vault", None) or made.vaults[0]
        assert type(proxy).__name__ in ("VaultProxy", "DataVaultProxy")


def test_a_struct_of_several_has_what_looks_for_sets_in_each() -> None:
    fields = [("one", plan(int), msgspec.field()), ("other", plan(set[int]), msgspec.field(default=None))]
    planned = plan_struct("Both", fields, kw_only=True)
    assert planned.bounds is not None
    assert planned.shape is None
    assert convert({"one": 1, "other": [2]}, planned).other == {2}
    assert plan_struct("One", fields[:1]).bounds is None


def test_a_list_of_values_is_planned_once() -> None:
    numbers, sets = plan(int), plan(set[int])
    assert listed(numbers) is listed(numbers)
    assert listed(numbers).kind == list[int]
    assert (listed(numbers).bounds, listed(sets).bounds is None) == (None, False)


def test_a_union_of_one_living_choice_and_none_is_left_to_msgspec() -> None:
    assert not isinstance(plan(Vault | None).kind, UnionStandIn)
    assert isinstance(plan(Vault | int).kind, UnionStandIn)
    assert isinstance(plan(Buffer | OwnedFd).kind, UnionStandIn)
    assert isinstance(plan(Any | int).kind, UnionStandIn)
    assert convert(5.5, plan(int | Any | float)) == 5.5
    made = convert(5, plan(float | OwnedFd | int))
    assert type(made) is int


def test_many_classes_that_lead_to_each_other_are_planned() -> None:
    """Deep is what is in the values, and not how the classes are found."""
    made: dict[str, Any] = {}
    kinds = [
        dataclasses.make_dataclass(f"Kind{number}", [("x", int), ("next", Any), ("view", memoryview, b"")])
        for number in range(60)
    ]
    for kind, following in zip(kinds, [*kinds[1:], kinds[0]], strict=True):
        kind.__annotations__["next"] = following | None
        made[kind.__name__] = kind
    value: Any = None
    for number in range(10):
        value = {"x": number, "next": value}
    got = convert(value, plan(kinds[0]))
    assert (type(got), type(got.next)) == (kinds[0], kinds[1])
    with pytest.raises(msgspec.ValidationError, match=r"at `\$\.next\.next\.x`"):
        convert({"x": 1, "next": {"x": 2, "next": {"x": "a", "next": None}}}, plan(kinds[0]))


def test_maps_have_stand_ins_where_msgspec_would_leave_keys_as_they_came() -> None:
    made: list[Any] = [dict[Path, int], dict[IPv4Address | bytes, int], dict[Annotated[Path, "a note"] | int, Vault]]
    left: list[Any] = [dict[str, Vault], dict[int | str, int], dict[Positive, int]]
    assert [isinstance(plan(annotation).kind, MapStandIn) for annotation in (*made, *left)] == [True] * 3 + [False] * 3


def test_a_name_that_holds_itself_has_a_stand_in() -> None:
    extensions = pytest.importorskip("typing_extensions")
    alias = extensions.TypeAliasType("alias", "list[alias] | int")
    globals()["alias"] = alias
    try:
        planned = plan(alias)
    finally:
        del globals()["alias"]
    assert isinstance(planned.kind, AliasStandIn)
    assert convert([1, [[2], 3]], planned) == [1, [[2], 3]]


class Huge(enum.IntEnum):
    MOST = 2**63


class Lone(enum.Enum):
    NAME = "\udcff"


@pytest.mark.parametrize("annotation", [Huge, Lone, list[Huge]])
def test_whatever_msgspec_raises_over_a_type_is_a_type_error_with_a_way_out(annotation: Any) -> None:
    with pytest.raises(TypeError, match=r": write a type that MessagePack has$"):
        plan(annotation)
