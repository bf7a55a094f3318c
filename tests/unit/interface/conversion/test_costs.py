"""What one conversion may cost."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.annotations import (
    converted,
)

from seqrpc.errors import InvalidParams, InvalidResult
from seqrpc.interface import conversion
from seqrpc.interface.conversion import Terms
from seqrpc.interface.planning import listed, plan
from seqrpc.interface.results import ResultCheck
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import MAX_CONVERTED_VALUES
from seqrpc.protocol.received import ReceivedItems


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


class Checked(msgspec.Struct, tag=True):
    number: int

    def __post_init__(self) -> None:
        pass


class Other(msgspec.Struct, tag=True):
    pass


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let so many values be converted one by one, that all need not be made."""
    monkeypatch.setattr(conversion, "MAX_CONVERTED_VALUES", 100)
    return 100


COUNTED: list[tuple[Any, Any]] = [
    (Path, "a"),
    (Path | None, "a"),
    (OwnedFd | Path, "a"),
    (IPv4Network | IPv6Network, "fe80::/10"),
    (memoryview | None, b""),
]


@pytest.mark.parametrize("annotation, value", COUNTED, ids=str)
def test_a_value_counts_once_whatever_is_tried(annotation: Any, value: Any, most: int) -> None:
    assert len(converted([value] * most, list[annotation])) == most
    with pytest.raises(msgspec.ValidationError, match=f"^More than {most} values"):
        converted([value] * (most + 1), list[annotation])


def test_no_union_takes_what_runs_out_for_another_of_its_types(most: int) -> None:
    values = ["a"] * (most + 1)
    for annotation in (
        list[Path] | int | Any,
        list[Path | Any],
        list[OwnedFd | Path] | Any,
        dict[str, list[Path]] | Any,
    ):
        value: Any = {"a": values} if "dict" in str(annotation) else values
        with pytest.raises(msgspec.ValidationError, match=f"^More than {most} values"):
            converted(value, annotation)


@pytest.mark.parametrize(
    "annotation, made",
    [
        (Path, Path("a")),
        (IPv4Network | IPv6Network, ip_network("fe80::/10")),
        (OwnedFd | str, "a"),
    ],
    ids=str,
)
def test_who_returns_more_values_than_its_caller_converts_is_told(annotation: Any, made: Any, most: int) -> None:
    check = ResultCheck("many", plan(list[annotation]))
    check.check([made] * most)
    with pytest.raises(InvalidResult, match=f"many returned .*More than {most} values"):
        check.check([made] * (most + 1))


def test_who_returns_what_its_caller_need_not_count_may_return_more(most: int) -> None:
    for annotation in (list[Checked], list[Checked | Other], list[Checked | None]):
        ResultCheck("many", plan(annotation)).check([Checked(1)] * (most + 1))
        assert len(converted([{"type": "Checked", "number": 1}] * (most + 1), annotation)) == most + 1


def test_fewer_items_are_converted_at_once_if_they_are_too_many(most: int) -> None:
    items = ReceivedItems()
    items.check = functools.partial(conversion._check_items, listed(plan(list[Path])), Terms(InvalidParams))
    items.add([["a"] * (most // 3)] * 10, [])
    given = []
    while items:
        if items.is_ready:
            given.append(items.take())
        else:
            items.look()
    assert given == [[Path("a")] * (most // 3)] * 10
    assert items.failure is None
    items.add([["a"], ["a"] * (most + 1)], [])
    while not items.failure:
        items.look()
    assert items.take() == [Path("a")]
    assert f"an item of a stream: More than {most} values" in str(items.failure)
