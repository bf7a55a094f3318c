"""Items as they leave, and what is made for them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.descriptors import owned, same_file
from support.producers import counting, produced

from seqrpc import OwnedFd
from seqrpc.aio import producers

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
    with owned(2) as fds:
        lent = list(fds)
        async with produced(counting(3), fds) as reading:
            assert [fd.closed for fd in lent] == [False, False]
            assert await reading.items() == [0, 1, 2]
            await reading.until_ended()
            assert [fd.closed for fd in lent] == [True, True]
