"""Items of streams are converted, and whose fault it is if they do not fit."""

from __future__ import annotations

import socket
import traceback
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
from support.annotations import (
    Box,
    Clumsy,
    Even,
    Feed,
    Strict,
)

from seqrpc.aio.streams import Stream
from seqrpc.errors import InvalidParams, InvalidResult
from seqrpc.interface.conversion import Terms, convert
from seqrpc.interface.planning import plan
from seqrpc.kernel.descriptors import ValueFd
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.items import ItemReader


@pytest.mark.parametrize("invalid", [InvalidParams, InvalidResult])
@pytest.mark.parametrize("within", [False, True])
async def test_items_of_streams_are_checked_and_the_fault_is_whose_it_is(
    invalid: type[InvalidParams | InvalidResult], within: bool
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        stream: Any = Stream(ValueFd(theirs.detach()), ItemReader(Decoder(), 100_000))
        if within:
            stream = convert({"item": stream}, plan(Box[AsyncIterator[Even]]), Terms(invalid)).item
        else:
            stream = convert(stream, plan(AsyncIterator[Even]), Terms(invalid))
        ours.send(msgpack.packb([0, {"source": 2}, {"source": 4}, {"source": 5}]))
        assert [await anext(stream), await anext(stream)] == [Even(2), Even(4)]
        with pytest.raises(invalid, match="an item of a stream does not fit its annotation: odd"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize("invalid, expected", [(InvalidParams, AttributeError), (InvalidResult, InvalidResult)])
async def test_an_item_whose_class_fails_is_its_reader_s_fault(
    invalid: type[InvalidParams | InvalidResult], expected: type[Exception]
) -> None:
    """In a handler the error would else cross as InvalidParams, with a text about the inside."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        stream: Any = convert(
            Stream(ValueFd(theirs.detach()), ItemReader(Decoder(), 100_000)),
            plan(AsyncIterator[Clumsy]),
            Terms(invalid),
        )
        ours.send(msgpack.packb([0, {"word": "x"}]))
        with pytest.raises(expected, match="no_such_method"):
            await anext(stream)


async def test_a_traceback_of_what_does_not_fit_quotes_nothing_as_it_came() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        stream: Any = convert(
            Stream(ValueFd(theirs.detach()), ItemReader(Decoder(), 100_000)),
            plan(AsyncIterator[Strict]),
            Terms(InvalidParams),
        )
        ours.send(msgpack.packb([0, {"one\ntwo\x1b[2J" + "x" * 10_000: 1}]))
        with pytest.raises(InvalidParams, match=r"unknown field `one\\ntwo\\x1b") as caught:
            await anext(stream)
    text = "".join(traceback.format_exception(caught.value))
    assert len(text) < 5_000
    assert "\x1b" not in text


async def test_items_may_bring_streams_of_their_own_kind() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        stream: Any = Stream(ValueFd(theirs.detach()), ItemReader(Decoder(), 100_000))
        feed = convert({"name": "a", "more": stream}, plan(Feed))
        assert feed.more is stream
        ours.send(msgpack.packb([0, {"name": "b"}, {"name": 5}]))
        assert await anext(feed.more) == Feed("b")
        with pytest.raises(InvalidResult, match=r"Expected `str`, got `int` - at `\$.name`"):
            await anext(feed.more)
