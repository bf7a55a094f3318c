"""Streams that are opened, passed on, and read elsewhere."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest
from support.packets import raw_pair, wire
from support.streams import END, Wrong, all_of, is_closed, next_item_of, reading, small, stream_on, watched_stream

from seqrpc import (
    ConnectionLost,
    LocalProtocolError,
)
from seqrpc.aio.streams import Stream, reader_of
from seqrpc.interface.streams import checked

# Passing on


async def test_a_detached_stream_is_over_here_and_goes_on_elsewhere() -> None:
    async with reading(wire(0, 1), wire(0, 2), END) as (stream, _raw):
        assert await anext(stream) == 1
        fd = reader_of(stream).detach()
        assert fd is not None
        assert stream.closed
        with pytest.raises(ConnectionLost, match="passed on"):
            await anext(stream)
        with pytest.raises(LocalProtocolError, match="was passed on already cannot be passed on"):
            reader_of(stream).detach()
        assert await all_of(Stream(fd, reader_of(stream)._reader)) == [2]


async def test_a_stream_that_was_never_read_can_be_detached_and_taken_back() -> None:
    async with reading(wire(0, 1), END) as (stream, _raw):
        for _ in range(2):
            fd = reader_of(stream).detach()
            assert fd is not None
            reader_of(stream).attach(fd)
        assert not stream.closed
        assert await all_of(stream) == [1]


async def test_a_stream_that_was_watched_can_be_detached_and_taken_back() -> None:
    stream, raw = await watched_stream()
    fd = reader_of(stream).detach()
    assert fd is not None
    reader_of(stream).attach(fd)
    task = await next_item_of(stream)
    raw.send(wire(0, 1))
    assert await task == 1
    raw.send(END)
    assert await all_of(stream) == []
    raw.close()


async def test_a_stream_in_use_is_not_detached() -> None:
    async with reading() as (stream, raw):
        task = await next_item_of(stream)
        with pytest.raises(LocalProtocolError, match="that a task is reading cannot be passed on"):
            reader_of(stream).detach()
        raw.send(wire(0, 1, 2))
        assert await task == 1
        assert reader_of(stream).detach() is None, "an item was received that nobody took"
        assert await anext(stream) == 2
        await stream.aclose()
        with pytest.raises(LocalProtocolError, match="is closed, or was read to its end, cannot be passed on"):
            reader_of(stream).detach()


# Opening


async def test_the_call_is_made_when_the_first_item_is_asked_for() -> None:
    async with reading(wire(0, 1), END) as (opened, _raw):
        calls = []

        async def call() -> Stream[Any]:
            calls.append(1)
            return opened

        stream: Stream[Any] = Stream(opening=call)
        assert repr(stream) == "<Stream unopened>"
        assert reader_of(stream).detach() is None
        assert calls == []
        assert await all_of(stream) == [1]
        assert calls == [1]
        assert opened.closed


async def test_open_makes_the_call_so_that_the_stream_can_be_passed_on() -> None:
    async with reading(wire(0, 1), END) as (opened, _raw):
        checked(opened, small)

        async def call() -> Stream[Any]:
            return opened

        stream: Stream[Any] = Stream(opening=call)
        assert await stream.open() is stream
        assert await stream.open() is stream
        assert repr(stream) == "<Stream open>"
        fd = reader_of(stream).detach()
        assert fd is not None
        reader_of(stream).attach(fd)
        assert await all_of(stream) == ["1"], "the checks came along"
        assert repr(stream) == "<Stream closed>"


async def test_a_call_that_fails_ends_the_stream() -> None:
    async def call() -> Stream[Any]:
        raise Wrong("no stream")

    stream: Stream[Any] = Stream(opening=call)
    with pytest.raises(Wrong, match="no stream"):
        await anext(stream)
    assert stream.closed
    assert await all_of(stream) == []


async def test_a_call_that_is_cancelled_is_made_again_by_the_next_to_read() -> None:
    async with reading(wire(0, 1), END) as (opened, _raw):
        called = asyncio.Event()
        calls = 0

        async def call() -> Stream[Any]:
            nonlocal calls
            calls += 1
            if calls == 1:
                called.set()
                await asyncio.Event().wait()
            return opened

        stream: Stream[Any] = Stream(opening=call)
        task = asyncio.ensure_future(anext(stream))
        await called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await all_of(stream) == [1]
        assert calls == 2


async def test_a_stream_that_is_closed_while_the_call_is_made_closes_what_it_brings() -> None:
    async with reading(wire(0, 1)) as (opened, raw):
        calling, answer = asyncio.Event(), asyncio.Event()

        async def call() -> Stream[Any]:
            calling.set()
            await answer.wait()
            return opened

        stream: Stream[Any] = Stream(opening=call)
        task = asyncio.ensure_future(anext(stream))
        await calling.wait()
        await stream.aclose()
        answer.set()
        with pytest.raises(StopAsyncIteration):
            await task
        with pytest.raises(ConnectionResetError):
            await is_closed(raw)


async def test_a_stream_that_is_closed_before_it_is_opened_makes_no_call() -> None:
    async def call() -> Stream[Any]:
        raise AssertionError

    stream: Stream[Any] = Stream(opening=call)
    await stream.aclose()
    assert await all_of(stream) == []
    assert stream.closed


def test_a_stream_that_is_never_opened_leaves_nothing() -> None:
    async def call() -> Stream[Any]:
        raise AssertionError

    stream: Stream[Any] = Stream(opening=functools.partial(call))
    del stream


async def test_two_tasks_that_ask_for_the_first_item_make_one_call() -> None:
    async with reading(wire(0, 1)) as (opened, _raw):
        calling, answer = asyncio.Event(), asyncio.Event()

        async def call() -> Stream[Any]:
            calling.set()
            await answer.wait()
            return opened

        stream: Stream[Any] = Stream(opening=call)
        task = asyncio.ensure_future(anext(stream))
        await calling.wait()
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        answer.set()
        assert await task == 1
        await stream.aclose()


@pytest.mark.parametrize("how", ["open", "read"])
async def test_a_stream_that_a_task_is_opening_is_left_to_it(how: str) -> None:
    async with reading(wire(0, 1), wire(0, 2), END) as (opened, _raw):
        calling, answer = asyncio.Event(), asyncio.Event()

        async def call() -> Stream[Any]:
            calling.set()
            await answer.wait()
            return opened

        stream: Stream[Any] = Stream(opening=call)
        task: asyncio.Future[Any] = asyncio.ensure_future(stream.open() if how == "open" else anext(stream))
        await calling.wait()
        for use in (stream.__anext__, stream.open):
            with pytest.raises(RuntimeError, match="another task is opening this stream already"):
                await use()
        with pytest.raises(LocalProtocolError, match="a stream that a task is opening cannot be passed on"):
            reader_of(stream).detach()
        assert repr(stream) == "<Stream unopened>"
        answer.set()
        assert await task == (stream if how == "open" else 1)
        assert await all_of(stream) == ([1, 2] if how == "open" else [2])


async def test_a_call_that_open_makes_and_that_is_cancelled_is_made_again() -> None:
    async with reading(wire(0, 1), END) as (opened, _raw):
        calling, answer = asyncio.Event(), asyncio.Event()

        async def call() -> Stream[Any]:
            calling.set()
            await answer.wait()
            return opened

        stream: Stream[Any] = Stream(opening=call)
        task = asyncio.ensure_future(stream.open())
        await calling.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert reader_of(stream).detach() is None
        answer.set()
        assert await all_of(stream) == [1]


# What hostile reviewers found


def test_a_stream_is_read_on_by_another_loop() -> None:
    ours, raw = raw_pair()
    stream = stream_on(ours)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.01)

    async def read() -> None:
        task = asyncio.create_task(stream.__anext__())
        await asyncio.sleep(0)
        raw.send(wire(0, 7))
        async with asyncio.timeout(5):
            assert await task == 7

    asyncio.run(give_up())
    asyncio.run(read())
    reader_of(stream).close()
    raw.close()
