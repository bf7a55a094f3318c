"""Malformed packets, and descriptors that get lost."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.descriptors import Lender, owned
from support.link import lose_descriptors, next_message, one_end, raises
from support.packets import receive, send_with, wire
from support.waiting import comes_true

from seqrpc import (
    ConnectionLost,
    DescriptorsLost,
    RemoteProtocolError,
)
from seqrpc.limits import Limits

MALFORMED = {
    "no value": b"\xc1",
    "a cut value": b"\x94\x00\x01",
    "bytes left over": wire(9) + b"\x00",
    "no array": wire()[:0] + b"\x2a",
    "an empty array": b"\x90",
    "a kind that is no number": b"\x91\xa1x",
    "a negative kind": b"\x91\xff",
    "a request of three": wire(0, 1, "m"),
    "an id that is no number": wire(0, "1", "m", []),
    "an id of 33 bits": wire(0, 2**32, "m", []),
    "a method that is no string": wire(0, 1, 2, []),
    "params that are no array": wire(0, 1, "m", "x"),
    "keys that are no strings": wire(0, 1, "m", {1: 2}),
    "options that are no map": wire(0, 1, "m", [], []),
    "a deadline that is no number": wire(0, 1, "m", [], {"deadline": "now"}),
    "a notify of two": wire(2, "m"),
    "a response with both": wire(1, 0, ["a.b", "", None], 1),
    "a response whose error is a string": wire(1, 0, "error", None),
    "a cancel of nothing": wire(3),
    "a spilled message": wire(4, 10),
    "a closing without a reason": wire(5),
    "too deep": b"\x91" * 70 + b"\x90",
    "a descriptor that did not come": b"\x94\x00\x01\xa1m\x91\xd4\x01\x05",
    "an unknown extension": b"\x94\x00\x01\xa1m\x91\xd4\x07\x00",
}


# Malformed packets


@pytest.mark.parametrize("attached", [0, 2], ids=["bare", "with_descriptors"])
@pytest.mark.parametrize("packet", MALFORMED.values(), ids=[name.replace(" ", "_") for name in MALFORMED])
async def test_a_malformed_packet_is_answered_with_closing_and_ends_the_connection(
    packet: bytes, attached: int
) -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        with owned(attached) as fds:
            send_with(raw, packet, [fd.fileno() for fd in fds])
        kind, reason = await next_message(raw)
        assert kind == 5
        assert await receive(raw) == b""
        error = await raises(ConnectionLost, call)
        assert isinstance(error.__cause__, RemoteProtocolError)
        assert reason == str(error.__cause__)
        assert end.handler.requests == []


async def test_a_descriptor_that_nothing_refers_to_is_malformed(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        send_with(raw, wire(0, 1, "m", []), pipe)
        assert "1 descriptors came" not in (reason := (await next_message(raw))[1])
        assert "2 descriptors came, 0 of them are referred to" in reason
        await end.connection.wait_closed()


async def test_an_id_that_is_in_flight_is_malformed() -> None:
    async with one_end() as (end, raw):
        raw.send(wire(0, 1, "m", []))
        raw.send(wire(0, 1, "m", []))
        assert "in flight already" in (await next_message(raw))[1]
        await end.connection.wait_closed()
        assert len(end.handler.requests) == 1


async def test_an_oversized_packet_is_malformed() -> None:
    async with one_end() as (end, raw):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        raw.send(b"x" * 70_000)
        assert await next_message(raw) == [5, "a packet has at most 65536 bytes, this one 70000 or more"]
        await end.connection.wait_closed()


async def test_what_nobody_asked_for_and_unknown_kinds_are_ignored(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        send_with(raw, wire(1, 5, None, [Lender(), Lender()]), pipe)
        send_with(raw, wire(6, [Lender(), Lender()]), pipe)
        send_with(raw, wire(100), pipe)
        raw.send(wire(3, 9))
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))
        assert not end.connection.closed


# Descriptors that get lost


async def test_a_request_that_lost_descriptors_is_answered_so_and_the_connection_lives_on() -> None:
    async with one_end() as (end, raw):
        await lose_descriptors(end, raw, wire(0, 1, "m", [Lender(), Lender()]))
        assert (await next_message(raw))[:2] == [1, 1]
        await lose_descriptors(end, raw, wire(2, "m", [Lender(), Lender()]))
        await lose_descriptors(end, raw, wire(9))
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))
        assert [request.params for request in end.handler.requests] == [[]]


async def test_an_answer_that_lost_descriptors_fails_its_call() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        message = await next_message(raw)
        await lose_descriptors(end, raw, wire(1, message[1], None, [Lender(), Lender()]))
        await raises(DescriptorsLost, call)
        assert not end.connection.closed


async def test_an_answer_that_lost_descriptors_to_a_call_given_up_lets_the_next_one_go() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        call = end.call("m")
        end.call("m", "after")
        message = await next_message(raw)
        call.cancel()
        await raises(asyncio.CancelledError, call)
        await next_message(raw)
        await lose_descriptors(end, raw, wire(1, message[1], None, [Lender(), Lender()]))
        assert (await next_message(raw))[3] == ["after"]


async def test_an_answer_that_lost_descriptors_together_with_the_cancellation_is_ignored() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        message = await next_message(raw)
        call.cancel()
        assert end.connection.descriptors_lost(wire(1, message[1], None, None), None)
        await raises(asyncio.CancelledError, call)


async def test_a_packet_that_lost_descriptors_may_be_malformed_too() -> None:
    async with one_end() as (end, raw):
        await lose_descriptors(end, raw, b"\xc1")
        assert (await next_message(raw))[0] == 5
        await end.connection.wait_closed()
