"""Deadlines and cancellation of calls."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.descriptors import Lender, owned
from support.link import both_ends, next_message, one_end, raises, soon
from support.packets import send_with, wire
from support.waiting import comes_true, turns_of_the_loop

from seqrpc import (
    DeadlineExceeded,
)
from seqrpc.limits import Limits


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    async with one_end() as (end, raw):
        past = time.monotonic_ns()
        await raises(DeadlineExceeded, end.connection.caller.request("m", (), past), "before the call was sent")
        await raises(DeadlineExceeded, end.connection.caller.send_notify("m", (), past), "before the call was sent")
        end.jam()
        await raises(DeadlineExceeded, end.connection.caller.request("m", (), past), "before the call was sent")
        raw.close()


async def test_a_deadline_that_passes_before_the_answer_tells_the_other_side_to_stop(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        call = end.call("m", deadline=soon())
        message = await next_message(raw)
        error = await raises(DeadlineExceeded, call, "before the answer came")
        assert isinstance(error, TimeoutError)
        assert await next_message(raw) == [3, message[1]]
        send_with(raw, wire(1, message[1], None, Lender()), [pipe[0]])  # too late: closed
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))


async def test_a_call_that_is_cancelled_tells_the_other_side_to_stop() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        message = await next_message(raw)
        call.cancel()
        await raises(asyncio.CancelledError, call)
        assert await next_message(raw) == [3, message[1]]


async def test_a_call_that_is_cancelled_in_line_is_never_sent() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        calls = [end.call("m", number) for number in range(3)]
        message = await next_message(raw)
        calls[1].cancel()
        await raises(asyncio.CancelledError, calls[1])
        raw.send(wire(1, message[1], None, None))
        await calls[0]
        assert (await next_message(raw))[3] == [2]


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_an_answer_that_comes_together_with_the_cancellation_is_closed(cancelled_first: bool) -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        call = end.call("m")
        end.call("m", "after")
        message = await next_message(raw)
        with owned(2) as fds:
            every = list(fds)
            if cancelled_first:
                call.cancel()
            end.connection.packet_received(wire(1, message[1], None, [Lender(), Lender()]), fds, None)
            if not cancelled_first:
                call.cancel()
            await raises(asyncio.CancelledError, call)
            assert [fd.closed for fd in every] == [True, True]
        assert (await next_message(raw))[3] == ["after"], "there was nothing left to cancel"


async def test_an_answer_that_comes_together_with_the_deadline_is_closed() -> None:
    async with one_end() as (end, raw):
        deadline = soon()
        call = end.call("m", deadline=deadline)
        message = await next_message(raw)
        with owned(1) as fds:
            every = list(fds)
            waiter = end.connection.session.calls[message[1]]
            waiter.add_done_callback(
                lambda _waiter: end.connection.packet_received(wire(1, message[1], None, Lender()), fds, None)
            )
            await raises(DeadlineExceeded, call)
            assert every[0].closed


async def test_an_answer_that_is_there_as_the_deadline_passes_is_taken_or_closed(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        deadline = soon()
        call = end.call("m", deadline=deadline)
        message = await next_message(raw)
        send_with(raw, wire(1, message[1], None, Lender()), [pipe[0]])
        while time.monotonic_ns() <= deadline:  # the loop finds both at once
            pass
        try:
            (await call).close()
        except DeadlineExceeded:  # it looks at its timers first
            assert await next_message(raw) == [3, message[1]]


async def test_an_answer_ends_the_deadlines_timer() -> None:
    async with both_ends() as (one, _):
        deadline = soon()
        assert await one.connection.caller.request("m", (1,), deadline) == [1]
        while time.monotonic_ns() <= deadline:
            await turns_of_the_loop(1)
        assert await one.connection.caller.request("m", (2,)) == [2]
