"""The reading end of a stream, with a raw socket for its producer."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import re
import socket
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import msgspec
import pytest
import uvloop
from helpers import Lender, steps_of_python
from lingering import lingering
from packets import (
    comes_true,
    files,
    fill,
    no_room,
    raw_pair,
    receive,
    send_with,
    short_table,
    stalled,
    table_full,
    turns_of_the_loop,
    wire,
)
from processes import in_child

from seqrpc import (
    ConnectionLost,
    DescriptorsLost,
    LocalProtocolError,
    OwnedFd,
    RemoteProtocolError,
    RpcError,
    TooLarge,
    Unavailable,
)
from seqrpc.aio import streams
from seqrpc.aio.streams import Stream
from seqrpc.kernel import memfd
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import ValueFd, close_all, sender_of, value_fd
from seqrpc.limits import MAX_VALUES_SEARCHED, Limits
from seqrpc.protocol.codec import Codec
from seqrpc.protocol.items import ItemReader
from seqrpc.protocol.values import descriptors_in

END = wire(1, None)
LIMITS = Limits(max_message_bytes=200_000)


class Wrong(RpcError, code="streams.Wrong"):
    """An error of an application's own."""


def stream_on(sock: socket.socket) -> Stream[Any]:
    """Return a stream that reads a socket, which is its own from now on."""
    return Stream(ValueFd(sock.detach()), ItemReader(Codec(LIMITS), LIMITS.max_message_bytes))


@asynccontextmanager
async def reading(*packets: bytes) -> AsyncIterator[tuple[Stream[Any], socket.socket]]:
    """Return a stream, and the raw socket of its producer, which has sent some packets."""
    ours, theirs = raw_pair()
    stream = stream_on(ours)
    for packet in packets:
        theirs.send(packet)
    try:
        yield stream, theirs
    finally:
        await stream.aclose()
        theirs.close()


async def is_closed(raw: socket.socket) -> bool:
    """Return whether the producer is told that nobody reads; fails if that never happens."""
    return await receive(raw) == b""


def same_file(fd: OwnedFd, number: int) -> bool:
    return os.path.sameopenfile(fd.fileno(), number)


async def all_of(stream: Stream[Any]) -> list[Any]:
    return [item async for item in stream]


def waits(task: asyncio.Task[Any], stream: Stream[Any]) -> bool:
    return not task.done() and stream._waiter is not None


async def reader_of(stream: Stream[Any]) -> asyncio.Task[Any]:
    """Return a task that waits for the next item."""
    task = asyncio.ensure_future(anext(stream))
    await comes_true(lambda: waits(task, stream))
    return task


# Items


async def test_items_come_in_order_one_or_more_to_a_packet() -> None:
    async with reading(wire(0, 1), wire(0, 2, 3, 4), wire(0, [5]), END) as (stream, raw):
        assert await all_of(stream) == [1, 2, 3, 4, [5]]
        assert stream.closed
        assert await is_closed(raw)


async def test_items_come_as_they_are_sent() -> None:
    async with reading() as (stream, raw):
        for number in range(20):
            task = await reader_of(stream) if number % 2 else None
            raw.send(wire(0, number))
            assert (await anext(stream) if task is None else await task) == number


async def test_a_stream_that_is_over_stays_so() -> None:
    async with reading(END) as (stream, _raw):
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert await all_of(stream) == []


async def test_packets_of_unknown_kinds_are_ignored(pipe: tuple[int, int]) -> None:
    async with reading(wire(2, "later"), wire(0, 1)) as (stream, raw):
        send_with(raw, wire(7, [Lender(), Lender()]), pipe)
        raw.send(END)
        assert await all_of(stream) == [1]


async def test_descriptors_come_with_items_and_are_the_readers(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        send_with(raw, wire(0, Lender(), {"b": Lender()}), pipe)
        raw.send(END)
        first, second = await all_of(stream)
        for fd, number in zip((first, second["b"]), pipe, strict=True):
            assert same_file(fd, number)
            fd.close()


def send_spilled(raw: socket.socket, *message: Any, fds: Sequence[int] = ()) -> int:
    """Send a message as a memory file; return its length."""
    data = wire(*message)
    with memfd.sealed("item", data) as file:
        send_with(raw, wire(4, len(data)), [file.fileno(), *fds])
    return len(data)


async def test_large_items_come_as_memory_files(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        send_spilled(raw, 0, b"x" * 100_000)
        send_spilled(raw, 0, b"y" * 100_000, Lender(), fds=pipe[:1])
        send_spilled(raw, 1, None)
        large, larger, fd = await all_of(stream)
        assert (large, larger) == (b"x" * 100_000, b"y" * 100_000)
        assert same_file(fd, pipe[0])
        fd.close()


async def test_an_item_over_the_limit_is_too_large_and_ends_the_stream(pipe: tuple[int, int]) -> None:
    async with reading(wire(0, 1)) as (stream, raw):
        length = send_spilled(raw, 0, b"x" * 200_000, Lender(), fds=pipe[:1])
        raw.send(wire(0, 2))
        assert await anext(stream) == 1
        with pytest.raises(TooLarge, match=f"at most 200000 bytes .max_message_bytes., this one {length}"):
            await anext(stream)
        assert stream.closed
        with pytest.raises(ConnectionResetError):  # what nobody read is thrown away by the kernel
            await is_closed(raw)


# Ends


async def test_an_error_of_the_producer_is_raised_as_the_class_of_its_code() -> None:
    async with reading(wire(0, 1), wire(1, ["streams.Wrong", "text", [7]])) as (stream, raw):
        assert await anext(stream) == 1
        with pytest.raises(Wrong) as caught:
            await anext(stream)
        assert (caught.value.message, caught.value.data, caught.value.remote) == ("text", [7], True)
        assert stream.closed
        assert await is_closed(raw)
        assert await all_of(stream) == []


async def test_an_error_of_the_producer_may_bring_descriptors(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        send_with(raw, wire(1, ["streams.Wrong", "text", Lender()]), pipe[:1])
        with pytest.raises(Wrong) as caught:
            await anext(stream)
        caught.value.data.close()


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_producer_that_dies_is_told_from_one_that_ended(waiting: bool) -> None:
    async with reading(wire(0, 1)) as (stream, raw):
        assert await anext(stream) == 1
        task = await reader_of(stream) if waiting else None
        raw.close()
        with pytest.raises(Unavailable, match="the producer of the stream died"):
            await (task or anext(stream))
        assert stream.closed
        assert await all_of(stream) == []


async def test_what_came_before_the_producer_died_is_read_first() -> None:
    async with reading(wire(0, 1), wire(0, 2, 3)) as (stream, raw):
        raw.close()
        assert [await anext(stream) for _ in range(3)] == [1, 2, 3]
        with pytest.raises(Unavailable):
            await anext(stream)


async def test_what_came_before_a_reset_is_read_first() -> None:
    """A reader that wrote into the stream resets itself when the producer closes (protocol 1.6)."""
    async with reading(wire(0, 1), wire(0, 2), END) as (stream, raw):
        stream._socket().send(b"not listened to")
        raw.close()
        assert await all_of(stream) == [1, 2]


MALFORMED = {
    "no_value": b"\xc1",
    "bytes_left_over": wire(0, 1) + b"\x00",
    "no_array": b"\x2a",
    "an_empty_array": b"\x90",
    "a_kind_that_is_no_number": b"\x91\xa1x",
    "no_items": wire(0),
    "an_end_of_one": wire(1),
    "an_end_of_three": wire(1, None, None),
    "an_error_that_is_a_string": wire(1, "error"),
    "an_error_of_two": wire(1, ["a.b", "text"]),
    "spilled_without_a_file": wire(4, 70_000),
    "spilled_without_a_length": wire(4),
    "too_deep": b"\x91" * 70 + b"\x90",
    "a_descriptor_that_did_not_come": b"\x92\x00\xd4\x01\x05",
    "an_unknown_extension": b"\x92\x00\xd4\x07\x00",
}


@pytest.mark.parametrize("attached", [0, 2], ids=["bare", "with_descriptors"])
@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_packet_ends_the_stream(name: str, attached: int) -> None:
    async with reading(wire(0, 1)) as (stream, raw):
        with files(attached) as fds:
            send_with(raw, MALFORMED[name], [fd.fileno() for fd in fds])
        assert await anext(stream) == 1
        with pytest.raises(RemoteProtocolError):
            await anext(stream)
        assert stream.closed
        assert await is_closed(raw)


async def test_descriptors_that_nothing_refers_to_end_the_stream(pipe: tuple[int, int]) -> None:
    for packet in (wire(0, 1), END, wire(0, Lender())):
        async with reading() as (stream, raw):
            send_with(raw, packet, pipe)
            with pytest.raises(RemoteProtocolError, match="2 descriptors came"):
                await anext(stream)
            assert stream.closed


async def test_an_oversized_packet_ends_the_stream(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        send_with(raw, b"x" * 70_000, pipe)
        with pytest.raises(RemoteProtocolError, match="at most 65536 bytes, this one 70000"):
            await anext(stream)
        assert stream.closed


async def test_an_empty_packet_is_the_end_and_its_descriptors_are_closed(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        send_with(raw, b"", pipe)
        with pytest.raises(Unavailable):
            await anext(stream)


async def test_descriptors_that_get_lost_cost_the_items_of_their_packet_only(pipe: tuple[int, int]) -> None:
    async with reading(wire(0, 1)) as (stream, raw):
        send_with(raw, wire(0, Lender(), Lender()), pipe)
        send_with(raw, wire(4, 70_000), pipe)
        raw.send(wire(0, 2))
        raw.send(END)
        assert await anext(stream) == 1
        with table_full():
            for _ in range(2):
                with pytest.raises(DescriptorsLost):
                    await anext(stream)
        assert not stream.closed
        assert await all_of(stream) == [2]


async def test_a_socket_that_cannot_be_read_ends_the_stream() -> None:
    async with reading() as (stream, raw):
        with files(1) as fds:
            os.dup2(fds[0].fileno(), stream._socket().fileno())
        with pytest.raises(Unavailable, match="the stream cannot be read: Socket operation on non-socket"):
            await anext(stream)
        assert stream.closed
        assert await is_closed(raw)


# Checks


def small(items: list[Any]) -> list[Any]:
    """Make strings of small numbers."""
    if any(item is None or item >= 10 for item in items):
        raise Wrong("too large")
    return [str(item) for item in items]


async def test_items_are_checked_and_converted() -> None:
    async with reading(wire(0, 1, 2), wire(0, 3), END) as (stream, _raw):
        assert stream.checked(small) is stream
        assert await all_of(stream) == ["1", "2", "3"]


async def test_an_item_that_does_not_fit_comes_after_those_before_it_and_ends_the_stream() -> None:
    async with reading(wire(0, 1, 2, 30, 4), wire(0, 5), END) as (stream, raw):
        stream.checked(small)
        assert [await anext(stream), await anext(stream)] == ["1", "2"]
        with pytest.raises(Wrong, match="too large"):
            await anext(stream)
        assert await all_of(stream) == []
        assert stream.closed
        with pytest.raises(ConnectionResetError):
            await is_closed(raw)


async def test_descriptors_from_the_item_that_does_not_fit_on_are_closed(pipe: tuple[int, int]) -> None:
    def only_files(items: list[Any]) -> list[Any]:
        if any(not isinstance(item, OwnedFd) for item in items):
            raise Wrong
        return items

    async with reading() as (stream, raw):
        with files(3) as fds:
            send_with(raw, wire(0, Lender(), [Lender()], Lender()), [fd.fileno() for fd in fds])
        stream.checked(only_files)
        (await anext(stream)).close()
        with pytest.raises(Wrong):
            await anext(stream)  # the watch on descriptors sees whether they were closed


async def test_items_that_fit_one_by_one_are_taken() -> None:
    def one(items: list[Any]) -> list[Any]:
        if len(items) > 1:
            raise Wrong
        return items

    async with reading(wire(0, 1, 2), END) as (stream, _raw):
        assert await all_of(stream.checked(one)) == [1, 2]


# Waiting


async def test_being_woken_for_nothing_costs_nothing() -> None:
    async with reading() as (stream, raw):
        task = await reader_of(stream)
        stream._on_readable()
        await turns_of_the_loop()
        assert not task.done()
        raw.send(wire(0, 1))
        assert await task == 1
    ours, theirs = raw_pair()
    gone = weakref.ref(stream_on(ours))
    assert gone() is None
    streams._readable(gone)  # the loop found it before it was collected
    theirs.close()


async def test_a_cancelled_reader_loses_nothing() -> None:
    async with reading() as (stream, raw):
        for number in range(3):
            task = await reader_of(stream)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            raw.send(wire(0, number))
            await turns_of_the_loop()
            assert await anext(stream) == number


async def test_an_item_that_comes_together_with_the_cancellation_is_not_lost() -> None:
    async with reading() as (stream, raw):
        for first in (True, False):
            task = await reader_of(stream)
            raw.send(wire(0, 1, 2))
            if first:
                task.cancel()
                stream._on_readable()
            else:
                stream._on_readable()
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [await anext(stream), await anext(stream)] == [1, 2]


async def test_a_deadline_loses_nothing() -> None:
    async with reading() as (stream, raw):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await anext(stream)
        raw.send(wire(0, 1))
        assert await anext(stream) == 1


async def test_only_one_task_reads_at_a_time() -> None:
    async with reading() as (stream, raw):
        task = await reader_of(stream)
        with pytest.raises(RuntimeError, match="another task is reading this stream already"):
            await anext(stream)
        raw.send(wire(0, 1))
        assert await task == 1
        raw.send(wire(0, 2))
        assert await anext(stream) == 2


async def test_a_stream_that_is_always_ready_does_not_starve_the_loop() -> None:
    async with reading() as (stream, raw):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
        sent = fill(raw, wire(0, 1))
        assert sent > 500
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        for _ in range(sent):
            await anext(stream)
        counting.cancel()
        await asyncio.wait([counting])
        assert turns >= sent // 8


async def test_a_stream_that_nobody_reads_is_not_looked_at() -> None:
    """The kernel holds up the producer: nothing is received that nobody asked for."""
    async with reading() as (stream, raw):
        task = await reader_of(stream)
        raw.send(wire(0, 1))
        assert await task == 1
        raw.send(wire(0, 2))
        await comes_true(lambda: stream._loop is None)
        assert not stream._items
        raw.send(END)
        assert await all_of(stream) == [2]


# Closing


async def test_a_stream_that_is_dropped_is_closed(pipe: tuple[int, int]) -> None:
    async with reading(wire(0, 1, 2)) as (stream, raw):
        send_with(raw, wire(0, Lender(), Lender()), pipe)
        again: Stream[Any] = Stream(ValueFd(stream._socket().detach()), stream._reader)
        assert await anext(again) == 1
        del again
        with pytest.raises(ConnectionResetError):  # the descriptors were not read
            await is_closed(raw)


async def test_breaking_out_of_the_loop_drops_a_stream_that_nobody_else_refers_to() -> None:
    ours, theirs = raw_pair()
    theirs.send(wire(0, 1))
    waited = False

    async def send_later() -> None:
        theirs.send(wire(0, 2))

    async for item in stream_on(ours):
        if item == 2:
            break
        later = asyncio.create_task(send_later())  # so that the loop watches the socket
        waited = True
    await later
    assert waited
    assert await is_closed(theirs)
    theirs.close()


async def test_descriptors_of_a_dropped_stream_are_closed_with_it(pipe: tuple[int, int]) -> None:
    ours, theirs = raw_pair()
    stream = stream_on(ours)
    send_with(theirs, wire(0, 1, Lender(), Lender()), pipe)
    assert await anext(stream) == 1
    gone = weakref.ref(stream)
    del stream
    assert gone() is None
    assert await is_closed(theirs)  # the watch on descriptors sees the others
    theirs.close()


async def test_a_stream_that_was_never_read_goes_with_its_descriptor() -> None:
    ours, theirs = raw_pair()
    stream = stream_on(ours)
    del stream
    assert await is_closed(theirs)
    theirs.close()


async def test_aclose_drops_what_nobody_took(pipe: tuple[int, int]) -> None:
    async with reading() as (stream, raw):
        send_with(raw, wire(0, 1, Lender(), [Lender()]), pipe)
        assert await anext(stream) == 1
        await stream.aclose()
        await stream.aclose()
        assert stream.closed
        assert await all_of(stream) == []
        assert await is_closed(raw)


async def test_async_with_closes_at_the_end() -> None:
    async with reading(wire(0, 1), wire(0, 2)) as (stream, raw):
        async with stream as same:
            assert same is stream
            assert await anext(stream) == 1
        assert await all_of(stream) == []
        with pytest.raises(ConnectionResetError):
            await is_closed(raw)


async def test_items_of_a_producer_that_ended_are_read_after_it(pipe: tuple[int, int]) -> None:
    async with reading(wire(0, 1), wire(0, 2)) as (stream, raw):
        assert await anext(stream) == 1
        raw.send(END)
        raw.close()
        assert await all_of(stream) == [2]


async def test_closing_wakes_the_reader() -> None:
    async with reading() as (stream, raw):
        task = await reader_of(stream)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await task
        assert await is_closed(raw)


async def _watched() -> tuple[Stream[Any], socket.socket]:
    """Return a stream whose socket the loop watches."""
    ours, theirs = raw_pair()
    stream = stream_on(ours)
    task = await reader_of(stream)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stream._loop is asyncio.get_running_loop()
    return stream, theirs


async def test_a_stream_may_be_collected_in_another_thread() -> None:
    stream, theirs = await _watched()
    holder = [stream]
    del stream
    await asyncio.to_thread(holder.clear)
    assert await is_closed(theirs)
    theirs.close()


async def test_a_stream_with_items_may_be_collected_in_another_thread(pipe: tuple[int, int]) -> None:
    ours, theirs = raw_pair()
    holder = [stream_on(ours)]
    task = await reader_of(holder[0])
    send_with(theirs, wire(0, 1, Lender(), Lender()), pipe)
    assert await task == 1
    del task
    await asyncio.to_thread(holder.clear)
    assert await is_closed(theirs)
    theirs.close()


NEW_LOOPS = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@NEW_LOOPS
@pytest.mark.parametrize("closed", [False, True], ids=["resting", "closed"])
def test_a_stream_may_be_collected_when_its_loop_does_not_run(
    new_loop: Callable[[], asyncio.AbstractEventLoop], closed: bool
) -> None:
    loop = new_loop()
    stream, raw = loop.run_until_complete(_watched())
    if closed:
        loop.close()
    del stream
    gc.collect()
    assert raw.recv(1) == b""
    raw.close()

    async def again() -> None:
        async with reading(wire(0, 1)) as (stream, _raw):  # on the same number
            assert await anext(stream) == 1
            await (await _cancelled(await reader_of(stream)))

    if not closed:
        loop.run_until_complete(again())
        loop.close()


async def _cancelled(task: asyncio.Task[Any]) -> Coroutine[Any, Any, None]:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return asyncio.sleep(0)


# Passing on


async def test_a_detached_stream_is_over_here_and_goes_on_elsewhere() -> None:
    async with reading(wire(0, 1), wire(0, 2), END) as (stream, _raw):
        assert await anext(stream) == 1
        fd = stream.detach()
        assert fd is not None
        assert stream.closed
        with pytest.raises(ConnectionLost, match="passed on"):
            await anext(stream)
        with pytest.raises(LocalProtocolError, match="was passed on already cannot be passed on"):
            stream.detach()
        assert await all_of(Stream(fd, stream._reader)) == [2]


async def test_a_stream_that_was_never_read_can_be_detached_and_taken_back() -> None:
    async with reading(wire(0, 1), END) as (stream, _raw):
        for _ in range(2):
            fd = stream.detach()
            assert fd is not None
            stream.attach(fd)
        assert not stream.closed
        assert await all_of(stream) == [1]


async def test_a_stream_that_was_watched_can_be_detached_and_taken_back() -> None:
    stream, raw = await _watched()
    fd = stream.detach()
    assert fd is not None
    stream.attach(fd)
    task = await reader_of(stream)
    raw.send(wire(0, 1))
    assert await task == 1
    raw.send(END)
    assert await all_of(stream) == []
    raw.close()


async def test_a_stream_in_use_is_not_detached() -> None:
    async with reading() as (stream, raw):
        task = await reader_of(stream)
        with pytest.raises(LocalProtocolError, match="that a task is reading cannot be passed on"):
            stream.detach()
        raw.send(wire(0, 1, 2))
        assert await task == 1
        assert stream.detach() is None, "an item was received that nobody took"
        assert await anext(stream) == 2
        await stream.aclose()
        with pytest.raises(LocalProtocolError, match="is closed, or was read to its end, cannot be passed on"):
            stream.detach()


# Opening


async def test_the_call_is_made_when_the_first_item_is_asked_for() -> None:
    async with reading(wire(0, 1), END) as (opened, _raw):
        calls = []

        async def call() -> Stream[Any]:
            calls.append(1)
            return opened

        stream: Stream[Any] = Stream(opening=call)
        assert repr(stream) == "<Stream unopened>"
        assert stream.detach() is None
        assert calls == []
        assert await all_of(stream) == [1]
        assert calls == [1]
        assert opened.closed


async def test_open_makes_the_call_so_that_the_stream_can_be_passed_on() -> None:
    async with reading(wire(0, 1), END) as (opened, _raw):
        opened.checked(small)

        async def call() -> Stream[Any]:
            return opened

        stream: Stream[Any] = Stream(opening=call)
        assert await stream.open() is stream
        assert await stream.open() is stream
        assert repr(stream) == "<Stream open>"
        fd = stream.detach()
        assert fd is not None
        stream.attach(fd)
        assert await all_of(stream) == ["1"], "the checks came along"
        assert repr(stream) == "<Stream closed>"


async def test_a_call_that_fails_ends_the_stream() -> None:
    async def call() -> Stream[Any]:
        raise Wrong("no stream")

    stream: Stream[Any] = Stream(opening=call)
    with pytest.raises(Wrong, match="no stream"):
        await anext(stream)
    assert stream.closed
    assert await all_of(stream) == []


async def test_a_call_that_is_cancelled_is_made_again_by_the_next_to_read() -> None:
    async with reading(wire(0, 1), END) as (opened, _raw):
        called = asyncio.Event()
        calls = 0

        async def call() -> Stream[Any]:
            nonlocal calls
            calls += 1
            if calls == 1:
                called.set()
                await asyncio.Event().wait()
            return opened

        stream: Stream[Any] = Stream(opening=call)
        task = asyncio.ensure_future(anext(stream))
        await called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await all_of(stream) == [1]
        assert calls == 2


async def test_a_stream_that_is_closed_while_the_call_is_made_closes_what_it_brings() -> None:
    async with reading(wire(0, 1)) as (opened, raw):
        calling, answer = asyncio.Event(), asyncio.Event()

        async def call() -> Stream[Any]:
            calling.set()
            await answer.wait()
            return opened

        stream: Stream[Any] = Stream(opening=call)
        task = asyncio.ensure_future(anext(stream))
        await calling.wait()
        await stream.aclose()
        answer.set()
        with pytest.raises(StopAsyncIteration):
            await task
        with pytest.raises(ConnectionResetError):
            await is_closed(raw)


async def test_a_stream_that_is_closed_before_it_is_opened_makes_no_call() -> None:
    async def call() -> Stream[Any]:
        raise AssertionError

    stream: Stream[Any] = Stream(opening=call)
    await stream.aclose()
    assert await all_of(stream) == []
    assert stream.closed


def test_a_stream_that_is_never_opened_leaves_nothing() -> None:
    async def call() -> Stream[Any]:
        raise AssertionError

    stream: Stream[Any] = Stream(opening=functools.partial(call))
    del stream


async def test_two_tasks_that_ask_for_the_first_item_make_one_call() -> None:
    async with reading(wire(0, 1)) as (opened, _raw):
        calling, answer = asyncio.Event(), asyncio.Event()

        async def call() -> Stream[Any]:
            calling.set()
            await answer.wait()
            return opened

        stream: Stream[Any] = Stream(opening=call)
        task = asyncio.ensure_future(anext(stream))
        await calling.wait()
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        answer.set()
        assert await task == 1
        await stream.aclose()


# What hostile reviewers found


async def test_a_message_of_a_great_many_items_leaves_others_their_turns() -> None:
    items = list(range(5_000))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with reading(wire(0, *items), END) as (stream, _raw):
        counting = asyncio.create_task(count())
        assert await all_of(stream.checked(lambda values: values)) == items
        assert turns >= 3
        counting.cancel()
        await asyncio.wait([counting])


async def test_a_default_timeout_of_sockets_does_not_block_the_loop() -> None:
    socket.setdefaulttimeout(5.0)
    try:
        async with reading() as (stream, raw):
            task = await reader_of(stream)
            raw.send(wire(0, 1))
            assert await task == 1
    finally:
        socket.setdefaulttimeout(None)


def test_a_stream_is_read_on_by_another_loop() -> None:
    ours, raw = raw_pair()
    stream = stream_on(ours)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.01)

    async def read() -> None:
        task = asyncio.create_task(stream.__anext__())
        await asyncio.sleep(0)
        raw.send(wire(0, 7))
        async with asyncio.timeout(5):
            assert await task == 7

    asyncio.run(give_up())
    asyncio.run(read())
    stream.close()
    raw.close()


async def test_what_a_method_returns_is_a_stream_for_type_checkers_too() -> None:
    async with reading(wire(0, 1), END) as (stream, _raw), Stream.of(stream) as same:
        assert same is stream

    async def another() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match="a stream was expected, got async_generator"):
        Stream.of(another())


# What one message may cost


def integers(items: list[Any]) -> list[Any]:
    return msgspec.convert(items, list[int])


MANY = 90_000  # values, of one byte each, in the messages of these tests


async def first_of(stream: Stream[Any]) -> str:
    try:
        return str(await anext(stream))
    except msgspec.ValidationError:
        return "it does not fit"


@pytest.mark.parametrize("end", ["read", "aclose", "drop"])
@pytest.mark.parametrize(
    "items, first",
    [([[1] * MANY], "it does not fit"), ([1, [1] * MANY], "1"), ([1] * MANY, "1"), ([1] * 500 + ["x"] * MANY, "1")],
    ids=["one that does not fit", "a second that does not", "a great many", "a great many that do not"],
)
async def test_what_came_without_descriptors_is_not_looked_through(items: list[Any], first: str, end: str) -> None:
    async with reading() as (stream, raw):
        stream.checked(integers)
        send_spilled(raw, 0, *items)
        with steps_of_python() as steps:
            assert await first_of(stream) == first
            if end == "aclose":
                await stream.aclose()
            elif end == "drop":
                stream.__del__()
        assert steps[0] < MANY / 10


async def test_items_of_a_long_message_that_come_after_one_that_does_not_fit_are_not_read() -> None:
    async with reading() as (stream, raw):
        stream.checked(integers)
        send_spilled(raw, 0, *[1] * 1_030, "x", *[3] * MANY)
        for _ in range(1_030):
            assert await anext(stream) == 1
        with pytest.raises(msgspec.ValidationError):
            await anext(stream)
        assert await all_of(stream) == []


LONG = [1] * 2_000  # a message of so many items is taken a part at a time


def take_all(items: list[Any]) -> list[Any]:
    return items


@pytest.mark.parametrize("check", [None, take_all])
@pytest.mark.parametrize(
    "items",
    [
        [1, Lender(), [2], [Lender(), 3, Lender()], 4],
        [Lender(), Lender(), 1, 2, Lender()],
        [*LONG, Lender(), *LONG, {"a": Lender()}, Lender()],
        [{"a": [Lender()] * 3}],
    ],
    ids=["between others", "at the ends", "among a great many", "alone"],
)
@pytest.mark.parametrize("taken", [0, 1, 2, 2_001, 4_001, None])
async def test_descriptors_come_with_their_items_and_are_closed_with_those_that_nobody_takes(
    items: list[Any], check: Any, taken: int | None
) -> None:
    with files(5) as fds:
        numbers = [fd.fileno() for fd in fds]
        lent = repr(items).count("Lender")
        async with reading() as (stream, raw):
            if check is not None:
                stream.checked(check)
            send_spilled(raw, 0, *items, fds=numbers[:lent])
            raw.send(END)
            got: list[Any] = []
            while taken is None or len(got) < taken:
                try:
                    got.append(await anext(stream))
                except StopAsyncIteration:
                    break
        assert [as_sent(item) for item in got] == [as_sent(item) for item in items[:taken]]
        close_all(descriptors_in(got))  # the watch on descriptors sees the others


def as_sent(item: Any) -> str:
    """Return what an item looks like, whether its descriptors are on their way or have come."""
    return re.sub(r"<[^>]*(Lender|OwnedFd)[^>]*>|Lender\(\)", "fd", repr(item))


@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_descriptors_that_are_dropped_as_their_item_is_converted_are_closed_at_once(kept: int) -> None:
    before: list[OwnedFd] = []

    def drop(items: list[Any]) -> list[Any]:
        before.extend(items[0])
        return [item[:kept] for item in items]

    async with reading() as (stream, raw):
        with files(2) as fds:
            send_with(raw, wire(0, [Lender(), Lender()]), [fd.fileno() for fd in fds])
        stream.checked(drop)
        got = await anext(stream)
        assert [fd.closed for fd in before] == [index >= kept for index in range(2)]
        close_all(got)


async def test_descriptors_that_may_be_in_an_item_of_a_great_many_values_are_not_closed() -> None:
    async with reading() as (stream, raw):
        with files(2) as fds:
            send_spilled(raw, 0, [[1] * MANY, Lender()], fds=[fds[0].fileno()])
            send_spilled(raw, 0, [Lender(), [1] * MANY], fds=[fds[1].fileno()])
        stream.checked(take_all)
        with steps_of_python() as steps:
            last, first = await anext(stream), await anext(stream)
        assert steps[0] < 10 * MAX_VALUES_SEARCHED
        with last[1], first[0]:
            assert not last[1].closed
            assert not first[0].closed


@pytest.mark.parametrize("how", ["aclose", "drop", "does not fit"])
async def test_an_item_of_a_great_many_values_is_dropped_with_its_descriptors(how: str) -> None:
    async with reading() as (stream, raw):
        with files(1) as fds:
            send_spilled(raw, 0, [[1] * MANY, Lender()], fds=[fds[0].fileno()])
        with steps_of_python() as steps:
            if how == "does not fit":
                stream.checked(integers)
                assert await first_of(stream) == "it does not fit"
            else:
                assert stream._receive()
                assert stream.detach() is None
                await stream.aclose() if how == "aclose" else stream.__del__()
        assert steps[0] < MANY / 10  # the watch on descriptors sees whether it was closed


async def test_descriptors_far_behind_in_a_packet_of_several_items_go_with_their_item() -> None:
    """Who owns them is not known until the items are taken, and then they are the taker's: it relies on collection."""
    async with reading() as (stream, raw):
        for _ in range(2):
            with files(1) as fds:
                send_spilled(raw, 0, 1, [[1] * MANY, Lender()], fds=[fds[0].fileno()])
        assert await anext(stream) == 1
        (await anext(stream))[1].close()
        assert await anext(stream) == 1
        with pytest.warns(ResourceWarning, match="unclosed"):
            await stream.aclose()


async def test_a_stream_or_a_buffer_in_a_packet_of_several_items_goes_with_its_item() -> None:
    ours, theirs = raw_pair()
    with ours, theirs:
        async with reading() as (stream, raw):
            send_with(raw, wire(0, [1], msgpack.ExtType(2, b"\0")), [ours.fileno()])
            assert await anext(stream) == [1]
            handle = await anext(stream)
            assert handle.ext_type == 2
            assert not handle.fd.closed


# Where there is no room for more descriptors


@asynccontextmanager
async def received_stream(*packets: bytes) -> AsyncIterator[tuple[Stream[Any], socket.socket]]:
    """Return a stream that somebody sent, and the raw socket at its other end."""
    ours, theirs = raw_pair()
    for packet in packets:
        theirs.send(packet)
    stream: Stream[Any] = Stream(value_fd(ours.detach(), 1001), ItemReader(Codec(), 1 << 20))
    async with stream:
        yield stream, theirs
    theirs.close()


def send_a_descriptor(raw: socket.socket, pipe: tuple[int, int]) -> None:
    send_with(raw, wire(0, Lender()), [pipe[0]])


async def test_items_with_descriptors_wait_while_the_sender_s_are_being_closed(pipe: tuple[int, int]) -> None:
    async with received_stream(wire(0, 1)) as (stream, raw):
        send_a_descriptor(raw, pipe)
        raw.send(wire(0, 2))
        with no_room(1001) as lifted:
            assert await anext(stream) == 1
            task = await reader_of(stream)
            await turns_of_the_loop(50)
            assert not task.done()
            lifted.set()
            with await task as fd:
                assert same_file(fd, pipe[0])
                assert sender_of(fd) == 1001
        assert await anext(stream) == 2


async def test_an_item_that_is_waited_for_may_be_one_that_has_to_wait(pipe: tuple[int, int]) -> None:
    async with received_stream() as (stream, raw):
        task = await reader_of(stream)
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
            task = await reader_of(stream)
            await comes_true(lambda: stream._gate is not None)
            if how == "closed":
                stream.close()
                with pytest.raises(StopAsyncIteration):
                    await task
            else:
                task.cancel()
                await asyncio.wait([task])
                assert stream._gate is None
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
                task = await reader_of(stream)
                await comes_true(lambda: stream._gate is not None and stream._gate.receives)
                task.cancel()
                await asyncio.wait([task])
            assert stream.detach() is None, "it can only be relayed"
            lifted.set()
            with await anext(stream) as fd:
                assert same_file(fd, pipe[0])
        assert await anext(stream) == 2


async def test_a_stream_may_be_closed_while_an_item_is_received_elsewhere(pipe: tuple[int, int]) -> None:
    async with received_stream() as (stream, raw):
        send_a_descriptor(raw, pipe)
        with short_table(), stalled(1001) as lifted:
            task = await reader_of(stream)
            await comes_true(lambda: stream._gate is not None)
            stream.close()
            with pytest.raises(StopAsyncIteration):
                await task
            lifted.set()
            assert await is_closed(raw)


async def test_a_failure_to_receive_elsewhere_is_as_any_other(pipe: tuple[int, int]) -> None:
    async with received_stream() as (stream, raw):
        send_a_descriptor(raw, pipe)
        with short_table(), stalled(1001) as lifted:
            task = await reader_of(stream)
            await comes_true(lambda: stream._gate is not None)
            stream._socket().recv(1)  # somebody was quicker
            lifted.set()
            raw.send(wire(0, 7))
            assert await task == 7


async def test_a_stream_that_was_never_read_is_closed_as_it_is_dropped() -> None:
    async with received_stream() as (stream, raw):
        other: Stream[Any] = Stream(stream.detach(), stream._reader)
        del other
        assert raw.recv(1) == b""


@pytest.mark.parametrize("read", [True, False])
async def test_a_copy_in_a_forked_child_is_closed_there_only(read: bool) -> None:
    async with received_stream(wire(0, 1, 2)) as (stream, raw):
        if read:
            assert await anext(stream) == 1
        in_child(stream.close)
        raw.send(wire(0, 3))
        assert [await anext(stream) for _ in range(2 if read else 3)] == [1, 2, 3][read:]


async def test_dropping_or_closing_a_stream_with_descriptors_that_linger_takes_no_time() -> None:
    with lingering(60) as made:
        for how in ("drop", "close", "unread", "read"):
            ours, theirs = raw_pair()
            stream: Stream[Any] = Stream(value_fd(ours.detach(), 1001), ItemReader(Codec(), 1 << 20))
            with theirs:
                for _ in range(3):
                    with made.make() as sock:
                        send_with(theirs, wire(0, Lender()), [sock.fileno()])
                begin = time.monotonic()
                if how != "unread":
                    fd = await anext(stream)
                    if how == "read":
                        fd.close()
                        (await anext(stream)).close()
                    else:
                        fd.close()
                if how == "close":
                    await stream.aclose()
                del stream
                assert time.monotonic() - begin < 10
