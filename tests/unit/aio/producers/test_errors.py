"""Sources that fail, and items that cannot be sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop
from support.descriptors import same_file
from support.incidents import AN_INCIDENT
from support.producers import Log, Reading, Wrong, produced

from seqrpc import OwnedFd


async def test_an_error_comes_after_the_items_before_it(share: None, log: Log) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
            raise Wrong("text", [7])
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        assert await reading.packets() == [[0, 1, 2], [1, ["producers.Wrong", "text", [7]]]]
    assert log.what == ["finally"]


async def test_an_error_that_was_not_foreseen_is_internal(caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError("secret")

    async with produced(items()) as reading:
        assert await reading.packets() == [[0, 1], [1, ["rpc.Internal", AN_INCIDENT, None]]]
    assert "'m' failed" in caplog.text


async def test_an_error_may_bring_descriptors_which_are_given_away(pipe: tuple[int, int]) -> None:
    fd = OwnedFd(os.dup(pipe[0]))

    async def items() -> AsyncIterator[int]:
        yield 1
        raise Wrong("text", fd)

    async with produced(items()) as reading, reading.stream() as stream:
        assert await anext(stream) == 1
        with pytest.raises(Wrong) as caught:
            await anext(stream)
        assert same_file(caught.value.data, pipe[0])
        caught.value.data.close()
    assert fd.closed


async def test_what_cannot_be_sent_of_an_error_is_left_out() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise Wrong("text", 2**70)

    async with produced(items()) as reading:
        assert (await reading.packets())[-1] == [1, ["producers.Wrong", "text", None]]


class NoFile:
    """Says that it has a descriptor, which is not open."""

    def fileno(self) -> int:
        return 1_000_000


def closed_file() -> OwnedFd:
    fd = OwnedFd(os.dup(0))
    fd.close()
    return fd


NOT_SENDABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "too_large_a_number": (lambda: 2**70, "rpc.Internal"),
    "no_such_type": (object, "rpc.Internal"),
    "too_large": (lambda: b"x" * 200_000, "rpc.TooLarge"),
    "a_closed_descriptor": (closed_file, "rpc.Internal"),
    "no_descriptor": (NoFile, "rpc.Internal"),
    "what_has_a_descriptor_with_it": (lambda: [OwnedFd(os.dup(0)), 2**70], "rpc.Internal"),
}


@pytest.mark.parametrize("then", ["more", "wait", "end"])
@pytest.mark.parametrize("wrong", NOT_SENDABLE)
async def test_an_item_that_cannot_be_sent_ends_the_stream_after_those_before_it(
    share: None, log: Log, wrong: str, then: str
) -> None:
    make, code = NOT_SENDABLE[wrong]

    async def items() -> AsyncIterator[Any]:
        try:
            yield 1
            yield 2
            yield make()
            while then == "more":
                yield 3
            if then == "wait":
                await asyncio.Event().wait()
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        *packets, (kind, error) = await reading.packets()
        assert packets == [[0, 1, 2]]
        assert kind == 1
        assert error[0] == code
    assert log.what == ["finally"]


async def test_what_is_iterated_may_not_be_iterable() -> None:
    class Broken:
        def __aiter__(self) -> AsyncIterator[int]:
            raise LookupError

    async with produced(Broken()) as reading:
        assert await reading.packets() == [[1, ["rpc.Internal", AN_INCIDENT, None]]]


async def test_a_source_may_raise_something_of_its_own_that_is_no_exception() -> None:
    class Odd(BaseException):
        pass

    async def items() -> AsyncIterator[int]:
        yield 1
        raise Odd

    async with produced(items()) as reading:
        assert (await reading.packets())[-1] == [1, ["rpc.Internal", AN_INCIDENT, None]]


async def test_a_source_that_cancels_itself_is_told_so() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    async with produced(items()) as reading:
        assert (await reading.packets())[-1] == [1, ["rpc.Unavailable", "the producer was cancelled", None]]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_what_is_for_the_loop_goes_to_the_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise SystemExit(7)

    async def run() -> None:
        readings.append(Reading(items()))
        tasks.append(readings[0].producer._task)
        await asyncio.Event().wait()

    readings: list[Reading] = []
    tasks: list[asyncio.Task[None] | None] = []
    loop = new_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    running = loop.create_task(run())
    with pytest.raises(SystemExit):
        loop.run_until_complete(running)
    (reading,) = readings
    assert loop.run_until_complete(reading.packets()) == [[0, 1], [1, ["rpc.Internal", AN_INCIDENT, None]]]
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(running)
    assert tasks[0] is not None
    assert isinstance(tasks[0].exception(), SystemExit)
    reading.raw.close()
    loop.close()
