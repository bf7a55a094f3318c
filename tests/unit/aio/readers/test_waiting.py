"""Readers that wait, give up waiting, and share the loop."""

from __future__ import annotations

import asyncio
import socket
import weakref

import pytest
from support.packets import fill, raw_pair, wire
from support.streams import END, all_of, next_item_of, reading, stream_on
from support.waiting import comes_true, turns_of_the_loop

from seqrpc.aio import readers
from seqrpc.aio.streams import reader_of

# Waiting


async def test_being_woken_for_nothing_costs_nothing() -> None:
    async with reading() as (stream, raw):
        task = await next_item_of(stream)
        reader_of(stream).readable()
        await turns_of_the_loop()
        assert not task.done()
        raw.send(wire(0, 1))
        assert await task == 1
    ours, theirs = raw_pair()
    gone = weakref.ref(reader_of(stream_on(ours)))
    assert gone() is None
    readers._readable(gone)  # the loop found it before it was collected
    theirs.close()


async def test_a_cancelled_reader_loses_nothing() -> None:
    async with reading() as (stream, raw):
        for number in range(3):
            task = await next_item_of(stream)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            raw.send(wire(0, number))
            await turns_of_the_loop()
            assert await anext(stream) == number


async def test_an_item_that_comes_together_with_the_cancellation_is_not_lost() -> None:
    async with reading() as (stream, raw):
        for first in (True, False):
            task = await next_item_of(stream)
            raw.send(wire(0, 1, 2))
            if first:
                task.cancel()
                reader_of(stream).readable()
            else:
                reader_of(stream).readable()
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [await anext(stream), await anext(stream)] == [1, 2]


async def test_a_deadline_loses_nothing() -> None:
    async with reading() as (stream, raw):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await anext(stream)
        raw.send(wire(0, 1))
        assert await anext(stream) == 1


async def test_only_one_task_reads_at_a_time() -> None:
    async with reading() as (stream, raw):
        task = await next_item_of(stream)
        with pytest.raises(RuntimeError, match="another task is reading this stream already"):
            await anext(stream)
        raw.send(wire(0, 1))
        assert await task == 1
        raw.send(wire(0, 2))
        assert await anext(stream) == 2


async def test_a_stream_that_is_always_ready_does_not_starve_the_loop() -> None:
    async with reading() as (stream, raw):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
        sent = fill(raw, wire(0, 1))
        assert sent > 500
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        for _ in range(sent):
            await anext(stream)
        counting.cancel()
        await asyncio.wait([counting])
        assert turns >= sent // 8


async def test_a_stream_that_nobody_reads_is_not_looked_at() -> None:
    """The kernel holds up the producer: nothing is received that nobody asked for."""
    async with reading() as (stream, raw):
        task = await next_item_of(stream)
        raw.send(wire(0, 1))
        assert await task == 1
        raw.send(wire(0, 2))
        await comes_true(lambda: reader_of(stream)._loop is None)
        assert not reader_of(stream).items
        raw.send(END)
        assert await all_of(stream) == [2]


# What hostile reviewers found


async def test_a_default_timeout_of_sockets_does_not_block_the_loop() -> None:
    socket.setdefaulttimeout(5.0)
    try:
        async with reading() as (stream, raw):
            task = await next_item_of(stream)
            raw.send(wire(0, 1))
            assert await task == 1
    finally:
        socket.setdefaulttimeout(None)
