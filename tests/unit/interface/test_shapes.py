"""What shapes say, and when two say the same."""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import typing
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pytest

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.service import Service
from seqrpc.interface.shapes import Alias, Anything, Kind, Object, Scalar, Shape, Wire, key_of, name_of
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

T = TypeVar("T")
Short = Annotated[str, msgspec.Meta(max_length=3)]


class Vault(Service):
    pass


@dataclasses.dataclass
class Box(Generic[T]):
    item: T


@dataclasses.dataclass
class Told:
    x: int

    def __post_init__(self) -> None:
        raise AssertionError


class Struct(msgspec.Struct):
    x: int


class Tagged(msgspec.Struct, tag_field="kind", tag=3, array_like=True):
    x: int


@attrs.define
class Attrs:
    x: int


class Pair(NamedTuple):
    x: int


class Typed(TypedDict):
    x: int


@pytest.mark.parametrize(
    "annotation, wires",
    [
        (None, {Wire.NIL}),
        (float, {Wire.FLOAT, Wire.INT}),
        (Short, {Wire.STR}),
        (list[int], {Wire.ARRAY}),
        (tuple[int, str], {Wire.ARRAY}),
        (dict[str, int], {Wire.MAP}),
        (Struct, {Wire.MAP}),
        (Tagged, {Wire.ARRAY}),
        (Pair, {Wire.ARRAY}),
        (Typed, {Wire.MAP}),
        (int | str | None, {Wire.INT, Wire.STR, Wire.NIL}),
        (Any, set(Wire)),
        (OwnedFd, {Wire.DESCRIPTOR}),
        (Buffer, {Wire.BUFFER}),
        (memoryview, {Wire.BUFFER, Wire.BYTES}),
        (AsyncIterator[int], {Wire.STREAM}),
        (Vault, {Wire.CHANNEL}),
        (ipaddress.IPv4Address, {Wire.STR}),
    ],
)
def test_it_is_known_what_values_are_on_the_wire(annotation: Any, wires: set[Wire]) -> None:
    assert shape_of(annotation).wires == wires


@pytest.mark.parametrize(
    "annotation, parts",
    [
        (int, ()),
        (list[int], (int,)),
        (tuple[int, str], (int, str)),
        (dict[str, int], (str, int)),
        (Short, (str,)),
        (int | str, (int, str)),
        (AsyncIterator[int], (int,)),
        (Box[str], (str,)),
        (ipaddress.IPv4Address, (str,)),
        (OwnedFd, ()),
    ],
)
def test_shapes_are_made_of_others(annotation: Any, parts: tuple[Any, ...]) -> None:
    assert shape_of(annotation).parts == tuple(map(shape_of, parts))


def test_an_alias_that_is_not_read_yet_is_nothing() -> None:
    alias = Alias("name")
    assert (alias.parts, alias.wires) == ((), frozenset())
    alias.target = Scalar(int, (Wire.INT,), is_small=True)
    assert (alias.parts, alias.wires) == ((alias.target,), {Wire.INT})  # type: ignore[comparison-overlap]
    assert alias != Alias("name")
    assert alias == alias  # noqa: PLR0124 - that is the question


@pytest.mark.parametrize(
    "one, other",
    [
        (int, Annotated[int, "a note"]),
        (list[int], typing.List[int]),  # noqa: UP006
        (list[int], Sequence[int]),
        (dict[str, int], collections.abc.Mapping[str, int]),
        (int | None, typing.Optional[int]),  # noqa: UP045
        (Box[int], Box[Annotated[int, "a note"]]),
        (Short, Annotated[str, msgspec.Meta(max_length=3)]),
        (AsyncIterator[int], collections.abc.AsyncIterable[int]),
        (tuple[int, ...], typing.Tuple[int, ...]),  # noqa: UP006
    ],
)
def test_shapes_that_say_the_same_are_equal(one: Any, other: Any) -> None:
    assert shape_of(one) == shape_of(other)
    assert hash(shape_of(one)) == hash(shape_of(other))


DIFFERENT: list[Any] = [
    int, bool, str, Short, Annotated[str, msgspec.Meta(max_length=4)], list[int], list[str], set[int], tuple[int, ...],
    tuple[int], dict[str, int],
    dict[int, str], Box[int], Box[str], Box, Struct, int | str, int | None,
    AsyncIterator[int], AsyncIterator[str], Vault, OwnedFd, Buffer, memoryview, Any, Literal["a"], Literal["b"],
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
]  # fmt: skip


def test_all_others_are_not() -> None:
    shapes = list(map(shape_of, DIFFERENT))
    for number, shape in enumerate(shapes):
        assert [shape == other for other in shapes] == [number == index for index in range(len(shapes))]
    assert shapes[0] != "int"
    assert len({key_of(shape) for shape in shapes}) == len(shapes)


@pytest.mark.parametrize(
    "cls, kind, is_array, tag, runs_code",
    [
        (Box, Kind.DATACLASS, False, None, False),
        (Told, Kind.DATACLASS, False, None, True),
        (Struct, Kind.STRUCT, False, None, False),
        (Tagged, Kind.STRUCT, True, ("kind", 3), False),
        (Attrs, Kind.ATTRS, False, None, True),
        (Pair, Kind.NAMED_TUPLE, True, None, False),
        (Typed, Kind.TYPED_DICT, False, None, False),
    ],
)
def test_objects_say_how_they_travel_and_are_made(
    cls: Any, kind: Kind, is_array: bool, tag: Any, runs_code: bool
) -> None:
    shape = shape_of(cls)
    assert isinstance(shape, Object)
    assert (shape.kind, shape.is_array, shape.tag, shape.runs_code) == (kind, is_array, tag, runs_code)
    assert (shape.cls, shape.arguments) == (cls, ())


def test_a_shape_without_anything_has_no_parts() -> None:
    assert Shape(int).parts == ()
    assert Shape(int).wires == frozenset()
    assert not Anything(Any).is_respelled


@pytest.mark.parametrize(
    "annotation, name",
    [
        (None, "None"),
        (type(None), "None"),
        (int, "int"),
        (Vault, "Vault"),
        (list[int], "list[int]"),
        (AsyncIterator[int], "AsyncIterator[int]"),
        (Any, "Any"),
        (int | None, "int | None"),
        (Literal["a"], "Literal['a']"),
        ("text", "text"),
        (type("Local", (), {"__qualname__": "made.<locals>.Local"}), "Local"),
    ],
)
def test_annotations_are_named_for_people(annotation: Any, name: str) -> None:
    assert name_of(annotation) == name


def test_shapes_say_what_they_are() -> None:
    assert repr(shape_of(list[int])) == "<Array list[int]>"
    assert repr(shape_of(Vault)) == "<ServiceObject Vault>"
