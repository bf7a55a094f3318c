"""Calls to who takes none, or gives no answer."""

from __future__ import annotations

import asyncio
import socket
import traceback

from support.link import next_message, one_end, raises
from support.packets import wire
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

from seqrpc import (
    ConnectionLost,
    Overloaded,
    Unavailable,
)
from seqrpc.limits import Limits


async def test_after_closing_new_calls_fail_and_those_in_flight_are_answered() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        in_flight = end.call("m")
        message = await next_message(raw)
        in_line = end.call("m")
        await turns_of_the_loop()
        raw.send(wire(5, "going home"))
        await raises(Unavailable, in_line, "takes no new requests: going home")
        await raises(Unavailable, end.connection.caller.request("m", ()))
        await raises(Unavailable, end.connection.caller.send_notify("m", ()))
        raw.send(wire(1, message[1], None, "answer"))
        assert await in_flight == "answer"
        await raises(Unavailable, end.connection.caller.request("m", ()))


async def test_a_reason_is_shown_on_one_short_line_and_is_whole_in_an_attribute() -> None:
    reason = "gone\n2038-01-19 CRITICAL\x1b[2J" + "x" * 60_000
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        raw.send(wire(5, reason))
        await comes_true(lambda: end.connection.session.closing_received is not None)
        unavailable = await raises(Unavailable, end.connection.caller.request("m", ()), r"requests: gone\\n2038")
        raw.close()
        lost = await raises(ConnectionLost, call, r"had said: gone\\n2038")
        for error in (unavailable, lost):
            assert error.reason == reason
            assert len("".join(traceback.format_exception(error))) < 5_000
            assert "\x1b" not in repr(error) + str(error)


async def test_a_call_that_finds_nobody_reading_tells_what_was_said_before() -> None:
    async with one_end() as (end, raw):
        end.transport.pause_reading()
        raw.send(wire(5, "going home"))
        raw.shutdown(socket.SHUT_RD)
        end.transport.resume_reading()
        call = end.call("m")
        notify = asyncio.ensure_future(end.connection.caller.send_notify("m", ()))
        for one in (call, notify):
            error = await raises((Unavailable, ConnectionLost), one, "going home")
            assert error.reason == "going home"
        assert not end.connection.session.calls


async def test_a_call_that_finds_nobody_reading_who_said_nothing_is_lost() -> None:
    async with one_end() as (end, raw):
        raw.shutdown(socket.SHUT_RD)
        for call in (end.connection.caller.request("m", ()), end.connection.caller.send_notify("m", ())):
            await raises(ConnectionLost, call)
        assert end.connection.closed


async def test_calls_in_line_while_no_answer_comes_are_overloaded() -> None:
    async with one_end(Limits(max_calls_in_flight=1, stall_timeout=0.05)) as (end, raw):
        first = end.call("m")
        message = await next_message(raw)
        text = r"1 calls of this connection are unanswered .*no answer came for 0\.05 s \(stall_timeout\)"
        for late in (end.call("late"), end.call("later")):
            error = await raises(Overloaded, asyncio.wait_for(late, PATIENCE), text)
            assert error.remote, "met by a call of this side"
        raw.send(wire(1, message[1], None, "answer"))
        assert await first == "answer"
        last = end.call("last")
        message = await next_message(raw)
        assert message[2] == "last", "what was refused was not sent"
        raw.send(wire(1, message[1], None, None))
        await last


async def test_calls_that_wait_for_room_in_the_socket_are_not_refused_for_want_of_answers() -> None:
    async with one_end(Limits(max_calls_in_flight=1, stall_timeout=0.02)) as (end, raw):
        end.jam()
        waiting = end.call("m")
        await asyncio.sleep(0.1)  # it would have been refused by now
        assert not waiting.done()
        message = await next_message(raw)
        raw.send(wire(1, message[1], None, "answer"))
        assert await waiting == "answer"
