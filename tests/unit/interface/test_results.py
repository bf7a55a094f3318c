"""Results are compared with their annotations where they are made."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, Flag
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import attrs
import msgspec
import pytest
from support.daemons import on_a_pair

import seqrpc
from seqrpc.errors import InvalidResult
from seqrpc.interface.planning import plan
from seqrpc.interface.results import ResultCheck, _Looking
from seqrpc.protocol import codings


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True)
class Key:
    x: int


class Shape(msgspec.Struct):
    points: list[Point]


class Pair(NamedTuple):
    a: int
    b: str


class Held(seqrpc.Service):
    pass


@dataclass
class Both:
    held: Held
    fd: seqrpc.OwnedFd | None


MADE: list[int] = []


@dataclass
class Told:
    x: int

    def __post_init__(self) -> None:
        MADE.append(self.x)


class Named(Told):
    pass


class Far(Point):
    pass


class Markup(str):
    __slots__ = ()


class Number(int):
    pass


class Ratio(float):
    pass


class Digest(bytes):
    pass


class Moment(datetime):
    pass


@dataclass
class Whole:
    told: Told
    view: memoryview | None = None


class Streaming(msgspec.Struct):
    items: AsyncIterator[int]


async def items() -> AsyncIterator[int]:
    yield 1


def check(annotation: Any, result: Any) -> None:
    ResultCheck("S.m", plan(annotation)).check(result)


@pytest.mark.parametrize(
    "annotation, result",
    [
        (int, 1),
        (float, 1),
        (str, "a"),
        (None, None),
        (Any, object()),
        (bytes, bytearray(b"x")),
        (list[int], (1, 2)),
        (set[int], {1}),
        (tuple[int, ...], [1]),
        (dict[str, Point], {"a": Point(1)}),
        (Point, Point(1)),
        (Point, {"x": 1}),
        (set[Key], {Key(1)}),
        (int, 2**64),  # is told where it is sent
        (Shape, Shape([Point(1)])),
        (Pair, Pair(1, "a")),
        (Colour, Colour.RED),
        (datetime, datetime.now(UTC)),
        (int | None, None),
        (Held, Held()),
        (Both, Both(Held(), None)),
        (list[Held], [Held()]),
        (memoryview, b"x"),
        (str, Markup("x")),
        (Literal["x"], Markup("x")),
        (int | str, Markup("x")),
        (int, Number(1)),
        (float, Ratio(1)),
        (bytes, Digest(b"x")),
        (datetime, Moment.now(UTC)),
        (datetime | None, Moment(2026, 1, 1)),
        (Point, Point(Number(1))),
        (Told, Named(1)),
        (tuple[Told, Point], (Told(1), Far(1))),
        (tuple[Told, dict[str, Any]], (Told(1), Shape([]))),
        (tuple[Told, datetime], (Told(1), Moment.now(UTC))),
    ],
    ids=str,
)
def test_what_a_caller_would_take_fits(annotation: Any, result: Any) -> None:
    check(annotation, result)


@pytest.mark.parametrize(
    "annotation, result, reason",
    [
        (int, "text", r"S.m returned what does not fit its annotation: Expected `int`, got `str`"),
        (int, 1.5, "got `float`"),
        (int, True, "got `bool`"),
        (None, 1, "Expected `null`"),
        (list[int], [object()], r"Expected `int`, got `object` - at `\$\[0\]`"),
        (list[int], [1, "a"], r"at `\$\[1\]`"),
        (Point, Point("a"), r"Expected `int`, got `str` - at `\$.x`"),  # type: ignore[arg-type]
        (Shape, Shape([Point(1, None)]), r"at `\$.points\[0\].y`"),  # type: ignore[arg-type]
        (Colour, "blue", "blue"),
        (seqrpc.OwnedFd, 7, "Expected an OwnedFd, got `int`"),
        (seqrpc.OwnedFd | None, 7, "Expected an OwnedFd, got `int`"),
        (list[seqrpc.OwnedFd], [7], r"Expected an OwnedFd, got `int` - at `\$\[0\]`"),
        (seqrpc.Buffer, b"x", "Expected a buffer, got `bytes`"),
        (Held, 1, "Expected a service, got `int`"),
        (AsyncIterator[int], [1], "Expected a stream, got `list`"),
    ],
    ids=str,
)
def test_what_it_would_not_take_does_not(annotation: Any, result: Any, reason: str) -> None:
    with pytest.raises(InvalidResult, match=reason):
        check(annotation, result)


def test_living_values_fit() -> None:
    with open(os.devnull, "rb") as file, seqrpc.OwnedFd.dup(file) as fd, seqrpc.Buffer.allocate(1) as buffer:
        for annotation, result in ((seqrpc.OwnedFd, fd), (seqrpc.Buffer, buffer)):
            check(annotation, result)
            check(annotation | None, result)
    stream = items()
    check(AsyncIterator[int], stream)
    check(Streaming, Streaming(stream))


class Wrong(seqrpc.Service):
    @seqrpc.method
    async def number(self) -> int:
        return "text"  # type: ignore[return-value]

    @seqrpc.method
    def plain(self) -> list[int]:
        return [1, "a"]  # type: ignore[list-item]

    @seqrpc.method
    async def descriptor(self) -> seqrpc.OwnedFd:
        return 7  # type: ignore[return-value]

    @seqrpc.method
    async def beside(self, fd: seqrpc.OwnedFd) -> dict[str, int]:
        return {"fd": seqrpc.OwnedFd.dup(fd)}  # type: ignore[dict-item]

    @seqrpc.method(oneway=True)
    async def forgotten(self) -> None:
        return 1  # type: ignore[return-value]


@pytest.mark.parametrize("method", ["number", "plain", "descriptor"])
async def test_a_result_that_does_not_fit_is_internal_and_the_log_says_what_it_was(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_a_pair(Wrong()) as connection:
        with caplog.at_level(logging.ERROR), pytest.raises(seqrpc.Internal):
            await connection.call(f"Wrong.{method}")
        assert f"Wrong.{method} returned what does not fit its annotation: Expected" in caplog.text
        await connection.notify("Wrong.forgotten")
        assert await connection.call("rpc.ping") is None


async def test_descriptors_in_a_result_that_does_not_fit_are_closed(pipe: tuple[int, int]) -> None:
    async with on_a_pair(Wrong()) as connection:
        with pytest.raises(seqrpc.Internal), seqrpc.OwnedFd.dup(pipe[0]) as fd:
            await connection.call("Wrong.beside", fd)


def test_a_file_is_no_descriptor_and_it_is_said_how_it_becomes_one() -> None:
    with open(os.devnull, "rb") as file:
        for annotation, result, place in (
            (seqrpc.OwnedFd, file, ""),
            (seqrpc.OwnedFd | None, file, ""),
            (seqrpc.OwnedFd | str, file, ""),
            (list[seqrpc.OwnedFd], [file], r" - at `\$\[0\]`"),
            (Both, Both(Held(), file), r" - at `\$\.fd`"),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidResult, match=rf"got `BufferedReader` \(seqrpc\.OwnedFd\.dup .*\){place}$"):
                check(annotation, result)


def test_code_of_the_application_does_not_run_for_a_look() -> None:
    fitting, wrong = Told(1), Told("a")  # type: ignore[arg-type]
    MADE.clear()
    for annotation, wrap in (
        (Told, lambda told: told),
        (list[Told], lambda told: [told]),
        (tuple[Told, seqrpc.OwnedFd | None], lambda told: (told, None)),
        (Whole, Whole),
        (Told | None, lambda told: told),
    ):
        check(annotation, wrap(fitting))
        with pytest.raises(InvalidResult, match=r"Expected `int`, got `str` - at `\$.*\.x`"):
            check(annotation, wrap(wrong))
    with pytest.raises(InvalidResult, match="Expected `object`, got `int`"):
        check(Told, 1)
    assert MADE == []


def remembered(value: Any) -> int:
    MADE.append(value)
    return value  # type: ignore[no-any-return]


@attrs.define
class Converted:
    x: int = attrs.field(converter=remembered)


def test_converters_of_attrs_do_not_run_for_a_look() -> None:
    made = Converted(1)
    MADE.clear()
    check(Converted, made)
    object.__setattr__(made, "x", "a")
    with pytest.raises(InvalidResult, match=r"Expected `int`, got `str` - at `\$\[1\]\.x`"):
        check(list[Converted | None], [None, made])
    assert MADE == []


class Access(Flag):
    READ = 1
    WRITE = 2


class Renamed(msgspec.Struct, rename="camel", tag="r"):
    first_name: str
    view: memoryview | None = None


class Listed(msgspec.Struct, array_like=True):
    first_name: str
    view: memoryview | None = None


class Typed(TypedDict):
    x: int
    view: NotRequired[memoryview]


class Tuple(NamedTuple):
    x: int
    view: memoryview | None = None


@pytest.mark.parametrize(
    "annotation, right, wrong",
    [
        (Path, Path("/x"), 5),
        (dict[Path, int], {Path("/x"): 1}, {5: 1}),
        (dict[IPv4Address, Held], {IPv4Address("127.0.0.1"): Held()}, {5: Held()}),
        (list[Path | None], [None, Path("/x")], [5]),
        (tuple[Path, seqrpc.OwnedFd | None], (Path("/x"), None), (Path("/x"), 1)),
        (IPv4Address | IPv6Address, IPv6Address("::1"), 5),
        (str | bytes, b"x", 5),
        (str | bytes, "x", 5),
        (Access, Access.READ | Access.WRITE, "READ"),
        (set[Access], {Access.READ}, ["x"]),
        (Iterable[int], [1], ["a"]),
        (Renamed, Renamed("a"), Renamed(5)),  # type: ignore[arg-type]
        (Renamed | int, Renamed("a"), Renamed(5)),  # type: ignore[arg-type]
        (Listed, Listed("a"), Listed(5)),  # type: ignore[arg-type]
        (Typed, {"x": 1}, {"x": "a"}),
        (Typed, {"x": 1, "view": b"x"}, {"view": b"x"}),
        (Tuple, Tuple(1), Tuple("a")),  # type: ignore[arg-type]
        (dict[str, memoryview | int], {"a": 1}, {"a": "b"}),
        (dict[tuple[int, str], Held | None], {(1, "a"): None}, {(1, 2): None}),
        (tuple[Held | None, Markup | None], (None, None), (1, None)),
        (seqrpc.Buffer | int, 5, "x"),
        (list[seqrpc.Buffer], [], [b"x"]),
    ],
    ids=str,
)
def test_results_are_looked_at_as_they_are_sent(annotation: Any, right: Any, wrong: Any) -> None:
    if "Markup" in str(annotation):
        annotation = tuple[Held | None, str | None]
        right = (Held(), Markup("x"))
    check(annotation, right)
    with pytest.raises(InvalidResult, match=r"S\.m returned what does not fit its annotation"):
        check(annotation, wrong)


@dataclass
class Node:
    next: Any
    view: memoryview | None = None


def test_what_holds_itself_is_left_to_whoever_sends_it() -> None:
    array: list[Any] = []
    array.append(array)
    table: dict[str, Any] = {}
    table["a"] = table
    node = Node(None)
    node.next = node
    for annotation, result in (
        (list[list[int]], array),
        (list[seqrpc.OwnedFd], array),
        (dict[str, seqrpc.OwnedFd | str], table),
        (dict[str, Any], table),
        (Node, node),
    ):
        check(annotation, result)


def test_the_text_is_bounded_whatever_was_returned() -> None:
    for annotation, result in (
        (Literal["a"], "x" * 100_000),
        (list[Colour], ["x" * 100_000]),
        (dict[str, seqrpc.OwnedFd | int], {"x\n" * 100_000: "a"}),
        (Renamed, {"type": "q" * 100_000, "firstName": "a"}),
    ):
        with pytest.raises(InvalidResult) as caught:
            check(annotation, result)
        assert len(str(caught.value)) < 1_000
        assert "\n" not in str(caught.value)


def test_a_type_whose_values_fit_need_not_be_looked_at() -> None:
    assert ResultCheck("S.m", plan(int)).exact is int
    assert ResultCheck("S.m", plan(float)).exact is None


async def test_only_what_is_read_of_a_stream_is_looked_at() -> None:
    with pytest.raises(NotImplementedError):
        _Looking().item_check(plan(int))


@attrs.define
class Private:
    _x: int
    y: int = 0


class Kind(Enum):
    A = (1, 2)


def kind_of_number(_number: int) -> Kind:
    return Kind.A


@dataclass
class Holds:
    private: Private
    kind: Any = None


@pytest.mark.parametrize(
    "annotation, result", [(Private, Private(1)), (list[Private], [Private(1)]), (Holds, Holds(Private(1)))]
)
def test_private_fields_of_attrs_fit(annotation: Any, result: Any) -> None:
    check(annotation, result)
    with pytest.raises(InvalidResult):
        check(Private, Private("a"))  # type: ignore[arg-type]


def test_an_enum_that_travels_as_something_else_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codings, "_registered", {})
    codings._search.cache_clear()
    seqrpc.register_type(Kind, wire_type=int, encode=lambda kind: kind.value[0], decode=kind_of_number)
    check(Kind, Kind.A)
    check(list[Kind], [Kind.A])
    check(Kind | None, None)
    with pytest.raises(InvalidResult):
        check(Kind, "a")
    codings._search.cache_clear()
