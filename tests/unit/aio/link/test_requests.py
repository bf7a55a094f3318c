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
