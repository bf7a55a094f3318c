from __future__ import annotations

import types
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
from support.sync import Notes

from seqrpc.blocking.driving import Driven, drive


async def add(a: int, b: int) -> int:
    return a + b


async def add_by_another(a: int, b: int) -> int:
    return await add(a, b)


class Pause:
    """What waits for whoever runs coroutines."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Ready:
    """What can be awaited, never waits, and cannot be closed."""

    def __await__(self) -> Any:
        return iter(())


def test_a_coroutine_that_never_waits_is_run_to_its_end() -> None:
    assert drive(add_by_another(2, 3), "m") == 5
    result: object = drive(Ready(), "m")
    assert result is None


def test_what_a_coroutine_raises_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        drive(fail(), "m")


def test_a_coroutine_that_waits_is_ended_and_said_to_need_a_loop() -> None:
    notes = Notes()

    async def wait() -> None:
        try:
            await Pause()
        finally:
            notes.note("finally")

    with pytest.raises(RuntimeError, match="m waits for something, and there is no event loop here"):
        drive(wait(), "m")
    assert notes.what == ["finally"]


def test_what_waits_and_cannot_be_closed_is_left() -> None:
    class Steps:
        def __iter__(self) -> Steps:
            return self

        def __next__(self) -> None:
            return None

    class Waits:
        def __await__(self) -> Any:
            return Steps()

    with pytest.raises(RuntimeError, match="waits for something"):
        drive(Waits(), "m")


def test_a_coroutine_that_waits_again_at_its_end_is_said_to_need_a_loop() -> None:
    async def waits_on() -> None:
        try:
            await Pause()
        finally:
            await Pause()

    with pytest.raises(RuntimeError, match="m waits for something"):
        drive(waits_on(), "m")


def test_a_coroutine_that_is_made_of_a_generator_is_driven_too() -> None:
    @types.coroutine
    def made() -> Generator[Any, Any, int]:
        yield from ()
        return 7

    result: int = drive(made(), "m")
    assert result == 7


def test_what_cannot_be_awaited_is_said_to_be_none() -> None:
    with pytest.raises(TypeError, match="m: an object of int cannot be awaited"):
        drive(3, "m")


async def count(to: int, notes: Notes) -> AsyncIterator[int]:
    try:
        for number in range(to):
            yield number
    finally:
        notes.note("finally")


def test_an_async_generator_that_never_waits_is_an_iterator() -> None:
    notes = Notes()
    assert list(Driven(count(3, notes), "m")) == [0, 1, 2]
    assert notes.what == ["finally"]


def test_closing_ends_the_generator() -> None:
    notes = Notes()
    items = Driven(count(3, notes), "m")
    assert next(items) == 0
    items.close()
    assert notes.what == ["finally"]
    assert list(items) == []


def test_an_async_iterator_that_cannot_be_closed_is_left() -> None:
    class Two:
        def __init__(self) -> None:
            self.left = [1, 2]

        def __aiter__(self) -> Two:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    items = Driven(Two(), "m")
    assert next(items) == 1
    items.close()
    assert list(items) == [2]


def test_a_generator_that_waits_is_ended() -> None:
    notes = Notes()

    async def waits() -> AsyncIterator[int]:
        try:
            yield 1
            await Pause()
        finally:
            notes.note("finally")

    items = Driven(waits(), "m")
    assert next(items) == 1
    with pytest.raises(RuntimeError, match="m waits for something"):
        next(items)
    assert notes.what == ["finally"]
