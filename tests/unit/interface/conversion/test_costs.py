"""What one conversion may cost."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from support.annotations import (
    converted,
)

from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import MAX_CONVERTED_VALUES


class Suit(enum.Enum):
    HEARTS = "hearts"


@dataclasses.dataclass
class Chain:
    """Holds itself, and may hold a stream, and so is made in Python at every level."""

    next: list[Chain]
    items: AsyncIterator[int] | None = None


def test_an_error_does_not_quote_all_of_what_came() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        converted({"a": ["x" * 1_000_000 + "y"]}, dict[str, list[Suit]])
    text = str(caught.value)
    assert text.startswith("Invalid enum value 'xxxx")
    assert text.endswith("xxxy' - at `$[...][0]`")
    assert len(text) < 1_100
    assert caught.value.__cause__ is None, "which would be logged, too"
    with pytest.raises(msgspec.ValidationError) as caught:
        converted("spades", Suit)
    assert str(caught.value) == "Invalid enum value 'spades'"


@pytest.mark.parametrize(
    "annotation, made, plain",
    [
        (list[OwnedFd | str], lambda number: ["x"] * number, True),
        (dict[str, list[list[OwnedFd | int]]], lambda number: {"a": [[1] * 10] * (number // 10)}, True),
        (Chain, lambda number: {"next": [{"next": [{"next": []}] * (number // 10 - 1)}] * 10}, False),
        (list[memoryview], lambda number: [b""] * number, False),
    ],
    ids=["union", "deeper", "dataclasses", "memory"],
)
def test_values_that_are_converted_one_by_one_are_counted_through_all_of_a_conversion(
    annotation: Any, made: Callable[[int], Any], plain: bool
) -> None:
    for _ in range(2):  # each conversion by itself
        value = made(100)
        assert converted(value, annotation) == value or not plain
    with pytest.raises(msgspec.ValidationError, match=f"More than {MAX_CONVERTED_VALUES} values"):
        converted(made(2 * MAX_CONVERTED_VALUES), annotation)


def test_as_many_values_as_may_be_are_converted() -> None:
    value = ["x"] * MAX_CONVERTED_VALUES
    assert converted(value, list[OwnedFd | str]) == value
    with pytest.raises(msgspec.ValidationError):
        converted([*value, "x"], list[OwnedFd | str])
    many = [1] * (MAX_CONVERTED_VALUES + 1)
    assert converted(many, list[int]) == many, "which is not done one by one"
