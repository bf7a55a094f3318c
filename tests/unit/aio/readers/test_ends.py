"""What ends a stream."""

from __future__ import annotations

import os
import socket

import pytest
from support.descriptors import Lender, owned
from support.packets import send_with, wire
from support.scarcity import table_full
from support.streams import END, Wrong, all_of, is_closed, next_item_of, reading

from seqrpc import (
    DescriptorsLost,
    RemoteProtocolError,
    Unavailable,
)
from seqrpc.aio.streams import reader_of


async def test_an_error_of_the_producer_is_raised_as_the_class_of_its_code() -> None:
    async with reading(wire(0, 1), wire(1, ["streams.Wrong", "text", [7]])) as (stream, raw):
        assert await anext(stream) == 1
        with pytest.raises(Wrong) as caught:
            await anext(stream)
        assert (caught.value.message, caught.value.data, caught.value.remote) == ("text", [7], True)
        assert stream.closed
        assert await is_closed(raw)
        assert await all_of(stream) == []


async def test_an_error_of_the_producer_may_bring_descriptors(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        send_with(raw, wire(1, ["streams.Wrong", "text", Lender()]), pipe[:1])
        with pytest.raises(Wrong) as caught:
            await anext(stream)
        caught.value.data.close()


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_producer_that_dies_is_told_from_one_that_ended(waiting: bool) -> None:
    async with reading(wire(0, 1)) as (stream, raw):
        assert await anext(stream) == 1
        task = await next_item_of(stream) if waiting else None
        raw.close()
        with pytest.raises(Unavailable, match="the producer of the stream died"):
            await (task or anext(stream))
        assert stream.closed
        assert await all_of(stream) == []


async def test_what_came_before_the_producer_died_is_read_first() -> None:
    async with reading(wire(0, 1), wire(0, 2, 3)) as (stream, raw):
        raw.close()
        assert [await anext(stream) for _ in range(3)] == [1, 2, 3]
        with pytest.raises(Unavailable):
            await anext(stream)


async def test_what_came_before_a_reset_is_read_first() -> None:
    """A reader that wrote into the stream resets itself when the producer closes (protocol 1.6)."""
    async with reading(wire(0, 1), wire(0, 2), END) as (stream, raw):
        reader_of(stream)._socket().send(b"not listened to")
        raw.close()
        assert await all_of(stream) == [1, 2]


MALFORMED = {
    "no_value": b"\xc1",
    "bytes_left_over": wire(0, 1) + b"\x00",
    "no_array": b"\x2a",
    "an_empty_array": b"\x90",
    "a_kind_that_is_no_number": b"\x91\xa1x",
    "no_items": wire(0),
    "an_end_of_one": wire(1),
    "an_end_of_three": wire(1, None, None),
    "an_error_that_is_a_string": wire(1, "error"),
    "an_error_of_two": wire(1, ["a.b", "text"]),
    "spilled_without_a_file": wire(4, 70_000),
    "spilled_without_a_length": wire(4),
    "too_deep": b"\x91" * 70 + b"\x90",
    "a_descriptor_that_did_not_come": b"\x92\x00\xd4\x01\x05",
    "an_unknown_extension": b"\x92\x00\xd4\x07\x00",
}


@pytest.mark.parametrize("attached", [0, 2], ids=["bare", "with_descriptors"])
@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_packet_ends_the_stream(name: str, attached: int) -> None:
    async with reading(wire(0, 1)) as (stream, raw):
        with owned(attached) as fds:
            send_with(raw, MALFORMED[name], [fd.fileno() for fd in fds])
        assert await anext(stream) == 1
        with pytest.raises(RemoteProtocolError):
            await anext(stream)
        assert stream.closed
        assert await is_closed(raw)


async def test_descriptors_that_nothing_refers_to_end_the_stream(pipe: tuple[int, int]) -> None:
    for packet in (wire(0, 1), END, wire(0, Lender())):
        async with reading() as (stream, raw):
            send_with(raw, packet, pipe)
            with pytest.raises(RemoteProtocolError, match="2 descriptors came"):
                await anext(stream)
            assert stream.closed


async def test_an_oversized_packet_ends_the_stream(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        send_with(raw, b"x" * 70_000, pipe)
        with pytest.raises(RemoteProtocolError, match="at most 65536 bytes, this one 70000"):
            await anext(stream)
        assert stream.closed


async def test_an_empty_packet_is_the_end_and_its_descriptors_are_closed(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        send_with(raw, b"", pipe)
        with pytest.raises(Unavailable):
            await anext(stream)


async def test_descriptors_that_get_lost_cost_the_items_of_their_packet_only(pipe: tuple[int, int]) -> None:
    async with reading(wire(0, 1)) as (stream, raw):
        send_with(raw, wire(0, Lender(), Lender()), pipe)
        send_with(raw, wire(4, 70_000), pipe)
        raw.send(wire(0, 2))
        raw.send(END)
        assert await anext(stream) == 1
        with table_full():
            for _ in range(2):
                with pytest.raises(DescriptorsLost):
                    await anext(stream)
        assert not stream.closed
        assert await all_of(stream) == [2]


async def test_a_producer_that_says_that_descriptors_were_lost_has_ended() -> None:
    async with reading(wire(1, ["rpc.DescriptorsLost", "on the way here", None])) as (stream, raw):
        with pytest.raises(DescriptorsLost, match="on the way here"):
            await anext(stream)
        assert stream.closed
        assert await is_closed(raw)
        assert await all_of(stream) == []


async def test_a_socket_that_cannot_be_read_ends_the_stream() -> None:
    async with reading() as (stream, raw):
        with owned(1) as fds:
            os.dup2(fds[0].fileno(), reader_of(stream)._socket().fileno())
        with pytest.raises(Unavailable, match="the stream cannot be read: Socket operation on non-socket"):
            await anext(stream)
        assert stream.closed
        assert await is_closed(raw)
