"""What the other side asks for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.descriptors import Lender
from support.link import next_message, one_end, raises
from support.packets import wire
from support.waiting import comes_true

from seqrpc import ConnectionLost, OwnedFd
from seqrpc.limits import Limits


async def test_a_cancel_reaches_the_handler() -> None:
    async with one_end() as (end, raw):
        raw.send(wire(0, 7, "m", []))
        raw.send(wire(3, 7))
        raw.send(wire(3, 8))
        await comes_true(lambda: bool(end.handler.cancelled))
        assert end.handler.cancelled == [7]


# Peers that ask more than they read


async def test_calls_beyond_the_bound_of_this_side_are_refused() -> None:
    async with one_end(Limits(max_calls_in_flight=2)) as (end, raw):
        for call_id in range(3):
            raw.send(wire(0, call_id, "m", []))
        answer = await next_message(raw)
        assert answer[1] == 2
        assert answer[2][0] == "rpc.Overloaded"
        assert [request.call_id for request in end.handler.requests] == [0, 1]


async def test_whoever_answers_hears_of_requests_that_are_refused() -> None:
    async with one_end() as (end, raw):
        end.handler.admitted = False
        raw.send(wire(2, "m", []))
        raw.send(wire(0, 1, "m", []))
        refusal = ["rpc.PermissionDenied", "m: this caller is not admitted"]
        assert await next_message(raw) == [1, 1, [*refusal, None], None]
        assert [[one.call_id, one.code, one.message] for one in end.handler.refused] == [
            [None, *refusal],
            [1, *refusal],
        ]
        assert end.handler.requests == []
        assert end.connection.session.requests == {}


async def test_a_malformed_packet_leaves_what_was_asked_before_to_its_handler() -> None:
    """It is stopped with the connection, and its answer goes nowhere; nothing is owed any more."""
    async with one_end() as (end, raw):
        raw.send(wire(0, 1, "m", []))
        raw.send(wire(0, 1, "m", []))
        assert (await next_message(raw))[0] == 5
        assert [request.call_id for request in end.handler.requests] == [1]
        await end.connection.wait_closed()
        assert end.handler.lost == 1
        assert end.connection.session.requests == {}
        end.answers.send_result(1, "too late")


async def test_nothing_is_taken_after_a_malformed_packet() -> None:
    async with one_end() as (end, raw):
        for data in (wire(0, 1, "m", []), b"\xc1", wire(0, 2, "m", []), wire(3, 1)):
            raw.send(data)
        assert (await next_message(raw))[0] == 5
        await end.connection.wait_closed()
        assert [request.call_id for request in end.handler.requests] == [1]
        assert end.handler.cancelled == []


@pytest.mark.parametrize("admitted", [True, False])
async def test_who_does_not_read_its_answers_is_not_read_either_until_it_does(admitted: bool) -> None:
    async with one_end() as (end, raw):
        end.handler.admitted = admitted
        heard: list[Any] = end.handler.requests if admitted else end.handler.refused
        end.handler.on_request = end.handler.echo
        end.jam()
        raw.send(wire(2, "m", []))  # is not answered
        raw.send(wire(0, 1, "m", []))
        raw.send(wire(0, 2, "m", []))
        await comes_true(lambda: not end.transport.is_reading())
        assert [one.call_id for one in heard] == [None, 1]
        assert [(await next_message(raw))[:2] for _ in range(2)] == [[1, 1], [1, 2]]
        assert end.transport.is_reading()


async def test_who_is_waited_for_and_does_not_read_its_answers_is_lost() -> None:
    """Not to read what it sends would be to wait for ever."""
    async with one_end(Limits(max_unsent_bytes=1000, max_message_bytes=65_536, high_water_bytes=100_000)) as (end, raw):
        call = end.call("m")
        await next_message(raw)
        end.jam()
        raw.send(wire(0, 1, "m", []))
        await raises(ConnectionLost, call, "bytes of answers unread")


async def test_an_answer_lets_the_next_call_go() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        first, second = end.call("m", 1), end.call("m", 2)
        for call in (first, second):
            _kind, call_id, _method, params = await next_message(raw)
            raw.send(wire(1, call_id, None, params))
            assert await call == params


async def test_what_came_together_with_the_cancellation_of_its_call_is_closed(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        message = await next_message(raw)
        call.cancel()
        file = OwnedFd.dup(pipe[0])
        end.connection.packet_received(wire(1, message[1], None, [Lender()]), [file], None)
        assert file.closed
        await raises(asyncio.CancelledError, call)
