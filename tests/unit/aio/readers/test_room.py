"""Where there is no room for more descriptors."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.descriptors import Lender, same_file
from support.packets import send_with, wire
from support.scarcity import no_room, short_table, stalled
from support.streams import is_closed, next_item_of, received_stream
from support.waiting import comes_true, turns_of_the_loop

from seqrpc.aio.streams import reader_of
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import close_all, sender_of


def send_a_descriptor(raw: socket.socket, pipe: tuple[int, int]) -> None:
    send_with(raw, wire(0, Lender()), [pipe[0]])


async def test_items_with_descriptors_wait_while_the_sender_s_are_being_closed(pipe: tuple[int, int]) -> None:
    async with received_stream(wire(0, 1)) as (stream, raw):
        send_a_descriptor(raw, pipe)
        raw.send(wire(0, 2))
        with no_room(1001) as lifted:
            assert await anext(stream) == 1
            task = await next_item_of(stream)
            await turns_of_the_loop(50)
            assert not task.done()
            lifted.set()
            with await task as fd:
                assert same_file(fd, pipe[0])
                assert sender_of(fd) == 1001
        assert await anext(stream) == 2


async def test_an_item_that_is_waited_for_may_be_one_that_has_to_wait(pipe: tuple[int, int]) -> None:
    async with received_stream() as (stream, raw):
        task = await next_item_of(stream)
        with no_room(1001) as lifted:
            send_a_descriptor(raw, pipe)
            await turns_of_the_loop(50)
            assert not task.done()
            lifted.set()
            close_all([await task])


@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_reading_may_end_while_an_item_waits_for_room(pipe: tuple[int, int], how: str) -> None:
    async with received_stream() as (stream, raw):
        send_a_descriptor(raw, pipe)
        with no_room(1001) as lifted:
            task = await next_item_of(stream)
            await comes_true(lambda: reader_of(stream)._gate is not None)
            if how == "closed":
                reader_of(stream).close()
                with pytest.raises(StopAsyncIteration):
                    await task
            else:
                task.cancel()
                await asyncio.wait([task])
                assert reader_of(stream)._gate is None
            assert CLOSER._hopeful == {}
            lifted.set()
        if how == "cancelled":
            close_all([await anext(stream)])


async def test_where_the_table_is_short_items_with_descriptors_are_received_elsewhere(pipe: tuple[int, int]) -> None:
    async with received_stream(wire(0, 1)) as (stream, raw):
        send_a_descriptor(raw, pipe)
        raw.send(wire(0, 2))
        with short_table():
            assert await anext(stream) == 1
            with await anext(stream) as fd:
                assert same_file(fd, pipe[0])
            assert await anext(stream) == 2


async def test_an_item_that_is_received_elsewhere_is_not_lost_by_a_cancelled_read(pipe: tuple[int, int]) -> None:
    async with received_stream() as (stream, raw):
        send_a_descriptor(raw, pipe)
        raw.send(wire(0, 2))
        with short_table(), stalled(1001) as lifted:
            for _ in range(2):
                task = await next_item_of(stream)
                await comes_true(lambda: (gate := reader_of(stream)._gate) is not None and gate.receives)
                task.cancel()
                await asyncio.wait([task])
            assert reader_of(stream).detach() is None, "it can only be relayed"
            lifted.set()
            with await anext(stream) as fd:
                assert same_file(fd, pipe[0])
        assert await anext(stream) == 2


async def test_a_stream_may_be_closed_while_an_item_is_received_elsewhere(pipe: tuple[int, int]) -> None:
    async with received_stream() as (stream, raw):
        send_a_descriptor(raw, pipe)
        with short_table(), stalled(1001) as lifted:
            task = await next_item_of(stream)
            await comes_true(lambda: reader_of(stream)._gate is not None)
            reader_of(stream).close()
            with pytest.raises(StopAsyncIteration):
                await task
            lifted.set()
            assert await is_closed(raw)


async def test_a_failure_to_receive_elsewhere_is_as_any_other(pipe: tuple[int, int]) -> None:
    async with received_stream() as (stream, raw):
        send_a_descriptor(raw, pipe)
        with short_table(), stalled(1001) as lifted:
            task = await next_item_of(stream)
            await comes_true(lambda: reader_of(stream)._gate is not None)
            reader_of(stream)._socket().recv(1)  # somebody was quicker
            lifted.set()
            raw.send(wire(0, 7))
            assert await task == 7
