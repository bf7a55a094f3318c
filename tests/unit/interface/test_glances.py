"""A first look at results accepts nothing that does not fit, and is given up where it could."""

from __future__ import annotations

import datetime as dt
import pathlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypedDict

import attrs
import msgspec
import pytest

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.glances import glance_type
from seqrpc.kernel.descriptors import OwnedFd

MADE: list[int] = []


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0

    def __post_init__(self) -> None:
        MADE.append(self.x)


@dataclass
class Line:
    ends: list[Point]
    colour: Colour | None = None
    since: dt.datetime | None = None


@dataclass
class Node:
    next: Node | None = None
    children: list[Node] = field(default_factory=list)


class Plain(msgspec.Struct):
    point: Point


class Renamed(msgspec.Struct, rename="camel"):
    some_name: int


class Tagged(msgspec.Struct, tag=True):
    x: int


class Arrayed(msgspec.Struct, array_like=True):
    x: int


class Pair(NamedTuple):
    a: int


class Movie(TypedDict):
    title: str


class Folder(TypedDict):
    name: str
    folders: list[Folder]


class Scene(TypedDict):
    point: Point


@attrs.define
class Song:
    title: str


class AlikePoint:
    """Would pass for a Point, as it would on the wire; the encoder refuses it."""

    x = 1
    y = 2


def passes(annotation: Any, value: Any) -> bool:
    kind = glance_type(shape_of(annotation))
    assert kind is not None
    try:
        msgspec.convert(value, kind, from_attributes=True)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    "annotation, fitting, other",
    [
        (int, 1, "a"),
        (list[Point], [Point(1)], [Point("a")]),  # type: ignore[arg-type]
        (Point, Point(1), 5),
        (Point | None, None, Point(1, None)),  # type: ignore[arg-type]
        (Line, Line([Point(1)], Colour.RED), Line([Point(1)], "blue")),  # type: ignore[arg-type]
        (dict[str, Line], {"a": Line([])}, {"a": Line([5])}),  # type: ignore[list-item]
        (Plain, Plain(Point(1)), Plain(Point("a"))),  # type: ignore[arg-type]
        (tuple[Point, int], (Point(1), 2), (Point(1), "a")),
        (Annotated[int, msgspec.Meta(ge=0)], 1, -1),
        (Pair, Pair(1), Pair("a")),  # type: ignore[arg-type]
        (list[Movie], [{"title": "a"}], [{"title": 5}]),
        (Point, AlikePoint(), object()),
    ],
)
def test_what_fits_passes_and_fields_are_looked_at(annotation: Any, fitting: Any, other: Any) -> None:
    assert passes(annotation, fitting)
    assert not passes(annotation, other)


def test_no_object_of_the_application_is_made() -> None:
    point = Point(1)
    MADE.clear()
    assert passes(list[Point], [point])
    assert passes(Plain, Plain(point))
    assert MADE == []


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        Node,
        Renamed,
        Tagged,
        Arrayed,
        Scene,
        Folder,
        Song,
        pathlib.Path,
        str | bytes,
        object,
        OwnedFd,
        list[AsyncIterator[int]],
        dict[str, Node],
    ],
)
def test_where_it_could_accept_too_much_there_is_none(annotation: Any) -> None:
    assert glance_type(shape_of(annotation)) is None


def test_of_classes_that_lead_to_the_same_ones_each_is_looked_at_once() -> None:
    kind: Any = int
    for number in range(40):  # 2 to the 40th paths
        kind = make_dataclass(f"Level{number}", [("one", kind), ("other", kind)])
    assert glance_type(shape_of(kind)) is not None
