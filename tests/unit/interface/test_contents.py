"""What is in shapes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import pytest
from support.annotations import (
    Box,
    Chicken,
    Color,
    Level,
    Movie,
    Node,
    Pair,
    Point,
    Positive,
    Shape,
    Short,
    StructHolder,
    Vault,
)

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.contents import (
    composed,
    exact_type,
    holds_descriptors,
    holds_living,
    inner_of,
    may_be_large,
    shapes_in,
    spelling,
    takes_descriptors,
)
from seqrpc.interface.service import Service
from seqrpc.interface.shapes import name_of
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

T = TypeVar("T")


class Store(Service, Generic[T]):
    pass


@dataclasses.dataclass
class Deep:
    inner: list[dict[str, Box[OwnedFd]]]
    again: Deep | None = None


SMALL: list[Any] = [
    int, float, bool, None, int | None, Positive, Annotated[int | float, "a note"], Color, Level, Literal["a", "b"],
    uuid.UUID, dt.datetime, dt.date, dt.time, dt.timedelta,
]  # fmt: skip


@pytest.mark.parametrize("annotation", SMALL)
def test_small_plain_types_never_travel_with_descriptors(annotation: Any) -> None:
    assert not takes_descriptors(shape_of(annotation))
    assert not may_be_large(shape_of(annotation))


@pytest.mark.parametrize("annotation", [Any, list, dict, dict[str, Any], Box, object])
def test_types_that_say_nothing_may_hold_descriptors(annotation: Any) -> None:
    shape = shape_of(annotation)
    assert takes_descriptors(shape)
    assert holds_descriptors(shape)
    assert not holds_living(shape)


@pytest.mark.parametrize(
    "annotation, holds, large",
    [
        (int, False, False),
        (Color | None, False, False),
        (str, False, True),
        (bytes, False, True),
        (Point, False, True),
        (Shape, False, True),
        (Pair, False, True),
        (Movie, False, True),
        (tuple[int, ...], False, True),
        (Short, False, True),
        (OwnedFd, True, False),
        (OwnedFd | None, True, False),
        (Buffer, True, False),
        (memoryview, True, False),
        (AsyncIterator[str], True, False),
        (Vault, True, False),
        (Store[int] | None, True, False),
        (OwnedFd | int, True, False),
        (OwnedFd | str, True, True),
        (Annotated[OwnedFd | str, "a note"], True, True),
        (Annotated[int, msgspec.Meta(description="a number")], False, False),
        (Annotated[str, msgspec.Meta(description="a text")] | None, False, True),
        (list[OwnedFd], True, True),
        (StructHolder, True, True),
        (Deep, True, True),
        (Node, True, True),
        (Chicken, True, True),
    ],
)
def test_what_holds_descriptors_and_what_may_be_large_are_told_apart(annotation: Any, holds: bool, large: bool) -> None:
    shape = shape_of(annotation)
    assert (holds_living(shape), holds_descriptors(shape), may_be_large(shape)) == (holds, holds, large)
    assert takes_descriptors(shape) == (holds or large)


@pytest.mark.parametrize("annotation", [Node, Chicken, Deep, dict[str, Node]])
def test_shapes_that_hold_themselves_are_walked_through_once(annotation: Any) -> None:
    found = list(shapes_in(shape_of(annotation)))
    assert len({id(shape) for shape in found}) == len(found)
    assert any(name_of(shape.annotation) == "OwnedFd" for shape in found)


def test_exact_types_need_no_conversion() -> None:
    for annotation in (int, str, bool, bytes):
        assert exact_type(shape_of(annotation)) is annotation
        assert exact_type(shape_of(Annotated[annotation, "a note"])) is annotation
    assert exact_type(shape_of(None)) is type(None)
    assert exact_type(None) is None
    others: list[Any] = [float, list[int], Point, OwnedFd, Level, bytearray, int | None, Any, Positive, Literal[1]]
    assert [exact_type(shape_of(annotation)) for annotation in others] == [None] * len(others)


def test_bounds_and_notes_are_taken_off() -> None:
    assert inner_of(shape_of(Annotated[Positive, msgspec.Meta(description="a number")])) == shape_of(int)
    assert inner_of(shape_of(int | None)) == shape_of(int | None)


@pytest.mark.parametrize(
    "annotation, spelled",
    [
        (None, type(None)),
        (Sequence[int], list[int]),
        (tuple[int, ...], tuple[int, ...]),
        (tuple[()], tuple[()]),
        (tuple[int, "str"], tuple[int, str]),
        (dict[str, Any], dict[str, Any]),
        (int | str | None, int | str | None),
        (Short, Short),
        (Annotated[int, "a note"], int),
        (AsyncIterator[Short], AsyncIterator[Short]),
        (Box[Sequence[int]], Box[list[int]]),
        (Box, Box),
        (Store[Box[int]], Store[Box[int]]),
        (object, Any),
        (list[T], list[Any]),  # type: ignore[valid-type]
        (memoryview, memoryview),
        (Color, Color),
    ],
)
def test_a_shape_is_spelled_so_that_it_says_the_same_by_itself(annotation: Any, spelled: Any) -> None:
    shape = shape_of(annotation)
    assert spelling(shape) == spelled
    assert shape_of(spelling(shape)) == (shape_of(Any) if annotation is object else shape_of(spelled))


def test_a_shape_is_composed_of_other_parts() -> None:
    assert composed(shape_of(list[int]), (str,)) == list[str]
    assert composed(shape_of(Short), (bytes,)).__metadata__ == Short.__metadata__  # type: ignore[attr-defined]
    assert composed(shape_of(int | None), (str, type(None))) == str | None
