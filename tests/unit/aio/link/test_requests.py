"""What the other side asks for."""

from __future__ import annotations

from support.link import next_message, one_end
from support.packets import wire
from support.waiting import comes_true

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
        end.connection.answers.send_result(1, "too late")


async def test_nothing_is_taken_after_a_malformed_packet() -> None:
    async with one_end() as (end, raw):
        for data in (wire(0, 1, "m", []), b"\xc1", wire(0, 2, "m", []), wire(3, 1)):
            raw.send(data)
        assert (await next_message(raw))[0] == 5
        await end.connection.wait_closed()
        assert [request.call_id for request in end.handler.requests] == [1]
        assert end.handler.cancelled == []
