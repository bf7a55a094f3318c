"""Readers that want no more."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.packets import fill, send_with
from support.producers import Log, endless, once, produced
from support.waiting import comes_true, turns_of_the_loop

from seqrpc import OwnedFd


async def test_a_reader_that_goes_stops_a_source_that_waits(log: Log) -> None:
    async with produced(once(1, log)) as reading:
        assert await reading.packet() == [0, 1]
        reading.raw.close()
        await reading.until_ended()
    assert log.what == ["waiting", "finally"]


@pytest.mark.parametrize("full", [False, True], ids=["at_its_next_yield", "full"])
async def test_a_reader_that_goes_stops_an_endless_source(log: Log, full: bool) -> None:
    async with produced(endless(log)) as reading:
        await reading.packet()
        if full:
            await comes_true(lambda: reading.producer._room is not None)
        reading.raw.close()
        await reading.until_ended()
    assert log.what == ["finally"]


async def test_a_source_may_await_in_its_finally(log: Log) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await turns_of_the_loop()
            log.note("finally")

    async with produced(items()) as reading:
        await reading.packet()
    assert log.what == ["finally"]


async def test_a_source_that_swallows_its_cancellation_is_stopped_at_its_next_item(
    log: Log, pipe: tuple[int, int]
) -> None:
    async def items() -> AsyncIterator[OwnedFd | int]:
        try:
            yield 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            yield OwnedFd(os.dup(pipe[0]))  # closed: nobody reads it
            log.note("went on")
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        assert await reading.packet() == [0, 1]
        await comes_true(lambda: reading.producer._soon is None)
    assert log.what == ["finally"]


async def test_a_source_that_fails_as_it_is_stopped_costs_nothing(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            log.note("finally")
            raise LookupError

    async with produced(items()) as reading:
        await reading.packet()
    assert log.what == ["finally"]
    assert "'m' failed" in caplog.text


async def test_a_plain_iterator_needs_no_aclose() -> None:
    class Plain:
        def __init__(self) -> None:
            self.number = 0

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> int:
            self.number += 1
            if self.number > 3:
                raise StopAsyncIteration
            return self.number

    async with produced(Plain()) as reading:
        assert await reading.items() == [1, 2, 3]
    async with produced(Plain()) as reading:
        assert await reading.packet()


async def test_an_iterable_of_generators_has_its_iterator_closed(log: Log) -> None:
    class Many:
        def __aiter__(self) -> AsyncIterator[Any]:
            return once(1, log)

    async with produced(Many()) as reading:
        assert await reading.packet() == [0, 1]
        await comes_true(lambda: "waiting" in log.what)
    assert log.what == ["waiting", "finally"]


@pytest.mark.parametrize("queued", [False, True])
async def test_descriptors_that_nobody_reads_are_closed(log: Log, queued: bool, pipe: tuple[int, int]) -> None:
    given: list[OwnedFd] = []

    async def items() -> AsyncIterator[Any]:
        try:
            if queued:
                fill(reading.producer._sock)
            while True:
                given.append(OwnedFd(os.dup(pipe[0])))
                yield given[-1]
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        await comes_true(lambda: reading.producer._room is not None)
        assert not given[-1].closed
    assert log.what == ["finally"]
    assert all(fd.closed for fd in given)


async def test_a_reader_that_writes_into_the_stream_is_not_listened_to(log: Log) -> None:
    async with produced(once(1, log)) as reading:
        assert await reading.packet() == [0, 1]
        with contextlib.suppress(BrokenPipeError):
            for _ in range(10):
                reading.raw.send(b"x" * 1000)
                send_with(reading.raw, b"x", [0])
        await reading.until_ended()
    assert log.what[-1] == "finally"
