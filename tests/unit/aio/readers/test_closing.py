"""Streams that are closed, dropped or copied."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from support.descriptors import Lender
from support.lingering import lingering
from support.packets import raw_pair, send_with, wire
from support.processes import in_child
from support.streams import END, all_of, is_closed, next_item_of, reading, received_stream, stream_on, watched_stream

from seqrpc import WrongProcess
from seqrpc.aio.streams import Stream, reader_of
from seqrpc.kernel.descriptors import ValueFd, value_fd
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.items import ItemReader

# Closing


async def test_a_stream_that_is_dropped_is_closed(pipe: tuple[int, int]) -> None:
    async with reading(wire(0, 1, 2)) as (stream, raw):
        send_with(raw, wire(0, Lender(), Lender()), pipe)
        again: Stream[Any] = Stream(ValueFd(reader_of(stream)._socket().detach()), reader_of(stream)._reader)
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
        task = await next_item_of(stream)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await task
        assert await is_closed(raw)


async def test_a_stream_may_be_collected_in_another_thread() -> None:
    stream, theirs = await watched_stream()
    holder = [stream]
    del stream
    await asyncio.to_thread(holder.clear)
    assert await is_closed(theirs)
    theirs.close()


async def test_a_stream_with_items_may_be_collected_in_another_thread(pipe: tuple[int, int]) -> None:
    ours, theirs = raw_pair()
    holder = [stream_on(ours)]
    task = await next_item_of(holder[0])
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
    stream, raw = loop.run_until_complete(watched_stream())
    if closed:
        loop.close()
    del stream
    gc.collect()
    assert raw.recv(1) == b""
    raw.close()

    async def again() -> None:
        async with reading(wire(0, 1)) as (stream, _raw):  # on the same number
            assert await anext(stream) == 1
            await (await _cancelled(await next_item_of(stream)))

    if not closed:
        loop.run_until_complete(again())
        loop.close()


async def _cancelled(task: asyncio.Task[Any]) -> Coroutine[Any, Any, None]:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return asyncio.sleep(0)


# Where there is no room for more descriptors


async def test_a_stream_that_was_never_read_is_closed_as_it_is_dropped() -> None:
    async with received_stream() as (stream, raw):
        other: Stream[Any] = Stream(reader_of(stream).detach(), reader_of(stream)._reader)
        del other
        assert raw.recv(1) == b""


@pytest.mark.parametrize("read", [True, False])
async def test_a_copy_in_a_forked_child_is_closed_there_only(read: bool) -> None:
    async with received_stream(wire(0, 1, 2)) as (stream, raw):
        if read:
            assert await anext(stream) == 1
        in_child(reader_of(stream).close)
        raw.send(wire(0, 3))
        assert [await anext(stream) for _ in range(2 if read else 3)] == [1, 2, 3][read:]


async def test_a_copy_in_a_forked_child_gives_nothing_and_the_parent_s_goes_on() -> None:
    async with received_stream(wire(0, 1, 2)) as (stream, _raw):
        assert await anext(stream) == 1

        def child() -> str:
            with pytest.raises(WrongProcess) as caught:
                asyncio.run(reader_of(stream).open())
            return str(caught.value)

        assert in_child(child).startswith("this stream belongs to the process that made it")
        assert await anext(stream) == 2


async def test_dropping_or_closing_a_stream_with_descriptors_that_linger_takes_no_time() -> None:
    with lingering(60) as made:
        for how in ("drop", "close", "unread", "read"):
            ours, theirs = raw_pair()
            stream: Stream[Any] = Stream(value_fd(ours.detach(), 1001), ItemReader(Decoder(), 1 << 20))
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
