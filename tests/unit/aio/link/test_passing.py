"""Connections that are passed on or dropped."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from support.link import End, next_message, one_end, raises
from support.packets import fill, raw_pair, readable, receive, wire
from support.waiting import comes_true

from seqrpc import (
    ConnectionLost,
    OwnedFd,
)
from seqrpc.aio.accounts import IN_FLIGHT, UNSENT_BYTES
from seqrpc.limits import DEFAULT_LIMITS

# Passing the connection on


async def test_a_connection_without_calls_can_be_detached() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        raw.send(wire(1, (await next_message(raw))[1], None, 1))
        assert await call == 1
        sock = end.connection.detach()
        assert sock is end.sock
        assert end.connection.closed
        assert end.handler.lost == 1
        await end.connection.wait_closed()
        await raises(ConnectionLost, end.connection.caller.request("m", ()), "the connection was passed on")
        await raises(ConnectionLost, end.connection.caller.send_notify("m", ()), "the connection was passed on")
        await end.connection.close()
        assert end.connection.detach() is None

        async with served_again(sock) as again:
            raw.send(wire(0, 1, "m", []))
            assert await next_message(raw) == [1, 1, None, []]
            assert len(again.handler.requests) == 1


async def test_what_a_connection_left_unread_is_no_matter_of_this_side_once_it_is_detached() -> None:
    async with one_end() as (end, raw):
        for call_id, result in ((1, OwnedFd(os.memfd_create("sent"))), (2, bytes(1_000_001))):
            raw.send(wire(0, call_id, "m", []))
            await comes_true(lambda: len(end.handler.requests) == call_id)  # noqa: B023 - it is called at once
            end.answers.send_result(call_id, result)
        account, timer = end.connection.account, end.connection.unread_timer
        assert account.holds(IN_FLIGHT) == 2
        assert account.holds(UNSENT_BYTES) > 1_000_000
        assert timer is not None
        sock = end.connection.detach()
        assert sock is not None
        with sock:
            assert (account.holds(IN_FLIGHT), account.holds(UNSENT_BYTES)) == (0, 0)
            assert not account.in_flight
            assert end.connection.unread_timer is None
            assert timer.cancelled()
            sock.send(wire(5, "it is not shut down"))
            for _ in range(2):  # the answers, whose descriptors are dropped here
                assert await receive(raw)
            assert await next_message(raw) == [5, "it is not shut down"]


@asynccontextmanager
async def served_again(sock: socket.socket) -> AsyncIterator[End]:
    """Carry a session of its own on a socket that another had."""
    end = End(sock, DEFAULT_LIMITS)
    end.handler.on_request = end.handler.echo
    yield end
    await end.connection.close()


async def _call_in_flight(end: End, raw: socket.socket) -> None:
    end.call("m")
    await next_message(raw)


async def _call_given_up(end: End, raw: socket.socket) -> None:
    call = end.call("m")
    await next_message(raw)
    call.cancel()
    await raises(asyncio.CancelledError, call)


async def _request_unanswered(end: End, raw: socket.socket) -> None:
    raw.send(wire(0, 1, "m", []))
    await comes_true(lambda: bool(end.handler.requests))


async def _closing_received(end: End, raw: socket.socket) -> None:
    raw.send(wire(5, "going home"))
    await comes_true(lambda: end.connection.session.closing_received is not None)


async def _packets_wait(end: End, raw: socket.socket) -> None:
    fill(end.sock)
    await end.connection.caller.send_notify("m", ())


@pytest.mark.parametrize(
    "busy", [_call_in_flight, _call_given_up, _request_unanswered, _closing_received, _packets_wait]
)
async def test_a_connection_in_use_is_not_detached(
    busy: Callable[[End, socket.socket], Coroutine[Any, Any, None]],
) -> None:
    async with one_end() as (end, raw):
        await busy(end, raw)
        assert end.connection.detach() is None
        assert not end.connection.closed
        assert end.transport.is_reading()


# Dropping the connection


async def test_a_connection_can_be_abandoned_in_its_loop() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        end.connection.abandon()
        await raises(ConnectionLost, call, "closed on this side")
        assert await receive(raw) == b""
        end.connection.abandon()
        await end.connection.wait_closed()


async def test_a_connection_can_be_abandoned_in_another_thread() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        await asyncio.to_thread(end.connection.abandon)
        await raises(ConnectionLost, call, "closed on this side")
        assert await receive(raw) == b""


async def test_a_connection_can_be_abandoned_in_the_loop_of_another_thread() -> None:
    async with one_end() as (end, raw):

        async def abandon() -> None:
            end.connection.abandon()

        await asyncio.to_thread(asyncio.run, abandon())
        assert await receive(raw) == b""
        await end.connection.wait_closed()


async def _made() -> tuple[End, socket.socket]:
    ours, theirs = raw_pair()
    return End(ours, DEFAULT_LIMITS), theirs


NEW_LOOPS = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@NEW_LOOPS
def test_a_connection_can_be_abandoned_after_its_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop = new_loop()
    end, raw = loop.run_until_complete(_made())
    loop.close()
    end.connection.abandon()
    assert raw.recv(1) == b""
    raw.close()


@NEW_LOOPS
def test_a_connection_can_be_abandoned_while_its_loop_rests(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop = new_loop()
    end, raw = loop.run_until_complete(_made())
    number = end.sock.fileno()
    end.connection.abandon()
    assert raw.recv(1) == b""

    async def go_on() -> None:
        await end.connection.wait_closed()
        others = [raw_pair() for _ in range(3)]  # one of them has the number now
        assert number in {sock.fileno() for pair in others for sock in pair}
        for one, other in others:
            one.send(b"x")
            other.send(b"x")
            assert await receive(one) == b"x"
            await readable(other)
            assert await receive(other) == b"x"
            one.close()
            other.close()

    loop.run_until_complete(go_on())
    loop.close()
    raw.close()
