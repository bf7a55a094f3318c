from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import os
import socket
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Annotated, Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar, Union

import msgspec
import pytest

from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.services.conversion import convert, descriptors_in, exact_type, plan, takes_descriptors

T = TypeVar("T")
Short = Annotated[str, msgspec.Meta(max_length=3)]
Positive = Annotated[int, msgspec.Meta(gt=0)]


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Shape(msgspec.Struct):
    name: str
    sides: int = 4


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Pair(NamedTuple):
    first: int
    second: str = "b"


class Movie(TypedDict):
    title: str
    year: typing.NotRequired[int]


@dataclasses.dataclass
class Holder:
    fd: OwnedFd
    spare: OwnedFd | None = None


class StructHolder(msgspec.Struct):
    fds: list[OwnedFd]


class PairHolder(NamedTuple):
    fd: OwnedFd


class DictHolder(TypedDict):
    fd: OwnedFd


@dataclasses.dataclass
class Mixed:
    source: OwnedFd | str
    name: str = "x"
    tags: list[str] = dataclasses.field(default_factory=list)
    length: int = dataclasses.field(init=False, default=7)


@dataclasses.dataclass
class Node:
    source: OwnedFd | str
    next: Node | None = None
    children: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Chicken:
    egg: Egg | None


@dataclasses.dataclass
class Egg:
    chicken: Chicken | None
    shell: OwnedFd | int


@dataclasses.dataclass
class Box(Generic[T]):
    item: T


@dataclasses.dataclass
class Even:
    source: OwnedFd | int

    def __post_init__(self) -> None:
        if isinstance(self.source, int) and self.source % 2:
            raise ValueError("odd")


@dataclasses.dataclass
class Unresolved:
    what: NoSuchName  # type: ignore[name-defined]  # noqa: F821


def converted(value: Any, annotation: Any) -> Any:
    return convert(value, plan(annotation))


MOMENT = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)
IDENTIFIER = uuid.UUID(int=5)


@pytest.mark.parametrize(
    "annotation, value, expected",
    [
        (int, 5, 5),
        (float, 5, 5.0),
        (str, "x", "x"),
        (bytes, b"x", b"x"),
        (bytearray, b"x", bytearray(b"x")),
        (None, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (Color, "red", Color.RED),
        (Level, 1, Level.LOW),
        (Shape, {"name": "a"}, Shape("a", 4)),
        (Circle | Square, {"type": "square", "side": 1}, Square(1.0)),
        (Point, {"x": 1, "y": 2}, Point(1, 2)),
        (list[Point], [{"x": 1}], [Point(1, 0)]),
        (Pair, [1], Pair(1, "b")),
        (Movie, {"title": "x"}, {"title": "x"}),
        (dt.datetime, MOMENT, MOMENT),
        (dt.datetime, "2024-02-29T12:30:00", dt.datetime(2024, 2, 29, 12, 30)),  # noqa: DTZ001
        (dt.date, "2024-02-29", dt.date(2024, 2, 29)),
        (uuid.UUID, str(IDENTIFIER), IDENTIFIER),
        (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
        (int | str, "x", "x"),
        (int | str | None, None, None),
        (Optional[int], None, None),  # noqa: UP045
        (Union[int, list[int]], [1], [1]),  # noqa: UP007
        (Literal["a", "b"], "b", "b"),
        (Short, "abc", "abc"),
        (dict[int, Point], {5: {"x": 1}}, {5: Point(1)}),
        (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
        (set[int], [1, 2, 1], {1, 2}),
        (frozenset[str], ["a"], frozenset("a")),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (Sequence[int], [1], [1]),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (Box[Point], {"item": {"x": 1}}, Box(Point(1))),
    ],
)
def test_plain_data_becomes_what_was_annotated(annotation: Any, value: Any, expected: Any) -> None:
    result = converted(value, annotation)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    "annotation, value, message",
    [
        (int, "5", "Expected `int`, got `str`"),
        (int, True, "Expected `int`, got `bool`"),
        (int, None, "Expected `int`, got `null`"),
        (bytes, "eA==", "Expected `bytes`, got `str`"),
        (str, b"x", "Expected `str`, got `bytes`"),
        (Color, "blue", "Invalid enum value 'blue'"),
        (Shape, {}, "missing required field `name`"),
        (Point, {"x": 1, "y": "a"}, r"Expected `int`, got `str` - at `\$.y`"),
        (list[Point], [{"x": 1}, {"x": "a"}], r"at `\$\[1\].x`"),
        (dict[int, Point], {"a": {"x": 1}}, "Expected `int`, got `str` - at `key`"),
        (Literal["a"], "b", "Invalid enum value 'b'"),
        (Short, "abcd", "length <= 3"),
        (list[Positive], [1, 0], r">= 1 - at `\$\[1\]`"),
        (dt.datetime, "yesterday", "Invalid RFC3339"),
        (Pair, [], "length [>=1 ]*"),
        (Movie, {"year": 5}, "missing required field `title`"),
        (OwnedFd, 5, "Expected a descriptor, got `int`"),
        (OwnedFd | None, "x", "Expected a descriptor, got `str`"),
        (OwnedFd | str, 5, "Expected `str`, got `int`"),
        (OwnedFd | Mixed, 5, "Expected `object`, got `int`"),
        (list[OwnedFd | str], ["a", 5], r"at `\$\[1\]`"),
        (Mixed, {"source": 5}, r"Expected `str`, got `int` - at `\$.source`"),
        (Mixed, {}, "missing required field `source`"),
        (Even, {"source": 3}, "odd"),
    ],
)
def test_what_does_not_fit_is_an_error_with_its_place(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        converted(value, annotation)


def test_a_descriptor_is_nothing_else(pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        for annotation in (int, str, list[int], Point, Literal["a"], int | None):
            with pytest.raises(msgspec.ValidationError, match=r"Expected `.*`, got `OwnedFd`"):
                converted(fd, annotation)


@pytest.mark.parametrize(
    "annotation, build",
    [
        (OwnedFd, lambda fd: fd),
        (OwnedFd | None, lambda fd: fd),
        (Any, lambda fd: fd),
        (list[OwnedFd], lambda fd: [fd]),
        (dict[str, OwnedFd], lambda fd: {"a": fd}),
        (tuple[int, OwnedFd], lambda fd: (1, fd)),
        (set[OwnedFd], lambda fd: {fd}),
        (OwnedFd | str, lambda fd: fd),
        (OwnedFd | str | None, lambda fd: fd),
        (Optional[Union[OwnedFd, int]], lambda fd: fd),  # noqa: UP007, UP045
        (OwnedFd | Mixed, lambda fd: fd),
        (Annotated[OwnedFd | int, "a note"], lambda fd: fd),
        (dict[int, OwnedFd | str], lambda fd: {1: fd, 2: "b"}),
        (tuple[OwnedFd | str, ...], lambda fd: (fd, "b")),
        (Sequence[OwnedFd | str], lambda fd: [fd]),
        (Box[OwnedFd], Box),
        (Box[OwnedFd | int], Box),
        (Holder, Holder),
        (StructHolder, lambda fd: StructHolder([fd])),
        (PairHolder, PairHolder),
        (Mixed, Mixed),
        (Mixed | None, Mixed),
        (OwnedFd | Mixed, Mixed),
        (Mixed | int | None, Mixed),
        (list[Mixed], lambda fd: [Mixed(fd, "y", ["z"])]),
        (Node, lambda fd: Node("a", Node("b", children=[Node(fd)]))),
        (Chicken, lambda fd: Chicken(Egg(Chicken(None), fd))),
    ],
)
def test_descriptors_are_found_wherever_they_are(
    annotation: Any, build: Callable[[OwnedFd], Any], pipe: tuple[int, int]
) -> None:
    planned = plan(annotation)
    assert takes_descriptors(planned)
    with OwnedFd.dup(pipe[0]) as fd:
        value = build(fd)
        assert descriptors_in(value) == [fd]
        wire = msgspec.to_builtins(value, builtin_types=(OwnedFd,))
        result = convert(wire, planned)
        assert result == value
        assert type(result) is type(value)
        assert descriptors_in(result) == [fd]


def test_a_typed_dict_holds_descriptors(pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        assert converted({"fd": fd}, DictHolder) == {"fd": fd}


def test_every_choice_of_a_union_with_a_descriptor_is_tried() -> None:
    planned = plan(OwnedFd | int | Mixed | Node | None)
    assert convert(5, planned) == 5
    assert convert(None, planned) is None
    assert convert({"source": "a", "name": "b"}, planned) == Mixed("a", "b")
    assert convert({"source": "a", "name": "b", "next": None}, planned) == Mixed("a", "b")
    with pytest.raises(msgspec.ValidationError, match="; "):
        convert("x", planned)


def test_dataclasses_around_a_descriptor_keep_their_defaults() -> None:
    planned = plan(Mixed)
    first, second = convert({"source": "a"}, planned), convert({"source": "a"}, planned)
    assert first == Mixed("a")
    assert first.tags is not second.tags


@pytest.mark.parametrize(
    "annotation",
    [int, str, list[int], dict[str, Point], Point, Shape, Color, Pair, Movie, int | str | None, None, dt.datetime],
)
def test_types_without_room_for_descriptors_are_known(annotation: Any) -> None:
    assert not takes_descriptors(plan(annotation))


@pytest.mark.parametrize("annotation", [Any, list, dict, dict[str, Any], Box])
def test_types_that_say_nothing_may_hold_descriptors(annotation: Any) -> None:
    assert takes_descriptors(plan(annotation))


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
        collections.abc.AsyncIterator[int],
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


def test_exact_types_need_no_conversion() -> None:
    assert [exact_type(plan(annotation)) for annotation in (int, str, bool, bytes, None)] == [
        int,
        str,
        bool,
        bytes,
        type(None),
    ]
    for annotation in (float, list[int], Point, Any, OwnedFd, Level, bytearray, int | None):
        assert exact_type(plan(annotation)) not in (int, str, bool, bytes, type(None), float, OwnedFd)


def test_descriptors_are_found_in_any_value(pipe: tuple[int, int]) -> None:
    fds = [OwnedFd.dup(pipe[0]) for _ in range(7)]
    try:
        value = {
            fds[0]: [fds[1], 5, (fds[2],)],
            "b": {fds[3], "x"},
            "c": frozenset({fds[4]}),
            "d": StructHolder([fds[5]]),
            "e": Holder(fds[6]),
            "f": Point,
        }
        found = descriptors_in(value)
        assert len(found) == 7
        assert set(found) == set(fds)
    finally:
        close_all(fds)


def test_descriptors_are_found_once_in_a_value_that_holds_itself_and_at_any_depth(pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        circle: list[Any] = [fd]
        circle.append(circle)
        assert descriptors_in(circle) == [fd]
        deep: Any = fd
        for _ in range(5_000):
            deep = [deep]
        assert descriptors_in(deep) == [fd]
    assert descriptors_in(os) == []
