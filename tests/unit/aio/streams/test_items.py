"""Items as they come, one by one and checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.descriptors import Lender, owned, same_file
from support.packets import send_with, wire
from support.streams import END, Wrong, all_of, is_closed, next_item_of, reading, send_spilled, small

from seqrpc import (
    OwnedFd,
    TooLarge,
)
from seqrpc.aio.streams import Stream
from seqrpc.interface.streams import checked

# Items


async def test_items_come_in_order_one_or_more_to_a_packet() -> None:
    async with reading(wire(0, 1), wire(0, 2, 3, 4), wire(0, [5]), END) as (stream, raw):
        assert await all_of(stream) == [1, 2, 3, 4, [5]]
        assert stream.closed
        assert await is_closed(raw)


async def test_items_come_as_they_are_sent() -> None:
    async with reading() as (stream, raw):
        for number in range(20):
            task = await next_item_of(stream) if number % 2 else None
            raw.send(wire(0, number))
            assert (await anext(stream) if task is None else await task) == number


async def test_a_stream_that_is_over_stays_so() -> None:
    async with reading(END) as (stream, _raw):
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert await all_of(stream) == []


async def test_packets_of_unknown_kinds_are_ignored(pipe: tuple[int, int]) -> None:
    async with reading(wire(2, "later"), wire(0, 1)) as (stream, raw):
        send_with(raw, wire(7, [Lender(), Lender()]), pipe)
        raw.send(END)
        assert await all_of(stream) == [1]


async def test_descriptors_come_with_items_and_are_the_readers(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        send_with(raw, wire(0, Lender(), {"b": Lender()}), pipe)
        raw.send(END)
        first, second = await all_of(stream)
        for fd, number in zip((first, second["b"]), pipe, strict=True):
            assert same_file(fd, number)
            fd.close()


async def test_large_items_come_as_memory_files(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        send_spilled(raw, 0, b"x" * 100_000)
        send_spilled(raw, 0, b"y" * 100_000, Lender(), fds=pipe[:1])
        send_spilled(raw, 1, None)
        large, larger, fd = await all_of(stream)
        assert (large, larger) == (b"x" * 100_000, b"y" * 100_000)
        assert same_file(fd, pipe[0])
        fd.close()


async def test_an_item_over_the_limit_is_too_large_and_ends_the_stream(pipe: tuple[int, int]) -> None:
    async with reading(wire(0, 1)) as (stream, raw):
        length = send_spilled(raw, 0, b"x" * 200_000, Lender(), fds=pipe[:1])
        raw.send(wire(0, 2))
        assert await anext(stream) == 1
        with pytest.raises(TooLarge, match=f"at most 200000 bytes .max_message_bytes., this one {length}"):
            await anext(stream)
        assert stream.closed
        with pytest.raises(ConnectionResetError):  # what nobody read is thrown away by the kernel
            await is_closed(raw)


# Checks


async def test_items_are_checked_and_converted() -> None:
    async with reading(wire(0, 1, 2), wire(0, 3), END) as (stream, _raw):
        assert checked(stream, small) is stream
        assert await all_of(stream) == ["1", "2", "3"]


async def test_an_item_that_does_not_fit_comes_after_those_before_it_and_ends_the_stream() -> None:
    async with reading(wire(0, 1, 2, 30, 4), wire(0, 5), END) as (stream, raw):
        checked(stream, small)
        assert [await anext(stream), await anext(stream)] == ["1", "2"]
        with pytest.raises(Wrong, match="too large"):
            await anext(stream)
        assert await all_of(stream) == []
        assert stream.closed
        with pytest.raises(ConnectionResetError):
            await is_closed(raw)


async def test_descriptors_from_the_item_that_does_not_fit_on_are_closed(pipe: tuple[int, int]) -> None:
    def only_files(items: list[Any]) -> list[Any]:
        if any(not isinstance(item, OwnedFd) for item in items):
            raise Wrong
        return items

    async with reading() as (stream, raw):
        with owned(3) as fds:
            send_with(raw, wire(0, Lender(), [Lender()], Lender()), [fd.fileno() for fd in fds])
        checked(stream, only_files)
        (await anext(stream)).close()
        with pytest.raises(Wrong):
            await anext(stream)  # the watch on descriptors sees whether they were closed


async def test_items_that_fit_one_by_one_are_taken() -> None:
    def one(items: list[Any]) -> list[Any]:
        if len(items) > 1:
            raise Wrong
        return items

    async with reading(wire(0, 1, 2), END) as (stream, _raw):
        assert await all_of(checked(stream, one)) == [1, 2]


# What hostile reviewers found


async def test_a_message_of_a_great_many_items_leaves_others_their_turns() -> None:
    items = list(range(5_000))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with reading(wire(0, *items), END) as (stream, _raw):
        counting = asyncio.create_task(count())
        assert await all_of(checked(stream, lambda values: values)) == items
        assert turns >= 3
        counting.cancel()
        await asyncio.wait([counting])


async def test_what_a_method_returns_is_a_stream_for_type_checkers_too() -> None:
    async with reading(wire(0, 1), END) as (stream, _raw), Stream.of(stream) as same:
        assert same is stream

    async def another() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match="a stream was expected, got async_generator"):
        Stream.of(another())


async def test_a_stream_shows_what_state_it_is_in() -> None:
    async with reading(wire(0, 1)) as (opened, _raw):

        async def call() -> Stream[Any]:
            return opened

        stream: Stream[Any] = Stream(opening=call)
        assert repr(stream) == "<Stream unopened>"
        assert await stream.open() is stream
        assert repr(stream) == "<Stream open>"
        async with stream as same:
            assert same is stream
            assert not stream.closed
        assert stream.closed
        assert repr(stream) == "<Stream closed>"
