"""Calls wait their turn."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.link import End, both_ends, next_message, one_end, raises, soon
from support.packets import wire
from support.waiting import turns_of_the_loop

from seqrpc import (
    ConnectionLost,
    DeadlineExceeded,
    LocalProtocolError,
)
from seqrpc.limits import Limits


async def test_a_call_that_finds_room_again_before_its_turn_is_sent_at_once() -> None:
    """Calls given up count, but not for more than they are."""
    async with one_end(Limits(max_calls_in_flight=2)) as (end, raw):
        given_up = end.call("m", "given up")
        call_id = (await next_message(raw))[1]
        given_up.cancel()
        await raises(asyncio.CancelledError, given_up)
        assert await next_message(raw) == [3, call_id]
        call = end.call("m", "next")
        message = await next_message(raw)
        assert message[3] == ["next"]
        raw.send(wire(1, message[1], None, "answer"))
        assert await call == "answer"


# In turn


async def test_calls_beyond_the_bound_wait_their_turn_in_order() -> None:
    async with one_end(Limits(max_calls_in_flight=2)) as (end, raw):
        calls = [end.call("m", number) for number in range(5)]
        sent = [await next_message(raw) for _ in range(2)]
        for number in range(2, 5):
            await turns_of_the_loop()
            with pytest.raises(BlockingIOError):
                raw.recv(1)
            raw.send(wire(1, sent[number - 2][1], None, None))
            sent.append(await next_message(raw))
        for message in sent[3:]:
            raw.send(wire(1, message[1], None, None))
        await asyncio.gather(*calls)
        assert [message[3] for message in sent] == [[number] for number in range(5)]


async def test_between_two_sides_with_the_same_bound_nothing_is_refused() -> None:
    async with both_ends(Limits(max_calls_in_flight=2)) as (one, other):

        async def call_on(end: End) -> None:
            for number in range(20):
                assert await end.connection.caller.request("m", (number,)) == [number]

        await asyncio.gather(*(call_on(end) for end in (one, other) for _ in range(5)))


async def test_a_call_that_was_given_up_counts_until_it_is_answered() -> None:
    """To the other side it is in flight: it would refuse one more."""
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        given_up = end.call("m", "given up")
        call_id = (await next_message(raw))[1]
        given_up.cancel()
        await raises(asyncio.CancelledError, given_up)
        assert await next_message(raw) == [3, call_id]
        call = end.call("m", "next")
        await turns_of_the_loop()
        assert not end.connection.session.calls
        raw.send(wire(1, call_id, ["rpc.Cancelled", "", None], None))
        message = await next_message(raw)
        assert message[3] == ["next"]
        assert message[1] != call_id
        raw.send(wire(1, message[1], None, "answer"))
        assert await call == "answer"


async def test_a_call_in_line_that_cannot_be_sent_lets_the_next_one_go() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        first = end.call("m")
        call_id = (await next_message(raw))[1]
        wrong = end.call("m", 2**70)
        late = end.call("m", deadline=soon())
        last = end.call("m", "last")
        await raises(DeadlineExceeded, late, "before the call could be sent")
        raw.send(wire(1, call_id, None, 1))
        assert await first == 1
        await raises(LocalProtocolError, wrong)
        message = await next_message(raw)
        assert message[3] == ["last"]
        raw.send(wire(1, message[1], None, 2))
        assert await last == 2


async def test_a_call_in_line_whose_deadline_passes_as_its_turn_comes_lets_the_next_one_go() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        first = end.call("m")
        call_id = (await next_message(raw))[1]
        deadline = soon()
        late = end.call("m", deadline=deadline)
        end.call("m", "last")
        await turns_of_the_loop()
        while time.monotonic_ns() <= deadline:  # the loop must not see it pass
            pass
        end.connection.packet_received(wire(1, call_id, None, 1), [], None)
        assert await first == 1
        await raises(DeadlineExceeded, late, "before")
        assert (await next_message(raw))[3] == ["last"]


async def test_calls_wait_while_the_other_side_does_not_read() -> None:
    async with one_end() as (end, raw):
        end.jam()
        calls = [end.call("m", number) for number in range(3)]
        notify = asyncio.create_task(end.connection.caller.send_notify("n", ()))
        given_up = end.call("never")
        late = end.call("never", deadline=soon())
        late_notify = asyncio.create_task(end.connection.caller.send_notify("never", (), soon()))
        await raises(DeadlineExceeded, late, "before the call could be sent")
        await raises(DeadlineExceeded, late_notify, "before the call could be sent")
        given_up.cancel()
        await raises(asyncio.CancelledError, given_up)
        assert not end.connection.session.calls
        assert not notify.done()

        messages = [await next_message(raw) for _ in range(4)]
        await notify
        assert [message[2:] for message in messages[:3]] == [["m", [number]] for number in range(3)]
        assert messages[3] == [2, "n", []]
        for message in messages[:3]:
            raw.send(wire(1, message[1], None, message[3]))
        assert await asyncio.gather(*calls) == [[0], [1], [2]]


async def test_a_connection_that_is_lost_while_calls_wait_fails_them_and_all_that_follow() -> None:
    async with one_end() as (end, raw):
        end.jam()
        waiting = [end.call("m"), asyncio.create_task(end.connection.caller.send_notify("m", ()))]
        await turns_of_the_loop()
        raw.close()
        for call in waiting:
            await raises(ConnectionLost, call)
        await raises(ConnectionLost, end.connection.caller.request("m", ()))
        await raises(ConnectionLost, end.connection.caller.send_notify("m", ()))
