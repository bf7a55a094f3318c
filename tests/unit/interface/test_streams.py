"""Streams as others see them: the base of the reading ends, and items of the object itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest

from seqrpc.errors import InvalidParams, InvalidResult
from seqrpc.interface.conversion import Terms, convert
from seqrpc.interface.planning import plan
from seqrpc.interface.streams import LocalItems, ReceivedStream, checked

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


async def count(log: list[str]) -> AsyncIterator[int]:
    try:
        yield 0
        yield 1
    finally:
        log.append("ended")


async def test_local_items_are_read_one_by_one_and_closed() -> None:
    log: list[str] = []
    items = LocalItems(count(log))
    assert aiter(items) is items
    assert [item async for item in items] == [0, 1]
    async with LocalItems(count(log)) as items:
        assert await anext(items) == 0
    assert log == ["ended", "ended"]
    await LocalItems(count(log)).aclose()
    assert LocalItems(count(log)).__qualname__ == "count", "as logs name what failed"


async def test_local_items_may_come_from_what_cannot_be_closed() -> None:
    class Two:
        """It begins anew each time."""

        def __aiter__(self) -> AsyncIterator[int]:
            return Iterated()

    class Iterated:
        left = 2

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            if self.left == 0:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    items = LocalItems(Two())
    assert await anext(items) == 1
    await items.aclose()
    assert await anext(items) == 0
    assert items.__qualname__.endswith("Two")
