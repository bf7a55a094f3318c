"""Answers that the kernel refuses."""

from __future__ import annotations

import asyncio
import errno
import io
import os

import pytest
from support.descriptors import Lender, owned, refuse_descriptors
from support.link import TAKES_NONE, next_message, one_end, raises
from support.packets import fill, receive_to_the_end, wire
from support.scarcity import table_full
from support.waiting import comes_true, turns_of_the_loop

from seqrpc import (
    ConnectionLost,
)


async def test_an_answer_with_descriptors_to_who_takes_none_becomes_an_error() -> None:
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        end.answers.send_result(1, [Lender()])
        end.answers.send_error(2, "x.y", "text", Lender())
        expected = ["rpc.DescriptorsLost", TAKES_NONE, None]
        assert await next_message(raw) == [1, 1, expected, None]
        assert await next_message(raw) == [1, 2, expected, None]


async def test_a_queued_answer_with_descriptors_to_who_takes_none_becomes_an_error() -> None:
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        fill(end.sock)
        end.answers.send_result(1, [Lender()])
        expected = ["rpc.DescriptorsLost", TAKES_NONE, None]
        assert await next_message(raw) == [1, 1, expected, None]


async def test_a_queued_answer_that_is_refused_while_the_connection_closes_is_dropped() -> None:
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        fill(end.sock)
        end.answers.send_result(1, [Lender()])
        closing = asyncio.create_task(end.connection.close())
        await turns_of_the_loop()
        assert set(await receive_to_the_end(raw)) == {b"x" * 1000}
        await closing


async def test_an_answer_whose_descriptors_cannot_be_kept_becomes_an_error() -> None:
    async with one_end() as (end, raw):
        fill(end.sock)
        with table_full():
            end.answers.send_result(1, [Lender()])
        message = await next_message(raw)
        assert message[2][0] == "rpc.DescriptorsLost"
        assert "Too many open files" in message[2][1]


async def test_an_answer_with_what_has_no_descriptor_is_the_answerers_fault() -> None:
    async with one_end() as (end, raw):
        with pytest.raises(ValueError, match="BytesIO has no descriptor"):
            end.answers.send_result(1, [io.BytesIO()])
        with pytest.raises(ValueError, match="BytesIO has no descriptor"):
            end.answers.send_error(1, "x.y", "text", io.BytesIO())
        end.answers.send_error(1, "rpc.Internal", "")
        assert await next_message(raw) == [1, 1, ["rpc.Internal", "", None], None]


async def test_an_answer_that_cannot_be_sent_at_all_ends_the_connection() -> None:
    async with one_end() as (end, _raw):
        end.transport.pause_reading()  # libuv ends the process if it meets what comes now
        with owned(1) as fds:
            os.dup2(fds[0].fileno(), end.sock.fileno())
        end.answers.send_result(1, None)
        await end.connection.wait_closed()
        error = await raises(ConnectionLost, end.connection.caller.request("m", ()))
        assert error.__cause__.errno == errno.ENOTSOCK


async def test_the_error_in_place_of_a_queued_answer_is_not_the_answer_to_the_next_request_of_its_id() -> None:
    """Whoever reuses an id that he has no answer to is served, and neither forgotten nor waited for in vain."""
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        raw.send(wire(0, 1, "m", ["first"]))
        await comes_true(lambda: len(end.handler.requests) == 1)
        fill(end.sock)
        end.answers.send_result(1, [Lender()])
        raw.send(wire(0, 1, "m", ["second"]))
        await comes_true(lambda: len(end.handler.requests) == 2)
        assert await next_message(raw) == [1, 1, ["rpc.DescriptorsLost", TAKES_NONE, None], None]
        assert set(end.connection.session.requests) == {1}
        end.answers.send_result(1, "second")
        assert await next_message(raw) == [1, 1, None, "second"]
        assert end.connection.session.requests == {}
