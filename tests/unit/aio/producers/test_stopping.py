"""Producers that are stopped, and ends that wait for room."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.descriptors import owned
from support.incidents import AN_INCIDENT
from support.packets import fill, raw_pair, receive, unwire
from support.producers import Given, Log, Reading, Wrong, endless, once, produced
from support.scarcity import files_of_at_most
from support.waiting import comes_true, turns_of_the_loop

from seqrpc import OwnedFd, Unavailable
from seqrpc.aio.producers import Producer
from seqrpc.calls.departures import Source
from seqrpc.protocol.encoder import Encoder


async def test_a_producer_that_is_stopped_tells_its_reader_why(log: Log) -> None:
    async with produced(once(1, log)) as reading:
        assert await reading.packet() == [0, 1]
        reading.producer.refuse("it takes no calls anyway")
        idle = asyncio.create_task(reading.producer.wait_idle(60))
        await turns_of_the_loop()
        assert not idle.done()
        reading.producer.stop("going home")
        reading.producer.stop("really")
        await reading.producer.wait_stopped()
        await idle
        assert await reading.packets() == [[1, ["rpc.Unavailable", "going home", None]]]
    assert log.what == ["waiting", "finally"]


async def test_a_source_that_ends_because_its_reader_has_gone_is_not_interrupted_at_its_end() -> None:
    go_on, ended = asyncio.Event(), []

    async def items() -> AsyncIterator[int]:
        try:
            yield 0
            await go_on.wait()
            yield 1
            yield 2
        finally:
            await turns_of_the_loop()
            ended.append("whole")

    async with produced(items()) as reading:
        assert await reading.packet() == [0, 0]
        reading.raw.close()
        go_on.set()
        await reading.producer.wait_stopped()
        assert ended == ["whole"]


async def test_a_producer_is_waited_for_as_long_as_it_has_something_to_send(log: Log) -> None:
    go_on = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        for item in range(3):
            yield item
            await go_on.wait()
            go_on.clear()
        await asyncio.Event().wait()  # and then it says nothing any more

    async with produced(items()) as reading:
        idle = asyncio.create_task(reading.producer.wait_idle(0.2))
        for item in range(3):
            assert await reading.packet() == [0, item]
            assert not idle.done()
            go_on.set()
        await idle
        reading.producer.stop("going home")
        await reading.producer.wait_stopped()
    async with produced(endless(log)) as reading:  # one that waits for its reader is not quiet
        await comes_true(lambda: reading.producer._room is not None)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reading.producer.wait_idle(0.001), 0.05)
        reading.producer.stop("going home")
        await reading.producer.wait_stopped()


async def test_a_producer_that_is_stopped_does_not_wait_for_room(log: Log) -> None:
    async with produced(endless(log)) as reading:
        await comes_true(lambda: reading.producer._room is not None)
        reading.producer.stop("going home")
        await reading.producer.wait_stopped()
        assert log.what == ["finally"]
        async with reading.stream() as stream:
            with pytest.raises(Unavailable, match="the producer of the stream died"):
                async for _item in stream:
                    pass


async def test_a_producer_that_is_stopped_does_not_wait_for_room_for_its_last_items(log: Log, share: None) -> None:

    async def items() -> AsyncIterator[int]:
        yield 1
        fill(reading.producer._sock)
        try:
            await asyncio.Event().wait()
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        await comes_true(lambda: reading.producer.waits)
        reading.producer.stop("going home")
        await reading.producer.wait_stopped()
        assert log.what == ["finally"]
        assert [item async for item in _raw_packets(reading.raw) if item != b"x" * 1000] == []


async def test_a_source_that_swallows_being_stopped_is_stopped_at_its_next_item(log: Log) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            yield 2
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        assert await reading.packet() == [0, 1]
        reading.producer.stop("going home")
        assert (await reading.packets())[-1] == [1, ["rpc.Unavailable", "going home", None]]
    assert log.what == ["finally"]


async def test_a_producer_that_somebody_cancels_tells_its_reader(log: Log) -> None:
    async with produced(once(1, log)) as reading:
        assert await reading.packet() == [0, 1]
        assert reading.producer._task is not None
        reading.producer._task.cancel()
        assert await reading.packets() == [[1, ["rpc.Unavailable", "the producer was cancelled", None]]]


async def test_the_end_waits_for_room() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        fill(reading.producer._sock)

    async with produced(items()) as reading:
        await comes_true(lambda: reading.producer._room is not None)
        packets = [packet async for packet in _raw_packets(reading.raw)]
        assert unwire(packets[-1]) == [1, None]


async def test_the_last_items_wait_for_room(share: None) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2
        fill(reading.producer._sock)

    async with produced(items()) as reading:
        await comes_true(lambda: reading.producer._room is not None)
        packets = [packet async for packet in _raw_packets(reading.raw)]
        assert [unwire(packet) for packet in packets[-2:]] == [[0, 1, 2], [1, None]]


async def test_the_last_items_before_an_error_wait_for_room(share: None) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2
        fill(reading.producer._sock)
        raise Wrong("text")

    async with produced(items()) as reading:
        await comes_true(lambda: reading.producer._room is not None)
        packets = [packet async for packet in _raw_packets(reading.raw)]
        assert [unwire(packet) for packet in packets[-2:]] == [[0, 1, 2], [1, ["producers.Wrong", "text", None]]]


async def test_an_item_that_cannot_be_sent_once_there_is_room_ends_the_stream(log: Log, pipe: tuple[int, int]) -> None:
    fd = OwnedFd(os.dup(pipe[0]))

    async def items() -> AsyncIterator[OwnedFd]:
        try:
            fill(reading.producer._sock)
            yield fd
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        await comes_true(lambda: reading.producer._room is not None)
        fd.close()  # it was given away, and is not to be touched
        packets = [packet async for packet in _raw_packets(reading.raw)]
        assert unwire(packets[-1]) == [1, ["rpc.Internal", AN_INCIDENT, None]]
    assert log.what == ["finally"]


async def test_an_item_that_no_memory_file_can_be_made_for_ends_the_stream_and_is_closed(log: Log) -> None:
    """Whether it is too long at once, or the kernel finds it so."""
    for size in (60_000, 70_000):
        given: list[OwnedFd] = []

        async def items(size: int = size, given: list[OwnedFd] = given) -> AsyncIterator[Any]:
            try:
                given.append(OwnedFd(os.dup(0)))
                yield [b"x" * size, given[0]]
            finally:
                log.note("finally")

        async with produced(items()) as reading:
            make_room_for_little(reading)
            spare = OwnedFd(os.dup(0))  # for the item's own descriptor
            with table_full(spare):
                await reading.until_ended()
            text = "there is no room for a message that is longer than a packet: Too many open files"
            assert (await reading.packets())[-1] == [1, ["rpc.Overloaded", text, None]]
        assert [fd.closed for fd in given] == [True]
        assert log.what.pop() == "finally"


async def test_an_item_that_may_be_in_no_file_is_too_large(caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[Any]:
        yield b"x" * 150_000

    async with produced(items()) as reading:
        with files_of_at_most(100_000):
            await reading.until_ended()
        text = "no memory file may be as large as the message: File too large"
        assert (await reading.packets())[-1] == [1, ["rpc.TooLarge", text, None]]
    assert caplog.messages == ["! 'm': an item cannot be sent: [Errno 27] File too large"]


def make_room_for_little(reading: Reading) -> None:
    """Let the kernel find packets of some thousand bytes too long: EMSGSIZE."""
    reading.producer._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5_000)


@contextlib.contextmanager
def table_full(spare: OwnedFd) -> Iterator[None]:
    """Let this process get one new descriptor inside the block, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare.close()
    one = os.dup(0)
    two = os.dup(0)
    os.close(one)
    os.close(two)
    resource.setrlimit(resource.RLIMIT_NOFILE, (two, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_items_that_nobody_will_read_do_not_leave(log: Log, share: None) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            reading.producer._on_readable()  # as if the reader had gone at this very moment
            yield 2
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        await reading.until_ended()
        assert await receive(reading.raw) == b""
    assert log.what == ["finally"]


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_a_producer_that_ends_before_its_first_step_tells_its_reader(how: str, log: Log) -> None:
    with owned(1) as fds:
        lent = fds[0]
        async with produced(endless(log), fds) as reading:
            if how == "stopped":
                reading.producer.stop("going home")
            else:
                assert reading.producer._task is not None
                reading.producer._task.cancel()
            reason = "going home" if how == "stopped" else "the producer was cancelled"
            assert await reading.packets() == [[1, ["rpc.Unavailable", reason, None]]]
            await reading.until_ended()
        assert lent.closed
    assert log.what == [], "it never began"


async def test_the_source_is_given_up_of_a_producer_whose_reader_goes_before_its_first_step(log: Log) -> None:
    given, ended = Given(), list[Producer]()
    with owned(1) as fds:
        lent = fds[0]
        source, pair = Source(endless(log), "m", fds), raw_pair()
        producer = Producer(pair[0], source, Encoder(living=given))
        producer.start(ended.append)
        pair[1].close()
        producer._on_readable()  # uvloop may call before what was put on the loop earlier
        await comes_true(lambda: ended == [producer])
        assert lent.closed
    assert given.up == [source]
    assert log.what == [], "it never began"


async def _raw_packets(raw: socket.socket) -> AsyncIterator[bytes]:
    while packet := await receive(raw):
        yield packet


async def test_a_producer_that_never_began_can_be_stopped(log: Log) -> None:
    pair = raw_pair()
    producer = Producer(pair[0], Source(endless(log), "m"), Encoder())
    producer.stop("going home")
    await producer.wait_stopped()
    ended: list[Producer] = []
    producer.start(ended.append)
    await comes_true(lambda: ended == [producer])
    assert unwire(await receive(pair[1])) == [1, ["rpc.Unavailable", "going home", None]]
    pair[1].close()
