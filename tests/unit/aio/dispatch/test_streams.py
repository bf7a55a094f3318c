"""Handlers that take streams."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.daemons import Stage, on_a_pair
from support.descriptors import open_count
from support.dispatch import Counter
from support.flow import Failed, Flow, Point, every
from support.waiting import PATIENCE

import seqrpc
from seqrpc import OwnedFd


async def of(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


# Taking streams


async def test_any_async_iterable_is_uploaded() -> None:
    async with on_a_pair(Flow()) as connection:
        flow = connection.proxy(Flow)
        assert await flow.add_up(of(*range(1_000))) == sum(range(1_000))
        assert await flow.add_up(Counter(5)) == 10  # type: ignore[arg-type]
        assert await flow.add_up(of()) == 0
        assert await flow.two(of(1, 2), second=of("a", "b")) == ["1a", "1b"]


async def test_an_upload_comes_as_it_is_made() -> None:
    flow = Flow()

    async def slowly() -> AsyncIterator[int]:
        yield 1
        await flow.stage.wait("at 1")
        yield 2
        await flow.stage.wait("at 3")

    async with on_a_pair(flow) as connection:
        assert await connection.proxy(Flow).add_up(slowly()) == 3


async def test_streams_go_both_ways_at_once() -> None:
    sent = Stage()

    async def points() -> AsyncIterator[Point]:
        for number in range(10):
            yield Point(number)
            await sent.wait(str(2 * number))

    flow = Flow()
    async with on_a_pair(flow) as connection:
        received = []
        async for point in connection.proxy(Flow).doubled(points()):
            received.append(point)
            sent.reach(str(point.x))
        assert received == [Point(2 * number) for number in range(10)]


@pytest.mark.parametrize("method", ["first", "ignore"])
async def test_a_handler_that_wants_no_more_stops_the_uploader(method: str) -> None:
    stage = Stage()

    async def endless() -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            stage.reach("ended")

    async with on_a_pair(Flow()) as connection:
        await getattr(connection.proxy(Flow), method)(endless())
        if method == "first":
            await stage.wait("ended")


async def test_dropping_a_two_way_stream_ends_both_sides() -> None:
    stage, flow = Stage(), Flow()

    async def endless() -> AsyncIterator[Point]:
        try:
            while True:
                yield Point(1)
        finally:
            stage.reach("ended")

    async with on_a_pair(flow) as connection:
        async for point in connection.proxy(Flow).doubled(endless()):
            assert point == Point(2)
            break
        del point
        await flow.stage.wait("doubled ended")
        await stage.wait("ended")


@pytest.mark.parametrize("bad", ["x", None, 1.5, [1]])
async def test_a_bad_item_is_invalid_params_at_the_handler_and_crosses_as_such(bad: Any) -> None:
    async with on_a_pair(Flow()) as connection:
        flow = connection.proxy(Flow)
        with pytest.raises(
            seqrpc.InvalidParams, match=r"an item of a stream does not fit its annotation: Expected `int`"
        ):
            await flow.add_up(of(1, bad, 2))
        assert (await flow.tolerant(of(1, bad))).startswith("invalid: an item of a stream")
        with pytest.raises(seqrpc.InvalidParams, match="an item of a stream"):
            await every(flow.doubled(of(Point(1), bad)))


async def test_the_items_before_a_bad_one_are_handled() -> None:
    flow = Flow()
    async with on_a_pair(flow) as connection:
        with pytest.raises(seqrpc.InvalidParams):
            await connection.proxy(Flow).add_up(of(1, 2, "x", 4))
        assert flow.stage.reached == ["at 1", "at 3"]


async def test_an_upload_that_fails_is_seen_by_the_handler_and_is_not_its_failure_as_such() -> None:
    async def failing(exc: Exception) -> AsyncIterator[int]:
        yield 1
        raise exc

    async with on_a_pair(Flow()) as connection:
        flow = connection.proxy(Flow)
        with pytest.raises(seqrpc.RpcError) as caught:
            await flow.add_up(failing(Failed(5)))
        assert caught.value.code == "test.Failed"
        with pytest.raises(seqrpc.Internal):
            await flow.add_up(failing(KeyError("secret")))


async def test_what_is_no_stream_is_refused_as_one_and_a_stream_as_anything_else() -> None:
    async with on_a_pair(Flow()) as connection:
        for wrong in ([1], "x", None):
            with pytest.raises(seqrpc.InvalidParams, match=r"Expected a stream, got `.*` - at `numbers`"):
                await connection.call("Flow.add_up", wrong)
        with pytest.raises(seqrpc.InvalidParams, match="Expected `int`, got `Stream`"):
            await connection.call("Flow.count", of(1))


async def test_uploads_to_a_call_that_is_refused_are_stopped_before_they_begin() -> None:
    before = open_count()
    async with on_a_pair(Flow()) as connection:
        with pytest.raises(seqrpc.MethodNotFound):
            await connection.call("Flow.nothing", of(1))
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Flow.forbidden", of(1))
    async with asyncio.timeout(PATIENCE):
        while open_count() > before:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)


async def test_items_with_descriptors_go_both_ways(pipe: tuple[int, int]) -> None:
    async with on_a_pair(Flow()) as connection:
        before = open_count()
        inodes = []
        async for fd in connection.proxy(Flow).descriptors(of(*[OwnedFd.dup(end) for end in pipe])):
            with fd:
                inodes.append(os.fstat(fd.fileno()).st_ino)
        assert inodes == [os.fstat(end).st_ino for end in pipe]
        async with asyncio.timeout(PATIENCE):
            while open_count() > before:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)


class Beside(seqrpc.Service):
    @seqrpc.method
    async def add(self, numbers: AsyncIterator[int], names: dict[int, int]) -> int:
        return sum([number async for number in numbers]) + sum(names)

    @seqrpc.method
    async def both(self) -> list[Any]:
        return [Counter(3), {1: 2}]


async def test_a_stream_arrives_beside_a_map_whose_keys_are_numbers() -> None:
    async with on_a_pair(Beside()) as client:
        assert await client.proxy(Beside).add(Counter(3).__aiter__(), {40: 1}) == 43
        numbers, names = await client.call("Beside.both")
        assert [number async for number in numbers] == [0, 1, 2]
        assert names == {1: 2}
