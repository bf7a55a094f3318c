"""What one message may cost."""

from __future__ import annotations

import re
from typing import Any

import msgpack
import msgspec
import pytest
from support.descriptors import Lender, owned
from support.measures import steps_of_python
from support.packets import raw_pair, send_with, wire
from support.streams import END, all_of, reading, send_spilled

from seqrpc import (
    OwnedFd,
)
from seqrpc.aio.streams import Stream, reader_of
from seqrpc.interface.streams import checked
from seqrpc.kernel.descriptors import close_all
from seqrpc.limits import MAX_VALUES_SEARCHED
from seqrpc.protocol.values import descriptors_in


def integers(items: list[Any]) -> list[Any]:
    return msgspec.convert(items, list[int])


MANY = 90_000  # values, of one byte each, in the messages of these tests


async def first_of(stream: Stream[Any]) -> str:
    try:
        return str(await anext(stream))
    except msgspec.ValidationError:
        return "it does not fit"


@pytest.mark.parametrize("end", ["read", "aclose", "drop"])
@pytest.mark.parametrize(
    "items, first",
    [([[1] * MANY], "it does not fit"), ([1, [1] * MANY], "1"), ([1] * MANY, "1"), ([1] * 500 + ["x"] * MANY, "1")],
    ids=["one that does not fit", "a second that does not", "a great many", "a great many that do not"],
)
async def test_what_came_without_descriptors_is_not_looked_through(items: list[Any], first: str, end: str) -> None:
    async with reading() as (stream, raw):
        checked(stream, integers)
        send_spilled(raw, 0, *items)
        with steps_of_python() as steps:
            assert await first_of(stream) == first
            if end == "aclose":
                await stream.aclose()
            elif end == "drop":
                reader_of(stream).__del__()
        assert steps[0] < MANY / 10


async def test_items_of_a_long_message_that_come_after_one_that_does_not_fit_are_not_read() -> None:
    async with reading() as (stream, raw):
        checked(stream, integers)
        send_spilled(raw, 0, *[1] * 1_030, "x", *[3] * MANY)
        for _ in range(1_030):
            assert await anext(stream) == 1
        with pytest.raises(msgspec.ValidationError):
            await anext(stream)
        assert await all_of(stream) == []


LONG = [1] * 2_000  # a message of so many items is taken a part at a time


def take_all(items: list[Any]) -> list[Any]:
    return items


@pytest.mark.parametrize("check", [None, take_all])
@pytest.mark.parametrize(
    "items",
    [
        [1, Lender(), [2], [Lender(), 3, Lender()], 4],
        [Lender(), Lender(), 1, 2, Lender()],
        [*LONG, Lender(), *LONG, {"a": Lender()}, Lender()],
        [{"a": [Lender()] * 3}],
    ],
    ids=["between others", "at the ends", "among a great many", "alone"],
)
@pytest.mark.parametrize("taken", [0, 1, 2, 2_001, 4_001, None])
async def test_descriptors_come_with_their_items_and_are_closed_with_those_that_nobody_takes(
    items: list[Any], check: Any, taken: int | None
) -> None:
    with owned(5) as fds:
        numbers = [fd.fileno() for fd in fds]
        lent = repr(items).count("Lender")
        async with reading() as (stream, raw):
            if check is not None:
                checked(stream, check)
            send_spilled(raw, 0, *items, fds=numbers[:lent])
            raw.send(END)
            got: list[Any] = []
            while taken is None or len(got) < taken:
                try:
                    got.append(await anext(stream))
                except StopAsyncIteration:
                    break
        assert [as_sent(item) for item in got] == [as_sent(item) for item in items[:taken]]
        close_all(descriptors_in(got))  # the watch on descriptors sees the others


def as_sent(item: Any) -> str:
    """Return what an item looks like, whether its descriptors are on their way or have come."""
    return re.sub(r"<[^>]*(Lender|OwnedFd)[^>]*>|Lender\(\)", "fd", repr(item))


@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_descriptors_that_are_dropped_as_their_item_is_converted_are_closed_at_once(kept: int) -> None:
    before: list[OwnedFd] = []

    def drop(items: list[Any]) -> list[Any]:
        before.extend(items[0])
        return [item[:kept] for item in items]

    async with reading() as (stream, raw):
        with owned(2) as fds:
            send_with(raw, wire(0, [Lender(), Lender()]), [fd.fileno() for fd in fds])
        checked(stream, drop)
        got = await anext(stream)
        assert [fd.closed for fd in before] == [index >= kept for index in range(2)]
        close_all(got)


async def test_descriptors_that_may_be_in_an_item_of_a_great_many_values_are_not_closed() -> None:
    async with reading() as (stream, raw):
        with owned(2) as fds:
            send_spilled(raw, 0, [[1] * MANY, Lender()], fds=[fds[0].fileno()])
            send_spilled(raw, 0, [Lender(), [1] * MANY], fds=[fds[1].fileno()])
        checked(stream, take_all)
        with steps_of_python() as steps:
            last, first = await anext(stream), await anext(stream)
        assert steps[0] < 10 * MAX_VALUES_SEARCHED
        with last[1], first[0]:
            assert not last[1].closed
            assert not first[0].closed


@pytest.mark.parametrize("how", ["aclose", "drop", "does not fit"])
async def test_an_item_of_a_great_many_values_is_dropped_with_its_descriptors(how: str) -> None:
    async with reading() as (stream, raw):
        with owned(1) as fds:
            send_spilled(raw, 0, [[1] * MANY, Lender()], fds=[fds[0].fileno()])
        with steps_of_python() as steps:
            if how == "does not fit":
                checked(stream, integers)
                assert await first_of(stream) == "it does not fit"
            else:
                assert reader_of(stream)._receive()
                assert reader_of(stream).detach() is None
                await stream.aclose() if how == "aclose" else reader_of(stream).__del__()
        assert steps[0] < MANY / 10  # the watch on descriptors sees whether it was closed


async def test_descriptors_far_behind_in_a_packet_of_several_items_go_with_their_item() -> None:
    """Who owns them is not known until the items are taken, and then they are the taker's: it relies on collection."""
    async with reading() as (stream, raw):
        for _ in range(2):
            with owned(1) as fds:
                send_spilled(raw, 0, 1, [[1] * MANY, Lender()], fds=[fds[0].fileno()])
        assert await anext(stream) == 1
        (await anext(stream))[1].close()
        assert await anext(stream) == 1
        with pytest.warns(ResourceWarning, match="unclosed"):
            await stream.aclose()


async def test_a_stream_or_a_buffer_in_a_packet_of_several_items_goes_with_its_item() -> None:
    ours, theirs = raw_pair()
    with ours, theirs:
        async with reading() as (stream, raw):
            send_with(raw, wire(0, [1], msgpack.ExtType(2, b"\0")), [ours.fileno()])
            assert await anext(stream) == [1]
            bare = await anext(stream)
            assert bare.ext_type == 2
            assert not bare.fd.closed
