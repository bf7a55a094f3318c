"""What a type may hold."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from typing import Annotated, Any, Generic, Literal, Optional, TypeVar

import msgspec
import pytest
from support.annotations import (
    Box,
    Chicken,
    Clumsy,
    Color,
    DataVault,
    Even,
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

from seqrpc.interface.planning import plan
from seqrpc.interface.streams import ReceivedStream
from seqrpc.interface.types import (
    exact_type,
    holds_descriptors,
    is_dataclass,
    is_service,
    is_stream,
    is_union,
    item_type,
    may_be_large,
    runs_code,
    takes_descriptors,
    types_in,
)
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@pytest.mark.parametrize(
    "annotation",
    [
        int,
        float,
        bool,
        None,
        int | None,
        Positive,
        Annotated[int | float, "a note"],
        Color,
        Level,
        Literal["a", "b"],
        uuid.UUID,
        dt.datetime,
        dt.date,
        dt.time,
        dt.timedelta,
    ],
)
def test_small_plain_types_never_travel_with_descriptors(annotation: Any) -> None:
    assert not takes_descriptors(plan(annotation))


@pytest.mark.parametrize("annotation", [Any, list, dict, dict[str, Any], Box])
def test_types_that_say_nothing_may_hold_descriptors(annotation: Any) -> None:
    assert takes_descriptors(plan(annotation))


@pytest.mark.parametrize(
    "annotation",
    [str, bytes, list[int], dict[str, Point], Point, Shape, Pair, Movie, int | str, Short, tuple[int, ...]],
)
def test_what_may_be_large_may_travel_as_a_descriptor(annotation: Any) -> None:
    assert takes_descriptors(plan(annotation))


def test_exact_types_need_no_conversion() -> None:
    assert [exact_type(plan(annotation)) for annotation in (int, str, bool, bytes, None)] == [
        int,
        str,
        bool,
        bytes,
        type(None),
    ]
    for annotation in (float, list[int], Point, OwnedFd, Level, bytearray, int | None, Any):
        assert exact_type(plan(annotation)) is None


# What is in a type


class Fields(msgspec.Struct):
    point: Point
    sides: list[Fields] | None = None


class Whole(msgspec.Struct, Generic[T]):
    part: T


class PartOfClumsy(Whole[Clumsy]):
    """Says only as a generic class of what type its field is."""


def infos(annotation: Any) -> set[str]:
    return {type(info).__name__ for info in types_in(plan(annotation))}


@pytest.mark.parametrize(
    "annotation, within",
    [
        (int, {"IntType"}),
        (Annotated[int, msgspec.Meta(gt=0, description="a note")], {"IntType", "Metadata"}),
        (dict[str, tuple[int, float]], {"DictType", "StrType", "TupleType", "IntType", "FloatType"}),
        (Fields, {"StructType", "DataclassType", "IntType", "ListType", "UnionType", "NoneType"}),
        (PartOfClumsy, {"StructType", "DataclassType", "StrType"}),
        (AsyncIterator[dict[str, bool]], {"CustomType", "DictType", "StrType", "BoolType"}),
        (AsyncIterator[AsyncIterator[float]], {"CustomType", "FloatType"}),
        (Vault, {"CustomType"}),
        (OwnedFd | int | list[float], {"CustomType", "UnionType", "IntType", "ListType", "FloatType"}),
        (Node, {"CustomType", "StructType", "StrType", "UnionType", "NoneType", "ListType"}),
    ],
)
def test_the_walk_finds_all_types_also_through_what_stands_in_for_others(annotation: Any, within: set[str]) -> None:
    assert infos(annotation) == within


@pytest.mark.parametrize("annotation", [Fields, Node, Chicken])
def test_types_that_hold_themselves_are_walked_through_once(annotation: Any) -> None:
    found = types_in(plan(annotation))
    assert len({id(info) for info in found}) == len(found)
    structs = [info.cls for info in found if isinstance(info, msgspec.inspect.StructType)]
    assert structs
    assert len(set(structs)) == len(structs)


@pytest.mark.parametrize(
    "annotation, holds, large",
    [
        (int, False, False),
        (Color | None, False, False),
        (str, False, True),
        (Point, False, True),
        (Any, True, True),
        (list[Any], True, True),
        (OwnedFd, True, False),
        (OwnedFd | None, True, False),
        (Buffer, True, False),
        (memoryview, True, False),
        (AsyncIterator[str], True, False),
        (Vault, True, False),
        (OwnedFd | int, True, False),
        (OwnedFd | str, True, True),
        (Annotated[OwnedFd | str, "a note"], True, True),
        (Annotated[int, msgspec.Meta(description="a number")], False, False),
        (Annotated[str, msgspec.Meta(description="a text")] | None, False, True),
        (list[OwnedFd], True, True),
        (StructHolder, True, True),
    ],
)
def test_what_holds_descriptors_and_what_may_be_large_are_told_apart(annotation: Any, holds: bool, large: bool) -> None:
    planned = plan(annotation)
    assert (holds_descriptors(planned), may_be_large(planned)) == (holds, large)
    assert takes_descriptors(planned) == (holds or large)


@pytest.mark.parametrize(
    "annotation, runs",
    [
        (Point, False),
        (Clumsy, True),
        (dict[str, list[Clumsy | None]], True),
        (Fields, False),
        (Whole[Point], False),
        (PartOfClumsy, True),
        (Box[Clumsy], True),
        (Even, True),  # there is a stand-in of it
        (AsyncIterator[Clumsy], True),
        (Vault, False),
    ],
)
def test_code_that_runs_as_objects_are_made_is_found(annotation: Any, runs: bool) -> None:
    assert runs_code(plan(annotation)) is runs


class Read(ReceivedStream[T_co]):
    """The reading end of a stream."""


@pytest.mark.parametrize(
    "annotation, of",
    [
        (AsyncIterator[int], int),
        (AsyncIterable[str], str),
        (AsyncGenerator[Point, None], Point),
        (Read[bytes], bytes),
        (Read, Any),
        (AsyncIterator, Any),
        (int, None),
        (list[int], None),
        (Iterator[int], None),
    ],
)
def test_a_stream_is_known_and_of_what(annotation: Any, of: Any) -> None:
    assert is_stream(annotation) is (of is not None)
    if of is not None:
        assert item_type(annotation) is of


def test_other_annotations_are_known() -> None:
    assert is_service(Vault)
    assert is_service(DataVault)
    assert not is_service(Point)
    assert not is_service(list[Vault])
    assert is_union(int | str)
    assert is_union(Optional[int])  # noqa: UP045
    assert not is_union(list[int | str])
    assert is_dataclass(Point)
    assert not is_dataclass(Point(1))
    assert not is_dataclass(Box[int])
