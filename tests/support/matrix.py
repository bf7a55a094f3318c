"""Each annotation that people use, in each place, with each kind of value in it: what comes of them all."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import io
import ipaddress
import os
import pathlib
import typing
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import attrs
import msgspec

import seqrpc

T = TypeVar("T")


def of(generic: Any, *arguments: Any) -> Any:
    """Return a generic type with its arguments, which are known only here."""
    return generic[arguments if len(arguments) > 1 else arguments[0]]


class Token(seqrpc.Service):
    """An object that is given away."""

    @seqrpc.method
    async def look(self) -> str:
        return "looked"


async def count() -> AsyncIterator[int]:
    for number in range(3):
        yield number


@dataclasses.dataclass
class Inner:
    """A kind of value that stands inside others: how one is made, and how it is known again."""

    name: str
    annotation: Any
    make: Callable[[], Any]
    is_same: Callable[[Any], Awaitable[bool]]


async def _is_null_device(got: Any) -> bool:
    return type(got) is seqrpc.OwnedFd and os.path.samestat(os.fstat(got.fileno()), os.stat(os.devnull))


async def _is_buffer(got: Any) -> bool:
    return type(got) is seqrpc.Buffer and bytes(got) == b"abc"


async def _is_view(got: Any) -> bool:
    return type(got) is memoryview and bytes(got) == b"abc"


async def _is_stream(got: Any) -> bool:
    return isinstance(got, seqrpc.Stream) and [item async for item in got] == [0, 1, 2]


async def _is_token(got: Any) -> bool:
    return bool(await got.look() == "looked")


async def _is_five(got: Any) -> bool:
    return type(got) is int and got == 5


PLAIN = Inner("plain", int, lambda: 5, _is_five)

LIVING = (
    Inner(
        "`OwnedFd`",
        seqrpc.OwnedFd,
        lambda: seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY)),
        _is_null_device,
    ),
    Inner("`Buffer`", seqrpc.Buffer, lambda: seqrpc.Buffer.copy_of(b"abc"), _is_buffer),
    Inner("`memoryview`", memoryview, lambda: seqrpc.Buffer.copy_of(b"abc"), _is_view),
    Inner("stream", AsyncIterator[int], count, _is_stream),
    Inner("service", Token, Token, _is_token),
)

INNERS = (PLAIN, *LIVING)


# What has no parts


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    ANN = "ann"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Mode(enum.IntFlag):
    READ = 4
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass(frozen=True)
class Key:
    x: int


class Shape(msgspec.Struct):
    name: str


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


class Line(msgspec.Struct, tag=True, tag_field="kind"):
    length: float


class Row(msgspec.Struct, tag=True, array_like=True):
    x: int


class Folder(TypedDict):
    name: str
    folders: list[Folder]


@attrs.define
class Secret:
    _x: int


class Mask(enum.Flag):
    LOW = 1
    HIGH = 0xF0


@dataclasses.dataclass
class Initial:
    x: int
    scale: dataclasses.InitVar[int] = 1


class Odd(enum.Enum):
    ONE = 1
    TWO = "two"


class Pair(NamedTuple):
    a: int
    b: str = "b"


class Movie(TypedDict):
    title: str
    year: typing.NotRequired[int]


@attrs.define
class Song:
    title: str
    _year: int = 1970


@dataclasses.dataclass
class Node:
    name: str
    next: Node | None = None
    children: list[Node] = dataclasses.field(default_factory=list)


UserId = NewType("UserId", int)
Numbers = list[int]
Json: Any = of(dict, str, "Json") | of(list, "Json") | str | int | float | bool | None
_alias_type: Any = getattr(typing, "TypeAliasType", None)  # since 3.12
Tree: Any = _alias_type("Tree", "list[Tree] | int") if _alias_type else Json

MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)

LEAVES: tuple[tuple[str, Any, Any], ...] = (
    ("`None`", None, None),
    ("`bool`", bool, True),
    ("`int`", int, -(2**63)),
    ("`float`", float, 1.5),
    ("`str`", str, "ä\n"),
    ("`bytes`", bytes, b"\xff"),
    ("`bytearray`", bytearray, bytearray(b"x")),
    ("`datetime`, aware", dt.datetime, MOMENT),
    ("`datetime`, naive", dt.datetime, dt.datetime(2026, 1, 2, 3, 4, 5)),  # noqa: DTZ001 - that is the point
    ("`date`", dt.date, dt.date(2026, 1, 2)),
    ("`time`", dt.time, dt.time(3, 4, 5)),
    ("`timedelta`", dt.timedelta, dt.timedelta(days=-1, seconds=2)),
    ("`UUID`", uuid.UUID, uuid.UUID(int=5)),
    ("`Decimal`", decimal.Decimal, decimal.Decimal("1.50")),
    ("`pathlib.Path`", pathlib.Path, pathlib.Path("/a/b")),
    ("`pathlib.Path`, not UTF-8", pathlib.Path, pathlib.Path(os.fsdecode(b"/\xff"))),
    ("`pathlib.PurePosixPath`", pathlib.PurePosixPath, pathlib.PurePosixPath("a")),
    ("`ipaddress.IPv4Address`", ipaddress.IPv4Address, ipaddress.IPv4Address("10.0.0.1")),
    ("`ipaddress.IPv6Network`", ipaddress.IPv6Network, ipaddress.IPv6Network("fe80::/10")),
    ("`IPv4Address | IPv6Address`", ipaddress.IPv4Address | ipaddress.IPv6Address, ipaddress.IPv6Address("::1")),
    ("`Enum` of strings", Colour, Colour.RED),
    ("`IntEnum`", Level, Level.LOW),
    ("`StrEnum`", Name, Name.ANN),
    ("`Flag`", Access, Access.READ | Access.WRITE),
    ("`IntFlag`", Mode, Mode.READ | Mode.WRITE),
    ('`Literal["a", 1]`', Literal["a", 1], "a"),
    ("`NewType` of `int`", UserId, UserId(5)),
    ("`list[int]`", list[int], [1, 2]),
    ("alias `Numbers = list[int]`", Numbers, [1, 2]),
    ("`set[str]`", set[str], {"a"}),
    ("`frozenset[int]`", frozenset[int], frozenset({1})),
    ("`tuple[int, str]`", tuple[int, str], (1, "a")),
    ("`dict[str, list[int]]`", dict[str, list[int]], {"a": [1]}),
    ("`dict[tuple[int, int], int]`", dict[tuple[int, int], int], {(1, 2): 3}),
    ("`dict[Colour, int]`", dict[Colour, int], {Colour.RED: 1}),
    ("`dict[Path, int]`", dict[pathlib.Path, int], {pathlib.Path("a"): 1}),
    ("`dict[UUID, int]`", dict[uuid.UUID, int], {uuid.UUID(int=5): 1}),
    ("`dict[Flag, int]`", dict[Access, int], {Access.READ: 1}),
    ("`dict[FrozenDataclass, int]`", dict[Key, int], {Key(1): 2}),
    ("`set[FrozenDataclass]`", set[Key], {Key(1)}),
    ("`set[list[int]]`", set[list[int]], None),
    ("dataclass", Point, Point(1, 2)),
    ("frozen dataclass", Key, Key(1)),
    ("recursive dataclass", Node, Node("a", Node("b"), [Node("c")])),
    ("`msgspec.Struct`", Shape, Shape("a")),
    ("tagged Struct", Circle, Circle(1.5)),
    ("union of tagged Structs", Circle | Square, Square(2.5)),
    ("`NamedTuple`", Pair, Pair(1, "c")),
    ("`TypedDict`", Movie, {"title": "M"}),
    ("`attrs`", Song, Song("a", 1999)),
    ("`attrs`, private field", Secret, Secret(1)),
    ("recursive `TypedDict`", Folder, {"name": "a", "folders": [{"name": "b", "folders": []}]}),
    ("`Flag` with a member of several bits", Mask, Mask.HIGH),
    ("`set[Any]`", set[Any], {(1, ("a",)), 2}),
    ("array-like and other tagged Structs", Circle | Row, Row(1)),
    (
        "`Annotated[dict[Path, int], Meta(max_length=1)]`",
        Annotated[dict[pathlib.Path, int], msgspec.Meta(max_length=1)],
        None,
    ),
    ("`Annotated[int, Meta(ge=0)]`", Annotated[int, msgspec.Meta(ge=0)], 5),
    ('`Annotated[str, "a note"]`', Annotated[str, "a note"], "x"),
    ("`int | str`", int | str, "x"),
    ("`int | float`", int | float, 5),
    ("`str | bytes`", str | bytes, b"x"),
    ("`str | datetime`", str | dt.datetime, "x"),
    ("`Point | Key`, untagged", Point | Key, Point(1)),
    ("`list[int] | tuple[int, int]`", list[int] | tuple[int, int], [1]),
    ("`tuple[int, int] | Annotated[int, Meta(ge=0)]`", tuple[int, int] | Annotated[int, msgspec.Meta(ge=0)], (1, 2)),
    ("recursive alias `Json`", Json, {"a": [1, {"b": None}]}),
    ("recursive `type Tree = list[Tree] | int`", Tree, [1, [2, []]]),
    ("`Any`", Any, {"a": [1, None]}),
    ("`object`", object, [1]),
    ("`LiteralString`", typing.LiteralString, "x"),
    ("`Callable[[], int]`", Callable[[], int], None),
    ("`Iterator[int]`", Iterator[int], None),
    ("`TextIO`", typing.TextIO, None),
    ("`io.BytesIO`", io.BytesIO, None),
    ("`Exception`", Exception, None),
    ("`complex`", complex, None),
    ("`Enum` of strings and integers", Odd, None),
    ("dataclass with an `InitVar`", Initial, None),
    ("Structs with tags in different fields", Circle | Line, None),
    ("`collections.deque`", collections.deque[int], None),
)
"""Name, annotation, and a value; None where there can be none, since it is refused."""


# What holds others


def _newtype(inner: Any) -> Any:
    return NewType("Many", of(list, inner))


def _named_tuple(inner: Any) -> Any:
    return NamedTuple("Held", [("x", inner), ("n", int)])


@dataclasses.dataclass
class Box(Generic[T]):
    x: T
    more: list[T] = dataclasses.field(default_factory=list)


class StructBox(msgspec.Struct, Generic[T]):
    x: T
    name: str = ""


class PairBox(NamedTuple, Generic[T]):
    x: T
    n: int = 0


class DictBox(TypedDict, Generic[T]):
    x: T


@attrs.define
class AttrsBox(Generic[T]):
    x: T


def _aliased(inner: Any) -> Any:
    return _alias_type("Many", of(list, inner)) if _alias_type else of(list, inner)


def _held(held: Any) -> Any:
    return held.x


def _first(held: Any) -> Any:
    return next(iter(held))


@dataclasses.dataclass
class Container:
    """An annotation that holds another: how it is written, how a value is made, and where the inner one is in it."""

    name: str
    annotate: Callable[[Any], Any]
    wrap: Callable[[Any, Any], Any]
    """Of the annotation and the inner value."""
    unwrap: Callable[[Any], Any]
    kind: Callable[[Any], type] = lambda annotation: typing.get_origin(annotation) or annotation
    """The class of what comes, by the annotation."""


def _a_list(_annotation: Any) -> type:
    return list


def _a_dict(_annotation: Any) -> type:
    return dict


def _frozen(inner: Any) -> Any:
    return dataclasses.make_dataclass("Held", [("x", inner)], frozen=True)


def _array_like(inner: Any) -> Any:
    return msgspec.defstruct("Held", [("x", inner)], array_like=True)


def _typed_dict(inner: Any) -> Any:
    return TypedDict("Held", {"x": inner})  # type: ignore[operator] # known only here


def _make(annotation: Any, value: Any) -> Any:
    return annotation(value)


CONTAINERS = (
    Container("`list[X]`", lambda x: of(list, x), lambda _a, v: [v], _first),
    Container("`Sequence[X]`", lambda x: of(collections.abc.Sequence, x), lambda _a, v: [v], _first, _a_list),
    Container("`Iterable[X]`", lambda x: of(collections.abc.Iterable, x), lambda _a, v: [v], _first, _a_list),
    Container("`tuple[X, ...]`", lambda x: of(tuple, x, ...), lambda _a, v: (v,), _first),
    Container("`tuple[int, X]`", lambda x: of(tuple, int, x), lambda _a, v: (1, v), lambda t: t[1]),
    Container("`set[X]`", lambda x: of(set, x), lambda _a, v: {v}, _first),
    Container("`frozenset[X]`", lambda x: of(frozenset, x), lambda _a, v: frozenset({v}), _first),
    Container("`dict[str, X]`", lambda x: of(dict, str, x), lambda _a, v: {"a": v}, lambda d: d["a"]),
    Container(
        "`Mapping[str, X]`",
        lambda x: of(collections.abc.Mapping, str, x),
        lambda _a, v: {"a": v},
        lambda d: d["a"],
        _a_dict,
    ),
    Container("`dict[X, int]`", lambda x: of(dict, x, int), lambda _a, v: {v: 1}, _first),
    Container("dataclass of X", lambda x: dataclasses.make_dataclass("Held", [("x", x), ("n", int, 0)]), _make, _held),
    Container("frozen dataclass of X", _frozen, _make, _held),
    Container("generic dataclass of X", lambda x: of(Box, x), lambda _a, v: Box(v), _held),
    Container("`Struct` of X", lambda x: msgspec.defstruct("Held", [("x", x)]), _make, _held),
    Container("tagged `Struct` of X", lambda x: msgspec.defstruct("Held", [("x", x)], tag=True), _make, _held),
    Container("`Struct` of X, `array_like`", _array_like, _make, _held),
    Container(
        "`Struct` of X, renamed", lambda x: msgspec.defstruct("Held", [("x", x)], rename={"x": "the-x"}), _make, _held
    ),
    Container("generic `Struct` of X", lambda x: of(StructBox, x), lambda _a, v: StructBox(v), _held),
    Container("`attrs` of X", lambda x: attrs.make_class("Held", {"x": attrs.field(type=x)}), _make, _held),
    Container("generic `attrs` of X", lambda x: of(AttrsBox, x), lambda _a, v: AttrsBox(v), _held),
    Container("`NamedTuple` of X", _named_tuple, lambda a, v: a(v, 1), _held),
    Container("generic `NamedTuple` of X", lambda x: of(PairBox, x), lambda _a, v: PairBox(v), _held),
    Container(
        "`TypedDict` of X",
        _typed_dict,
        lambda _a, v: {"x": v},
        lambda d: d["x"],
        _a_dict,
    ),
    Container("generic `TypedDict` of X", lambda x: of(DictBox, x), lambda _a, v: {"x": v}, lambda d: d["x"], _a_dict),
    Container("`NewType` of `list[X]`", _newtype, lambda _a, v: [v], _first, _a_list),
    Container("`type Many = list[X]`", _aliased, lambda _a, v: [v], _first, _a_list),
    Container(
        '`Annotated[list[X], "a note"]`',
        lambda x: of(Annotated, of(list, x), "a note"),
        lambda _a, v: [v],
        _first,
        _a_list,
    ),
    Container(
        "`Annotated[list[X], Meta(max_length=3)]`",
        lambda x: of(Annotated, of(list, x), msgspec.Meta(max_length=3)),
        lambda _a, v: [v],
        _first,
        _a_list,
    ),
    Container("`X | None`", lambda x: x | None, lambda _a, v: v, lambda v: v, lambda _a: object),
    Container("`X | str`", lambda x: x | str, lambda _a, v: v, lambda v: v, lambda _a: object),
    Container(
        "`X | Circle | Square`, tagged", lambda x: x | Circle | Square, lambda _a, v: v, lambda v: v, lambda _a: object
    ),
    Container("`list[X | dict[str, X]]`", lambda x: of(list, x | of(dict, str, x)), lambda _a, v: [v], _first),
    Container(
        "dataclass of X in a `Struct` in a list",
        lambda x: of(list, of(StructBox, of(Box, x))),
        lambda _a, v: [StructBox(Box(v))],
        lambda held: held[0].x.x,
    ),
)
