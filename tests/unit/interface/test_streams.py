"""The base of the reading ends of streams, as whoever checks items sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest

from seqrpc.errors import InvalidParams, InvalidResult
from seqrpc.interface.conversion import Terms, convert
from seqrpc.interface.planning import plan
from seqrpc.interface.streams import ReceivedStream, checked

T_co = TypeVar("T_co", covariant=True)


class Items(ReceivedStream[T_co]):
    """The reading end of a stream without a loop: what came is here already."""

    def __init__(self, *came: Any) -> None:
        self._came = list(came)
        self._check: Callable[[list[Any]], list[Any]] = lambda items: items

    def _checked(self, check: Callable[[list[Any]], list[Any]]) -> None:
        self._check = check

    def __iter__(self) -> Iterator[T_co]:
        return iter(self._check(self._came))


def test_items_are_converted_by_the_check_that_the_stream_was_given() -> None:
    items: Items[str] = Items(1, 2)
    assert checked(items, lambda values: [str(value) for value in values]) is items
    assert list(items) == ["1", "2"]


def test_an_annotation_of_any_kind_of_stream_checks_its_items() -> None:
    planned = plan(Items[float])
    assert list(convert(Items(1, 2.5), planned)) == [1.0, 2.5]
    with pytest.raises(InvalidResult, match=r"an item of a stream .*: Expected `float`, got `str`"):
        list(convert(Items(1, "x"), planned))
    with pytest.raises(InvalidParams):
        list(convert(Items("x"), planned, Terms(InvalidParams)))
    with pytest.raises(msgspec.ValidationError, match="Expected a stream, got `list`"):
        convert([1], planned)


def test_items_of_no_type_are_left_as_they_come() -> None:
    items: Items[Any] = Items(1, "x")
    assert list(convert(items, plan(Items))) == [1, "x"]


def test_the_base_itself_reads_nothing() -> None:
    with pytest.raises(NotImplementedError):
        checked(ReceivedStream(), lambda values: values)
