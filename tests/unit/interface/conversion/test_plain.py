"""What comes as plain data becomes what was annotated, or is an error."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Optional, Union

import msgspec
import pytest
from support.annotations import (
    Box,
    Circle,
    Color,
    Even,
    Level,
    Mixed,
    Movie,
    Pair,
    Point,
    Positive,
    Shape,
    Short,
    Square,
    converted,
)

from seqrpc.kernel.descriptors import OwnedFd

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
        (OwnedFd | str, 5, r"Expected `OwnedFd \| str`, got `int`"),
        (OwnedFd | Mixed, 5, r"Expected `OwnedFd \| Mixed`, got `int`"),
        (list[OwnedFd | str], ["a", 5], r"at `\$\[1\]`"),
        (Mixed, {"source": 5}, r"Expected `OwnedFd \| str`, got `int` - at `\$.source`"),
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
    "annotation, came, made",
    [
        (set[Any], [[1, 2], "a"], {(1, 2), "a"}),
        (set, [[1, [2, 3]]], {(1, (2, 3))}),
        (frozenset[tuple[Any, ...]], [[1, [2]]], frozenset({(1, (2,))})),
        (list[set[Any]], [[[1]], []], [{(1,)}, set()]),
    ],
)
def test_arrays_in_a_set_of_anything_are_tuples(annotation: Any, came: Any, made: Any) -> None:
    assert converted(came, annotation) == made


@pytest.mark.parametrize("came", [[{"a": 1}], [[{"a": 1}]], 5, {"a": 1}])
def test_what_has_no_hash_does_not_fit_a_set(came: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        converted(came, set[Any])
