"""What a test can tell a way, and what becomes of calls then."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest
from support.descriptors import owned
from support.faulty import Echo, outcome
from support.packets import fill, readable, send_with
from support.waiting import turns_of_the_loop

import seqrpc
from seqrpc.testing import assert_no_leaks, faulty_pair, serve_in_memory


async def test_a_dropped_request_never_arrives() -> None:
    echo = Echo()
    async with faulty_pair() as pair, serve_in_memory(echo, pair=pair) as connection:
        proxy = connection.proxy(Echo)
        fault = pair.to_server.drop("one")
        one = asyncio.create_task(proxy.say("one"))
        assert await proxy.say("two") == "two"
        assert not one.done()
        assert (fault.count, echo.heard) == (1, ["two"])
        one.cancel()
        assert isinstance(await outcome(one), asyncio.CancelledError)


async def test_a_dropped_answer_is_never_heard_of() -> None:
    echo = Echo()
    async with faulty_pair() as pair, serve_in_memory(echo, pair=pair) as connection:
        proxy = connection.proxy(Echo)
        fault = pair.to_client.drop()
        one = asyncio.create_task(proxy.say("one"))
        await fault.happened()
        assert await proxy.say("two") == "two"
        assert not one.done()
        assert echo.heard == ["one", "two"]
    assert isinstance(await outcome(one), seqrpc.ConnectionLost)


async def test_a_packet_is_held_with_all_behind_it_until_it_is_released() -> None:
    echo = Echo()
    async with assert_no_leaks(), faulty_pair() as pair, serve_in_memory(echo, pair=pair) as connection:
        proxy = connection.proxy(Echo)
        held = pair.to_server.hold("two")
        calls = [asyncio.create_task(proxy.say(word)) for word in ("one", "two", "three")]
        await held.happened()
        assert await calls[0] == "one"
        await turns_of_the_loop(50)
        assert echo.heard == ["one"]
        held.release()
        assert await asyncio.gather(*calls) == ["one", "two", "three"]


async def test_a_deadline_ends_a_call_whose_answer_is_held() -> None:
    echo = Echo()
    async with faulty_pair() as pair, serve_in_memory(echo, pair=pair) as connection:
        proxy = connection.proxy(Echo)
        held = pair.to_client.hold()
        with pytest.raises(seqrpc.DeadlineExceeded):
            async with seqrpc.timeout(0.05):
                await proxy.say("one")
        assert (held.count, echo.heard) == (1, ["one"])
        held.release()
        assert await proxy.say("two") == "two"


async def test_a_peer_that_reads_no_more_fills_the_buffer_and_callers_wait() -> None:
    echo = Echo()
    limits = seqrpc.Limits(high_water_bytes=50_000, low_water_bytes=10_000)
    async with faulty_pair() as pair, serve_in_memory(echo, pair=pair, client_limits=limits) as connection:
        stopped = pair.to_server.stop_reading()
        assert stopped.count == 1
        word = "x" * 50_000
        calls = [asyncio.create_task(connection.call("Echo.say", word)) for _ in range(20)]
        await turns_of_the_loop(50)
        assert echo.heard == []
        transport_is_full = fill(pair.client) == 0
        assert transport_is_full
        stopped.release()
        assert await asyncio.gather(*calls) == [word] * 20


async def test_a_request_in_whose_place_the_connection_ends_never_arrives() -> None:
    echo = Echo()
    async with assert_no_leaks(), faulty_pair() as pair, serve_in_memory(echo, pair=pair) as connection:
        fault = pair.to_server.disconnect("two")
        proxy = connection.proxy(Echo)
        assert await proxy.say("one") == "one"
        with pytest.raises(seqrpc.ConnectionLost):
            await proxy.say("two")
        assert (fault.count, echo.heard) == (1, ["one"])
        await connection.wait_closed()


async def test_an_answer_in_whose_place_it_ends_was_given() -> None:
    echo = Echo()
    async with assert_no_leaks(), faulty_pair() as pair, serve_in_memory(echo, pair=pair) as connection:
        fault = pair.to_client.disconnect()
        with pytest.raises(seqrpc.ConnectionLost):
            await connection.proxy(Echo).say("one")
        assert (fault.count, echo.heard) == (1, ["one"])


async def test_a_client_that_is_reset_takes_the_answers_that_are_queued() -> None:
    echo = Echo()
    async with assert_no_leaks(), faulty_pair() as pair, serve_in_memory(echo, pair=pair) as connection:
        proxy = connection.proxy(Echo)
        held = pair.to_client.hold()
        calls = [asyncio.create_task(proxy.say(word)) for word in ("one", "two")]
        await held.happened()
        pair.to_server.reset("three")
        calls.append(asyncio.create_task(proxy.say("three")))
        outcomes = [await outcome(call) for call in calls]
        assert outcomes[:2] == ["one", "two"]
        assert isinstance(outcomes[2], seqrpc.ConnectionLost)
        assert "reset" in str(outcomes[2])
        assert echo.heard == ["one", "two"]


async def test_each_thing_that_a_way_can_be_told_happens_once_to_its_packet() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        refused, failed = pair.to_server.refuse_descriptors(times=1), pair.to_server.fail(errno.ENOBUFS, "third")
        cut = pair.to_server.cut_control()
        with owned(1) as fds:
            numbers = [fds[0].fileno()]
            with pytest.raises(PermissionError):
                send_with(pair.client, b"first", numbers)
            send_with(pair.client, b"second", numbers)
            with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
                pair.client.send(b"third")
        await readable(pair.server)
        size, control, flags, _address = pair.server.recvmsg_into([bytearray(100)], 1_000)
        assert (size, control, flags & socket.MSG_CTRUNC) == (6, [], socket.MSG_CTRUNC)
        assert [refused.count, failed.count, cut.count] == [1, 1, 1]
