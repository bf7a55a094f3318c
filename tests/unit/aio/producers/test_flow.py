"""Flow control and fairness."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.descriptors import Lender
from support.packets import raw_pair, send_with
from support.processes import AS_ROOT, OTHER_UID, in_child
from support.producers import Log, endless, produced
from support.waiting import comes_true, turns_of_the_loop

from seqrpc.aio import shares

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


# Too many descriptors under way: a bound of the kernel for users that are not root (unix(7), ETOOMANYREFS)


@pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")
def test_a_packet_that_the_kernel_has_no_room_for_is_tried_again() -> None:
    async def story(jam: tuple[socket.socket, socket.socket]) -> list[Any]:
        async def items() -> AsyncIterator[Any]:
            yield [1, Lender()]
            yield 2

        async with produced(items()) as reading:
            await comes_true(lambda: reading.producer.waits and not reading.producer.watches)
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


# Turns of others


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


async def test_many_streams_of_one_user_take_no_more_of_a_turn_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each computes without end, for a reader that takes everything; the loop goes on in a few turns' time."""
    monkeypatch.setattr(shares, "_ALONE_SECONDS", shares.TURN_SECONDS)
    went_on = [0] * 100

    async def items(number: int) -> AsyncIterator[bytes]:
        while True:
            time.sleep(0.000_2)  # noqa: ASYNC251 - it computes
            went_on[number] += 1
            yield b"x"

    async with contextlib.AsyncExitStack() as stack:
        for number in range(len(went_on)):
            await stack.enter_async_context(produced(items(number)))
        await comes_true(lambda: min(went_on) > 0)
        most = 0
        for _ in range(50):
            before = sum(went_on)
            await asyncio.sleep(0)
            most = max(most, sum(went_on) - before)
        assert most <= 20, "of a hundred in a turn"
        before_all = list(went_on)
        await comes_true(lambda: all(map(int.__gt__, went_on, before_all)))


async def test_one_that_waits_for_its_turn_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_ALONE_SECONDS", shares.TURN_SECONDS)

    async def items() -> AsyncIterator[bytes]:
        while True:
            time.sleep(2 * shares.TURN_SECONDS)  # noqa: ASYNC251 - it computes
            yield b"x"

    async with produced(items()) as one, produced(items()) as other:
        pace = one.producer._pace
        assert pace is other.producer._pace
        await comes_true(lambda: pace.waiting > 0)
        other.producer.stop("enough")
        await comes_true(lambda: bool(other.ended))
        assert pace.waiting <= 1
    assert pace.waiting == 0
