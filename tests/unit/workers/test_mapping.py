from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

from seqrpc.workers.mapping import Results


class Calls:
    """Calls that end when they are told to."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.cancelled: list[int] = []
        self.ends: dict[int, asyncio.Event] = {}

    async def __call__(self, item: int) -> str:
        self.made.append(item)
        end = self.ends[item] = asyncio.Event()
        try:
            await end.wait()
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        return f"of {item}"


async def double(item: int) -> int:
    if item == 13:
        raise ValueError("thirteen")
    return 2 * item


def mapped(call: Any, items: Any, *, ordered: bool = True, look_ahead: int = 3, progress: Any = None) -> Results[Any]:
    return Results(call, items, ordered=ordered, look_ahead=look_ahead, progress=progress)


async def numbers(count: int, closed: list[str] | None = None) -> AsyncIterator[int]:
    try:
        for number in range(count):
            await asyncio.sleep(0)
            yield number
    finally:
        if closed is not None:
            closed.append("closed")


@pytest.mark.parametrize("ordered", [True, False])
async def test_each_item_has_a_result(ordered: bool) -> None:
    for items in (range(10), iter(range(10)), numbers(10)):
        results = [each async for each in mapped(double, items, ordered=ordered)]
        assert sorted(results) == list(range(0, 20, 2))
    assert [each async for each in mapped(double, [])] == []


async def test_results_come_in_the_order_of_the_items() -> None:
    calls = Calls()
    async with mapped(calls, range(3)) as results:
        first = asyncio.ensure_future(anext(results))
        await comes_true(lambda: len(calls.made) == 3)
        calls.ends[1].set()
        await turns_of_the_loop()
        assert not first.done()
        calls.ends[0].set()
        assert await first == "of 0"
        assert await anext(results) == "of 1"


async def test_or_as_they_are_there() -> None:
    calls = Calls()
    async with mapped(calls, range(3), ordered=False) as results:
        first = asyncio.ensure_future(anext(results))
        await comes_true(lambda: len(calls.made) == 3)
        calls.ends[1].set()
        assert await first == "of 1"


async def test_no_more_calls_are_made_than_may_be_ahead() -> None:
    calls = Calls()
    async with mapped(calls, range(100), look_ahead=4) as results:
        assert calls.made == []
        first = asyncio.ensure_future(anext(results))
        await comes_true(lambda: calls.made)
        await turns_of_the_loop()
        assert calls.made == [0, 1, 2, 3]
        calls.ends[0].set()
        assert await first == "of 0"
        await turns_of_the_loop()
        assert calls.made == [0, 1, 2, 3], "the next is made when the next result is wanted"
    assert calls.cancelled == [1, 2, 3]


async def test_progress_is_told() -> None:
    told: list[int] = []
    async for _ in mapped(double, range(3), progress=told.append):
        assert told
    assert told == [1, 2, 3]


async def test_what_a_call_raises_ends_the_others() -> None:
    closed: list[str] = []
    results = mapped(double, numbers(20, closed))
    for number in range(13):
        assert await anext(results) == 2 * number
    with pytest.raises(ValueError, match="thirteen"):
        await anext(results)
    assert closed == ["closed"]
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_what_the_source_raises_ends_the_calls() -> None:
    calls = Calls()

    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        await anext(mapped(calls, broken()))
    assert set(calls.cancelled) == set(calls.made)


async def test_one_that_is_cancelled_cancels_its_calls() -> None:
    calls = Calls()
    closed: list[str] = []
    results = mapped(calls, numbers(10, closed))
    reading = asyncio.ensure_future(anext(results))
    await comes_true(lambda: len(calls.made) == 3)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert calls.cancelled == [0, 1, 2]
    assert closed == ["closed"]
    assert [each async for each in results] == []


async def test_what_is_left_is_closed_with_the_block_whatever_comes_of_it() -> None:
    async def stubborn(item: int) -> int:
        try:
            await asyncio.sleep(PATIENCE if item else 0)
        except asyncio.CancelledError:
            raise ValueError("not like this") from None
        return item

    async with mapped(stubborn, [0, 1, 2]) as results:
        assert await anext(results) == 0
    await results.aclose()
    assert [each async for each in results] == []


async def test_one_that_nobody_has_read_is_closed() -> None:
    async with mapped(double, [1]) as results:
        pass
    assert [each async for each in results] == []


class Bare:
    """An asynchronous iterator that cannot be closed."""

    def __aiter__(self) -> Bare:
        return self

    async def __anext__(self) -> int:
        return 1


async def test_a_source_that_cannot_be_closed_is_left() -> None:
    async with mapped(double, Bare()) as results:
        assert await anext(results) == 2


async def test_it_is_entered_by_async_with() -> None:
    with pytest.raises(TypeError, match="is entered by 'async with', not by 'with'"), mapped(double, []):  # type: ignore[attr-defined]
        pass


async def test_results_do_not_wait_for_items_that_are_slow_to_come() -> None:
    more = asyncio.Event()
    closed: list[str] = []

    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
            await more.wait()
            yield 2
            await asyncio.Event().wait()
        finally:
            closed.append("closed")

    for ordered in (True, False):
        more.clear()
        async with asyncio.timeout(PATIENCE), mapped(double, slow(), ordered=ordered) as results:
            assert await anext(results) == 2
            more.set()
            assert await anext(results) == 4
    assert closed == ["closed"] * 2
