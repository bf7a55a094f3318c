"""Streams as results and as arguments."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.daemons import Stage
from support.faces import Kind
from support.waiting import PATIENCE

import seqrpc
from seqrpc import OwnedFd


class Wrong(seqrpc.RpcError, code="streams_of_both.Wrong"):
    """An error of the application's."""


class Numbers(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()
        self.kept: Any = None

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        try:
            for number in range(to):
                yield number
        finally:
            self.stage.reach("counted")

    @seqrpc.method
    async def quiet(self) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            self.stage.reach("quiet ended")

    @seqrpc.method
    async def files(self, number: int) -> AsyncIterator[OwnedFd]:
        for _ in range(number):
            yield OwnedFd(os.open("/dev/null", os.O_RDONLY))

    @seqrpc.method
    async def large(self, number: int, size: int) -> AsyncIterator[bytes]:
        for _ in range(number):
            yield bytes(size)

    @seqrpc.method
    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @seqrpc.method
    async def first(self, numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    @seqrpc.method
    async def doubled(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield 2 * number

    @seqrpc.method
    async def sizes(self, data: AsyncIterator[bytes]) -> list[int]:
        return [len(item) async for item in data]

    @seqrpc.method
    async def inodes(self, files: AsyncIterator[OwnedFd]) -> int:
        number = 0
        async for file in files:
            with file:
                number += os.fstat(file.fileno()).st_ino > 0
        return number

    @seqrpc.method
    async def keep(self, numbers: AsyncIterator[int]) -> None:
        self.kept = numbers

    @seqrpc.method
    async def kept_total(self) -> int:
        return sum([number async for number in self.kept])

    @seqrpc.method
    async def returned(self) -> AsyncIterator[int]:  # a stream is passed on in a result
        return self.kept  # type: ignore[no-any-return]

    @seqrpc.method
    async def both(self, one: AsyncIterator[int], other: AsyncIterator[int]) -> list[tuple[int, int]]:
        return [(number, await anext(other)) async for number in one]


async def all_of(stream: Any) -> list[Any]:
    return [item async for item in stream]


@pytest.mark.parametrize("to", [0, 1, 1000, 20_000])
async def test_all_items_come_in_order(kind: Kind, to: int) -> None:
    numbers = Numbers()
    async with kind.serving(numbers) as client:
        stream = client.proxy(Numbers).count(to)
        assert await all_of(stream) == [*range(to)]
        assert stream.closed
        assert await all_of(stream) == []
        assert await all_of(await client.call("Numbers.count", to)) == [*range(to)]


async def test_several_streams_go_on_side_by_side(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        one, other = client.proxy(Numbers).count(1000), client.proxy(Numbers).count(1000)
        for number in range(1000):
            assert (await anext(one), await anext(other)) == (number, number)
        many = [client.proxy(Numbers).count(500) for _ in range(10)]
        assert await asyncio.gather(*map(all_of, many)) == [[*range(500)]] * 10


async def test_closing_stops_the_producer(kind: Kind) -> None:
    numbers = Numbers()
    async with kind.serving(numbers) as client:
        async with client.proxy(Numbers).quiet() as stream:
            assert await anext(stream) == 1
        assert stream.closed
        await numbers.stage.wait("quiet ended")
        assert await all_of(stream) == []
        endless = client.proxy(Numbers).count(10**9)
        assert [await anext(endless) for _ in range(10)] == [*range(10)]
        await endless.close()
        await numbers.stage.wait("counted")


async def test_dropping_stops_the_producer(kind: Kind) -> None:
    numbers = Numbers()
    async with kind.serving(numbers) as client:
        stream = client.proxy(Numbers).quiet()
        assert await anext(stream) == 1
        del stream
        await numbers.stage.wait("quiet ended")


async def test_a_stream_that_nobody_reads_makes_no_call(kind: Kind) -> None:
    numbers = Numbers()
    async with kind.serving(numbers) as client:
        stream = client.proxy(Numbers).count(3)
        assert repr(stream) == "<Stream unopened>"
        await stream.close()
        assert await all_of(stream) == []
        assert numbers.stage.reached == []
        opened = await client.proxy(Numbers).count(3).open()
        assert repr(opened) == "<Stream open>"
        assert await all_of(opened) == [0, 1, 2]


async def test_a_deadline_bounds_the_next_item_and_loses_none(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        stream = client.proxy(Numbers).quiet()
        assert await anext(stream) == 1
        for _ in range(2):
            with pytest.raises(seqrpc.DeadlineExceeded, match=r"the time given by seqrpc\.timeout is up"):
                async with kind.timeout(0.02):
                    await anext(stream)
        assert not stream.closed
        await stream.close()


async def test_items_bring_descriptors(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        number = 0
        async for fd in client.proxy(Numbers).files(50):
            with fd:
                os.fstat(fd.fileno())
            number += 1
        assert number == 50
        untaken = client.proxy(Numbers).files(50)
        with await anext(untaken):
            await untaken.close()


async def test_large_items(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        assert [len(item) async for item in client.proxy(Numbers).large(5, 300_000)] == [300_000] * 5


async def test_a_stream_outlives_its_connection(kind: Kind) -> None:
    numbers = Numbers()
    ours, theirs = seqrpc.socket_pair()
    other, fourth = seqrpc.socket_pair()
    async with seqrpc.serve(numbers, sock=theirs), seqrpc.serve(numbers, sock=fourth), kind.connected(sock=other):
        async with kind.connected(sock=ours) as client:
            stream = await client.proxy(Numbers).count(3).open()
        assert await all_of(stream) == [0, 1, 2]


async def test_a_received_stream_is_passed_on(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        numbers = client.proxy(Numbers)
        assert await numbers.total(await numbers.count(10).open()) == 45
        assert await client.call("Numbers.total", await client.call("Numbers.count", 10)) == 45
        begun = numbers.count(10)
        assert await anext(begun) == 0
        assert await numbers.total(begun) == 45, "it is relayed"
        assert await numbers.total(numbers.count(10)) == 45, "as is one that is not open"


async def test_a_stream_that_could_not_be_sent_is_as_it_was(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        stream = await client.call("Numbers.count", 3)
        with pytest.raises(seqrpc.LocalProtocolError):
            await client.call("Numbers.both", stream, object())
        assert await all_of(stream) == [0, 1, 2]


# Iterators of the caller's


async def test_an_iterator_is_produced_while_its_call_waits(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        numbers = client.proxy(Numbers)
        assert await numbers.total(kind.iterator(range(5000))) == sum(range(5000))
        assert await client.call("Numbers.total", kind.iterator([])) == 0
        assert await client.call("Numbers.sizes", kind.iterator([bytes(10), bytes(200_000), bytes(5)])) == [
            10,
            200_000,
            5,
        ]


async def test_two_iterators_in_one_call(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        zipped = await client.proxy(Numbers).both(kind.iterator(range(100)), kind.iterator(range(100, 200)))
        assert zipped == [(number, number + 100) for number in range(100)]


async def test_an_iterator_ends_when_nobody_wants_more(kind: Kind) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless() -> Any:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            loop.call_soon_threadsafe(ended.set)

    async with kind.serving(Numbers()) as client:
        assert await client.proxy(Numbers).first(kind.iterator(endless())) == 0
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        assert await client.proxy(Numbers).total(kind.iterator([1])) == 1


async def test_what_an_iterator_raises_is_raised_where_it_is_read(kind: Kind) -> None:
    def fails(error: Exception) -> Any:
        yield 1
        raise error

    async with kind.serving(Numbers()) as client:
        for error, shown in ((Wrong("it was"), Wrong), (ZeroDivisionError(), seqrpc.Internal)):
            with pytest.raises(shown):
                await client.proxy(Numbers).total(kind.iterator(fails(error)))
        assert await client.proxy(Numbers).total(kind.iterator([1, 2])) == 3


async def test_an_iterator_of_descriptors_gives_them_away(kind: Kind) -> None:
    def opened() -> Any:
        for _ in range(20):
            yield OwnedFd(os.open("/dev/null", os.O_RDONLY))

    async with kind.serving(Numbers()) as client:
        assert await client.proxy(Numbers).inodes(kind.iterator(opened())) == 20


async def test_a_call_that_is_given_up_ends_its_iterators(kind: Kind) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def never_enough() -> Any:
        try:
            while True:
                yield 1
        finally:
            loop.call_soon_threadsafe(ended.set)

    class Reader(seqrpc.Service):
        @seqrpc.method
        async def reads(self, numbers: AsyncIterator[int]) -> None:
            async for _number in numbers:
                pass

    async with kind.serving(Reader()) as client:
        with pytest.raises(seqrpc.DeadlineExceeded):
            async with kind.timeout(0.05):
                await client.call("Reader.reads", kind.iterator(never_enough()))
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        assert await client.call("rpc.ping") is None


async def test_an_iterator_that_is_not_sent_is_as_it_was(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        iterator = kind.iterator([1, 2])
        with pytest.raises(seqrpc.LocalProtocolError):
            await client.call("Numbers.both", iterator, object())
        assert await client.call("Numbers.total", iterator) == 3


async def test_more_streams_than_allowed_are_refused(kind: Kind) -> None:
    limits = seqrpc.Limits(max_living_values=1)
    async with kind.serving(Numbers(), limits=limits) as client:
        with pytest.raises(seqrpc.Overloaded, match="max_living_values"):
            await client.call("Numbers.both", kind.iterator([1]), kind.iterator([2]))
        assert await client.call("Numbers.total", kind.iterator([1])) == 1
        assert await client.call("Numbers.total", kind.iterator([2])) == 2


async def test_a_stream_of_a_stream(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        doubled = client.proxy(Numbers).doubled(await client.proxy(Numbers).count(50).open())
        assert await all_of(doubled) == [2 * number for number in range(50)]


async def test_a_stream_that_the_other_side_keeps_is_returned(kind: Kind) -> None:
    async with kind.serving(Numbers()) as client:
        await client.proxy(Numbers).keep(await client.proxy(Numbers).count(10).open())
        assert await client.call("Numbers.kept_total") == 45
        await client.proxy(Numbers).keep(await client.proxy(Numbers).count(5).open())
        assert await all_of(await client.call("Numbers.returned")) == [*range(5)]
