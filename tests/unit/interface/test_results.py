"""Results are compared with their annotations where they are made."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, NamedTuple

import msgspec
import pytest
from support.daemons import on_a_pair

import seqrpc
from seqrpc.errors import InvalidResult
from seqrpc.interface.planning import plan
from seqrpc.interface.results import ResultCheck


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
        (dict[Key, int], {Key(1): 1}),  # cannot be told
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
        (list[int], [object()], r"Expected `int`, got `Something` - at `\$\[0\]`"),
        (list[int], [1, "a"], r"at `\$\[1\]`"),
        (Point, Point("a"), r"Expected `int`, got `str` - at `\$.x`"),  # type: ignore[arg-type]
        (Shape, Shape([Point(1, None)]), r"at `\$.points\[0\].y`"),  # type: ignore[arg-type]
        (Colour, "blue", "blue"),
        (seqrpc.OwnedFd, 7, "Expected a descriptor .*, got `int`"),
        (seqrpc.OwnedFd | None, 7, "Expected a descriptor .*, got `int`"),
        (list[seqrpc.OwnedFd], [7], r"Expected a descriptor .*, got `int` - at `\$\[0\]`"),
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
        for annotation, result in ((seqrpc.OwnedFd, fd), (seqrpc.OwnedFd, file), (seqrpc.Buffer, buffer)):
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


def test_code_of_the_application_does_not_run_for_a_look() -> None:
    results = [Told(1), Told("a")]  # type: ignore[arg-type]
    MADE.clear()
    for result in results:
        check(Told, result)
        check(list[Told], [result])
    with pytest.raises(InvalidResult, match="Expected `object`, got `int`"):
        check(Told, 1)
    assert MADE == []
