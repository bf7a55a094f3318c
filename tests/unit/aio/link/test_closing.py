"""Closing, and connections that are lost."""

from __future__ import annotations

import asyncio

from support.link import next_message, one_end, raises
from support.packets import receive, receive_to_the_end, wire
from support.waiting import comes_true, turns_of_the_loop

from seqrpc import (
    ConnectionLost,
)
from seqrpc.limits import Limits


async def test_a_connection_that_ends_after_closing_tells_what_was_said() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        raw.send(wire(5, "going home"))
        raw.close()
        await raises(ConnectionLost, call, "the other side had said: going home")


async def test_who_says_closing_says_it_once_and_refuses_what_comes() -> None:
    async with one_end() as (end, raw):
        end.answers.send_closing("full")
        end.answers.send_closing("again")
        assert await next_message(raw) == [5, "full"]
        raw.send(wire(0, 1, "m", []))
        assert (await next_message(raw))[:3] == [1, 1, ["rpc.Unavailable", "this side takes no new requests", None]]
        assert end.handler.requests == []


async def test_a_lost_connection_fails_its_calls_at_once_and_says_so_to_later_ones() -> None:
    async with one_end() as (end, raw):
        calls = [end.call("m") for _ in range(3)]
        await next_message(raw)
        raw.close()
        errors = [await raises(ConnectionLost, call) for call in calls]
        assert len({id(error) for error in errors}) == 3
        later = [await raises(ConnectionLost, end.connection.caller.request("m", ())) for _ in range(2)]
        assert later[0] is not later[1]
        assert str(later[0]) == str(errors[0])
        assert isinstance(later[0].__cause__, ConnectionResetError)
        end.answers.send_result(1, None)  # answers go nowhere, quietly
        end.answers.send_error(1, "x.y", "")
        end.answers.send_closing("too late")
        assert end.connection.closed


async def test_a_call_that_is_cancelled_as_the_connection_ends_is_cancelled() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        end.transport.abort()
        call.cancel()
        await raises(asyncio.CancelledError, call)


async def test_close_ends_calls_both_ways() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))
        await end.connection.close()
        await raises(ConnectionLost, call, "closed on this side")
        assert end.handler.lost == 1
        await raises(ConnectionLost, end.connection.caller.request("m", ()), "closed on this side")
        await end.connection.close()
        assert len(await receive_to_the_end(raw)) == 1


async def test_close_sends_what_is_unsent_if_it_is_taken_in_time() -> None:
    async with one_end() as (end, raw):
        end.jam()
        end.answers.send_result(1, "last")
        closing = asyncio.create_task(end.connection.close())
        assert await next_message(raw) == [1, 1, None, "last"]
        await closing
        assert await receive(raw) == b""


async def test_close_does_not_wait_longer_than_its_time_out() -> None:
    async with one_end(Limits(close_timeout=0.02)) as (end, _raw):
        end.jam()
        await end.connection.close()
        assert end.connection.closed


async def test_close_that_is_cancelled_goes_on() -> None:
    async with one_end(Limits(close_timeout=0.02)) as (end, _raw):
        end.jam()
        closing = asyncio.create_task(end.connection.close())
        await turns_of_the_loop()
        closing.cancel()
        await raises(asyncio.CancelledError, closing)
        assert not end.connection.closed
        await end.connection.wait_closed()


async def test_one_that_closes_is_not_unclosed() -> None:
    async with one_end() as (end, _raw):
        assert end.connection.is_unclosed
        end.transport.close()
        assert not end.connection.is_unclosed
        await end.connection.wait_closed()
        assert not end.connection.is_unclosed
