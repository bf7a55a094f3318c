"""The writing end of a stream, with a raw socket for its reader, and with a stream."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from helpers import AN_INCIDENT, Lender
from packets import (
    comes_true,
    files,
    files_of_at_most,
    fill,
    raw_pair,
    readable,
    receive,
    send_with,
    turns_of_the_loop,
    unwire,
)
from processes import AS_ROOT, OTHER_UID, in_child

from seqrpc import OwnedFd, RpcError, Unavailable
from seqrpc.aio import producers
from seqrpc.aio.producers import MovedStream, Producer, Source, StreamExport
from seqrpc.aio.streams import Stream
from seqrpc.kernel.descriptors import ValueFd, close_all
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.codec import Codec
from seqrpc.protocol.items import ItemReader
from seqrpc.protocol.values import EXT_STREAM

LIMITS = Limits(max_message_bytes=200_000)


class Wrong(RpcError, code="producers.Wrong"):
    """An error of an application's own."""


class Reading:
    """A producer, and the raw socket at its other end."""

    def __init__(self, items: AsyncIterable[Any], fds: list[OwnedFd] | None = None) -> None:
        self.started: list[Producer] = []
        self.ended: list[Producer] = []
        export = StreamExport(Source(items, "m", fds), Codec(LIMITS), self.started.append, self.ended.append)
        assert export.ext_type == EXT_STREAM
        self.raw = socket.socket(fileno=os.dup(export.fileno()))
        self.raw.setblocking(False)
        export.sent()
        (self.producer,) = self.started

    async def packet(self) -> Any:
        """Return the next packet, None at the end; its descriptors are closed."""
        while True:
            await readable(self.raw)
            data, numbers, _flags, _address = socket.recv_fds(self.raw, 65_536, 253)
            fds = [OwnedFd(number) for number in numbers]
            try:
                return self.message(data, fds) if data else None
            finally:
                close_all(fds)

    @staticmethod
    def message(data: bytes, fds: list[OwnedFd]) -> Any:
        value, problem = Codec().decode(data, fds)
        if value[0] == 4:
            return Reading.message(os.pread(fds[0].fileno(), value[1], 0), fds[1:])
        assert problem is None
        return value

    async def packets(self) -> list[Any]:
        """Return all packets until the end."""
        packets = []
        while (packet := await self.packet()) is not None:
            packets.append(packet)
        return packets

    async def items(self) -> list[Any]:
        """Return all items until a regular end."""
        *packets, last = await self.packets()
        assert last == [1, None]
        assert all(packet[0] == 0 for packet in packets)
        return [item for packet in packets for item in packet[1:]]

    def stream(self) -> Stream[Any]:
        """Return a stream that reads what is produced."""
        return Stream(ValueFd(os.dup(self.raw.fileno())), ItemReader(Codec(LIMITS), LIMITS.max_message_bytes))

    async def until_ended(self) -> None:
        await comes_true(lambda: self.ended == [self.producer])


@asynccontextmanager
async def produced(items: AsyncIterable[Any], fds: list[OwnedFd] | None = None) -> AsyncIterator[Reading]:
    """Return the reading end of a producer, which has ended afterwards."""
    tasks = asyncio.all_tasks()
    reading = Reading(items, fds)
    try:
        yield reading
    finally:
        reading.raw.close()
        await reading.until_ended()
        assert asyncio.all_tasks() == tasks


def same_file(fd: OwnedFd, number: int) -> bool:
    return os.path.sameopenfile(fd.fileno(), number)


class Log:
    """What generators leave behind."""

    def __init__(self) -> None:
        self.what: list[str] = []

    def note(self, what: str) -> None:
        self.what.append(what)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let items share packets however slow the machine is."""
    monkeypatch.setattr(producers, "_FAST", 1e9)
    monkeypatch.setattr(producers, "_OLDEST", 1e9)


async def counting(end: int) -> AsyncIterator[int]:
    for number in range(end):
        yield number


async def endless(log: Log, item: Any = b"x" * 1000) -> AsyncIterator[Any]:
    """Yield without an end, and note that it was stopped."""
    try:
        while True:
            yield item
    finally:
        log.note("finally")


async def once(item: Any, log: Log) -> AsyncIterator[Any]:
    """Yield one item, wait for ever, and note that it was stopped."""
    try:
        yield item
        log.note("waiting")
        await asyncio.Event().wait()
    finally:
        log.note("finally")


# Items


@pytest.mark.parametrize("number", [0, 1, 2, 1000])
async def test_items_come_in_order_and_then_the_end(number: int) -> None:
    async with produced(counting(number)) as reading:
        assert await reading.items() == list(range(number))
        await reading.until_ended()


async def test_items_that_are_ready_share_packets(share: None) -> None:
    async with produced(counting(1000)) as reading:
        packets = await reading.packets()
        assert [len(packet) - 1 for packet in packets] == [256, 256, 256, 232, 1]


@pytest.mark.parametrize("what", ["_FAST", "_OLDEST"])
async def test_items_that_take_long_do_not_wait_for_others(
    what: str, share: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producers, what, 0.0)
    async with produced(counting(100)) as reading:
        assert [len(packet) for packet in await reading.packets()] == [2] * 101


async def test_an_item_leaves_as_soon_as_the_producer_waits(share: None) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(0, 30, 3):
            await go_on.get()
            for item in range(number, number + 3):
                yield item

    go_on: asyncio.Queue[None] = asyncio.Queue()
    async with produced(items()) as reading:
        for number in range(0, 30, 3):
            go_on.put_nowait(None)
            assert await reading.packet() == [0, number, number + 1, number + 2]
        assert await reading.packet() == [1, None]


async def test_an_item_is_sent_as_it_was_when_it_was_yielded(share: None) -> None:
    async def items() -> AsyncIterator[list[int]]:
        item: list[int] = []
        for number in range(3):
            item.append(number)
            yield item

    async with produced(items()) as reading:
        assert await reading.items() == [[0], [0, 1], [0, 1, 2]]


async def test_items_of_all_kinds_and_sizes_come_in_order(share: None) -> None:
    sent = [1, "a", [2], 3.5, b"x" * 9000, None, {"a": 1}, "y" * 300, True, b"z" * 70_000, -1, b"x" * 65_536, 2]

    async def items() -> AsyncIterator[Any]:
        for item in sent:
            yield item

    async with produced(items()) as reading:
        assert await reading.items() == sent


async def test_what_the_kernel_finds_too_long_goes_as_a_memory_file() -> None:
    async def items() -> AsyncIterator[bytes]:
        for item in b"a", b"b" * 60_000, b"c":
            reading.producer._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5_000)
            yield item

    async with produced(items()) as reading:
        assert await reading.items() == [b"a", b"b" * 60_000, b"c"]


async def test_descriptors_in_items_are_given_away(pipe: tuple[int, int]) -> None:
    given: list[OwnedFd] = []

    async def items() -> AsyncIterator[Any]:
        for item in "small", "x" * 100_000:
            given.append(OwnedFd(os.dup(pipe[0])))
            yield [item, given[-1]]
            assert given[-1].closed or not reading.producer._writer.full

    async with produced(items()) as reading:
        async with reading.stream() as stream:
            for item in "small", "x" * 100_000:
                text, fd = await anext(stream)
                assert text == item
                assert same_file(fd, pipe[0])
                fd.close()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert all(fd.closed for fd in given)


async def test_what_is_lent_to_the_source_is_closed_at_its_end() -> None:
    with files(2) as fds:
        lent = list(fds)
        async with produced(counting(3), fds) as reading:
            assert [fd.closed for fd in lent] == [False, False]
            assert await reading.items() == [0, 1, 2]
            await reading.until_ended()
            assert [fd.closed for fd in lent] == [True, True]


# Errors


async def test_an_error_comes_after_the_items_before_it(share: None, log: Log) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
            raise Wrong("text", [7])
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        assert await reading.packets() == [[0, 1, 2], [1, ["producers.Wrong", "text", [7]]]]
    assert log.what == ["finally"]


async def test_an_error_that_was_not_foreseen_is_internal(caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError("secret")

    async with produced(items()) as reading:
        assert await reading.packets() == [[0, 1], [1, ["rpc.Internal", AN_INCIDENT, None]]]
    assert "'m' failed" in caplog.text


async def test_an_error_may_bring_descriptors_which_are_given_away(pipe: tuple[int, int]) -> None:
    fd = OwnedFd(os.dup(pipe[0]))

    async def items() -> AsyncIterator[int]:
        yield 1
        raise Wrong("text", fd)

    async with produced(items()) as reading, reading.stream() as stream:
        assert await anext(stream) == 1
        with pytest.raises(Wrong) as caught:
            await anext(stream)
        assert same_file(caught.value.data, pipe[0])
        caught.value.data.close()
    assert fd.closed


async def test_what_cannot_be_sent_of_an_error_is_left_out() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise Wrong("text", 2**70)

    async with produced(items()) as reading:
        assert (await reading.packets())[-1] == [1, ["producers.Wrong", "text", None]]


class NoFile:
    """Says that it has a descriptor, which is not open."""

    def fileno(self) -> int:
        return 1_000_000


def closed_file() -> OwnedFd:
    fd = OwnedFd(os.dup(0))
    fd.close()
    return fd


NOT_SENDABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "too_large_a_number": (lambda: 2**70, "rpc.Internal"),
    "no_such_type": (object, "rpc.Internal"),
    "too_large": (lambda: b"x" * 200_000, "rpc.TooLarge"),
    "a_closed_descriptor": (closed_file, "rpc.Internal"),
    "no_descriptor": (NoFile, "rpc.Internal"),
    "what_has_a_descriptor_with_it": (lambda: [OwnedFd(os.dup(0)), 2**70], "rpc.Internal"),
}


@pytest.mark.parametrize("then", ["more", "wait", "end"])
@pytest.mark.parametrize("wrong", NOT_SENDABLE)
async def test_an_item_that_cannot_be_sent_ends_the_stream_after_those_before_it(
    share: None, log: Log, wrong: str, then: str
) -> None:
    make, code = NOT_SENDABLE[wrong]

    async def items() -> AsyncIterator[Any]:
        try:
            yield 1
            yield 2
            yield make()
            while then == "more":
                yield 3
            if then == "wait":
                await asyncio.Event().wait()
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        *packets, (kind, error) = await reading.packets()
        assert packets == [[0, 1, 2]]
        assert kind == 1
        assert error[0] == code
    assert log.what == ["finally"]


async def test_what_is_iterated_may_not_be_iterable() -> None:
    class Broken:
        def __aiter__(self) -> AsyncIterator[int]:
            raise LookupError

    async with produced(Broken()) as reading:
        assert await reading.packets() == [[1, ["rpc.Internal", AN_INCIDENT, None]]]


async def test_a_source_may_raise_something_of_its_own_that_is_no_exception() -> None:
    class Odd(BaseException):
        pass

    async def items() -> AsyncIterator[int]:
        yield 1
        raise Odd

    async with produced(items()) as reading:
        assert (await reading.packets())[-1] == [1, ["rpc.Internal", AN_INCIDENT, None]]


async def test_a_source_that_cancels_itself_is_told_so() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    async with produced(items()) as reading:
        assert (await reading.packets())[-1] == [1, ["rpc.Unavailable", "the producer was cancelled", None]]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_what_is_for_the_loop_goes_to_the_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise SystemExit(7)

    async def run() -> None:
        readings.append(Reading(items()))
        await asyncio.Event().wait()

    readings: list[Reading] = []
    loop = new_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    running = loop.create_task(run())
    with pytest.raises(SystemExit):
        loop.run_until_complete(running)
    (reading,) = readings
    assert loop.run_until_complete(reading.packets()) == [[0, 1], [1, ["rpc.Internal", AN_INCIDENT, None]]]
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(running)
    assert reading.producer._task is not None
    assert isinstance(reading.producer._task.exception(), SystemExit)
    reading.raw.close()
    loop.close()


# Readers that want no more


async def test_a_reader_that_goes_stops_a_source_that_waits(log: Log) -> None:
    async with produced(once(1, log)) as reading:
        assert await reading.packet() == [0, 1]
        reading.raw.close()
        await reading.until_ended()
    assert log.what == ["waiting", "finally"]


@pytest.mark.parametrize("full", [False, True], ids=["at_its_next_yield", "full"])
async def test_a_reader_that_goes_stops_an_endless_source(log: Log, full: bool) -> None:
    async with produced(endless(log)) as reading:
        await reading.packet()
        if full:
            await comes_true(lambda: reading.producer._room is not None)
        reading.raw.close()
        await reading.until_ended()
    assert log.what == ["finally"]


async def test_a_source_may_await_in_its_finally(log: Log) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await turns_of_the_loop()
            log.note("finally")

    async with produced(items()) as reading:
        await reading.packet()
    assert log.what == ["finally"]


async def test_a_source_that_swallows_its_cancellation_is_stopped_at_its_next_item(
    log: Log, pipe: tuple[int, int]
) -> None:
    async def items() -> AsyncIterator[OwnedFd | int]:
        try:
            yield 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            yield OwnedFd(os.dup(pipe[0]))  # closed: nobody reads it
            log.note("went on")
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        assert await reading.packet() == [0, 1]
        await comes_true(lambda: reading.producer._soon is None)
    assert log.what == ["finally"]


async def test_a_source_that_fails_as_it_is_stopped_costs_nothing(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            log.note("finally")
            raise LookupError

    async with produced(items()) as reading:
        await reading.packet()
    assert log.what == ["finally"]
    assert "'m' failed" in caplog.text


async def test_a_plain_iterator_needs_no_aclose() -> None:
    class Plain:
        def __init__(self) -> None:
            self.number = 0

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> int:
            self.number += 1
            if self.number > 3:
                raise StopAsyncIteration
            return self.number

    async with produced(Plain()) as reading:
        assert await reading.items() == [1, 2, 3]
    async with produced(Plain()) as reading:
        assert await reading.packet()


async def test_an_iterable_of_generators_has_its_iterator_closed(log: Log) -> None:
    class Many:
        def __aiter__(self) -> AsyncIterator[Any]:
            return once(1, log)

    async with produced(Many()) as reading:
        assert await reading.packet() == [0, 1]
        await comes_true(lambda: "waiting" in log.what)
    assert log.what == ["waiting", "finally"]


@pytest.mark.parametrize("queued", [False, True])
async def test_descriptors_that_nobody_reads_are_closed(log: Log, queued: bool, pipe: tuple[int, int]) -> None:
    given: list[OwnedFd] = []

    async def items() -> AsyncIterator[Any]:
        try:
            if queued:
                fill(reading.producer._sock)
            while True:
                given.append(OwnedFd(os.dup(pipe[0])))
                yield given[-1]
        finally:
            log.note("finally")

    async with produced(items()) as reading:
        await comes_true(lambda: reading.producer._room is not None)
        assert not given[-1].closed
    assert log.what == ["finally"]
    assert all(fd.closed for fd in given)


async def test_a_reader_that_writes_into_the_stream_is_not_listened_to(log: Log) -> None:
    async with produced(once(1, log)) as reading:
        assert await reading.packet() == [0, 1]
        with contextlib.suppress(BrokenPipeError):
            for _ in range(10):
                reading.raw.send(b"x" * 1000)
                send_with(reading.raw, b"x", [0])
        await reading.until_ended()
    assert log.what[-1] == "finally"


# Flow control and fairness


async def test_a_reader_that_does_not_read_holds_up_its_producer(log: Log) -> None:
    yielded = 0

    async def items() -> AsyncIterator[bytes]:
        nonlocal yielded
        while True:
            yielded += 1
            yield b"%0500d" % yielded

    async with produced(items()) as reading, reading.stream() as stream:
        await comes_true(lambda: reading.producer._room is not None)
        before = yielded
        await turns_of_the_loop()
        assert yielded == before
        assert before < 5_000
        assert [int(await anext(stream)) for _ in range(before + 1000)] == list(range(1, before + 1001))


@pytest.mark.parametrize("mixed", [False, True], ids=["large", "large_and_small"])
async def test_a_reader_that_does_not_read_keeps_few_memory_files(mixed: bool) -> None:
    """The kernel counts their packets, not what is in them: some 280 would fit in a socket."""
    large = 0

    def item_of(number: int) -> bytes:
        return b"%d" % number + b"x" * (100_000 if number % 8 < 4 or not mixed else 100)

    async def items() -> AsyncIterator[bytes]:
        nonlocal large
        for number in range(500):
            item = item_of(number)
            large += len(item) > 65_536
            yield item

    async with produced(items()) as reading, reading.stream() as stream:
        await comes_true(lambda: reading.producer._room is not None)
        assert 4 <= large <= 12
        for number in range(500):
            assert await anext(stream) == item_of(number)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_small_items_have_all_the_room_again_after_a_large_one() -> None:
    async def items() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000
            for _ in range(50):
                yield b"x" * 9_000

    async with produced(items()) as reading:
        usual = reading.raw.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        await comes_true(lambda: reading.producer._room is not None)
        assert reading.producer._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == usual


async def test_an_endless_source_does_not_starve_the_loop(log: Log) -> None:
    async with produced(endless(log, 1)) as reading:
        read = 0

        def drain() -> None:
            nonlocal read
            with contextlib.suppress(BlockingIOError):
                while True:
                    reading.raw.recv(65_536)
                    read += 1

        for _ in range(200):
            drain()
            await asyncio.sleep(0)
        assert read > 0


async def test_an_endless_source_and_its_reader_do_not_starve_the_loop(log: Log) -> None:
    async with produced(endless(log, 1)) as reading:
        taken = 0

        async def read() -> None:
            nonlocal taken
            async for _item in reading.stream():
                taken += 1

        task = asyncio.create_task(read())
        await turns_of_the_loop(500)
        assert taken > 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task, read  # what it raised refers to the stream


async def test_breaking_out_of_a_loop_over_a_stream_stops_its_source(log: Log) -> None:
    async with produced(endless(log)) as reading:
        stream = reading.stream()
        reading.raw.close()
        async for _item in stream:
            break
        assert log.what == []
        del stream
        await reading.until_ended()
        assert log.what == ["finally"]


# Stopping


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
        await comes_true(lambda: reading.producer._watching)
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
    with files(1) as fds:
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


async def _raw_packets(raw: socket.socket) -> AsyncIterator[bytes]:
    while packet := await receive(raw):
        yield packet


async def test_a_producer_that_never_began_can_be_stopped(log: Log) -> None:
    pair = raw_pair()
    producer = Producer(pair[0], Source(endless(log), "m"), Codec())
    producer.stop("going home")
    await producer.wait_stopped()
    ended: list[Producer] = []
    producer.start(ended.append)
    await comes_true(lambda: ended == [producer])
    assert unwire(await receive(pair[1])) == [1, ["rpc.Unavailable", "going home", None]]
    pair[1].close()


# Too many descriptors under way: a bound of the kernel for users that are not root (unix(7), ETOOMANYREFS)


@pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")
def test_a_packet_that_the_kernel_has_no_room_for_is_tried_again() -> None:
    async def story(jam: tuple[socket.socket, socket.socket]) -> list[Any]:
        async def items() -> AsyncIterator[Any]:
            yield [1, Lender()]
            yield 2

        async with produced(items()) as reading:
            await comes_true(lambda: reading.producer._room is not None and not reading.producer._watching)
            for end in jam:
                end.close()  # the kernel drops what was under way there
            (_kind, (one, _fd)), *others = await reading.packets()
            return [one, *others]

    def work() -> list[Any]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
        pair, jam = raw_pair(), raw_pair()
        for _ in range(2):
            send_with(jam[0], b"x", [0] * 50)
        result = asyncio.run(story(jam))
        for end in pair:
            end.close()
        return result

    assert in_child(work, uid=OTHER_UID) == [1, [0, 2], [1, None]]


# Exports


def test_an_export_that_is_not_sent_leaves_nothing() -> None:
    export = StreamExport(Source(counting(1), "m"), Codec(), print, print)
    assert export.fileno() >= 0
    export.unsent()


def test_a_stream_that_is_passed_on_is_closed_here_or_given_back() -> None:
    back: list[OwnedFd] = []
    with files(2) as fds:
        sent, unsent = (MovedStream(fd, back.append) for fd in list(fds))
        assert sent.ext_type == EXT_STREAM
        assert [sent.fileno(), unsent.fileno()] == [fd.fileno() for fd in fds]
        sent.sent()
        unsent.unsent()
        assert [fd.closed for fd in fds] == [True, False]
        assert back == fds[1:]


def test_what_is_passing_is_what_the_kernel_may_have_room_for_later() -> None:
    assert {errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM} == producers._PASSING
    assert DEFAULT_LIMITS.max_message_bytes > LIMITS.max_message_bytes


async def test_a_source_that_computes_and_never_waits_leaves_others_their_turns() -> None:
    turns = 0

    async def items() -> AsyncIterator[int]:
        nonlocal turns
        for item in range(100):
            until = time.perf_counter() + 0.000_2
            while time.perf_counter() < until:
                pass
            yield item

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with produced(items()) as reading:
        counting = asyncio.create_task(count())
        stream = reading.stream()
        reading.raw.close()
        assert [item async for item in stream] == list(range(100))
        counting.cancel()
        await asyncio.wait([counting])
    assert turns > 50
