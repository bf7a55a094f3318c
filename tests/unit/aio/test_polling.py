"""A loop that is kept from sleeping: it has something to call in each of its turns."""

from __future__ import annotations

import asyncio

from support.waiting import comes_true, loop_works

from seqrpc.aio.polling import Polling


class Reads:
    """Counts how often it was read, and how the loop was found."""

    def __init__(self) -> None:
        self.count = 0
        self.polling: Polling | None = None

    def read(self) -> None:
        self.count += 1
        if self.polling is not None:
            self.polling.stop()


async def test_a_loop_sleeps_until_something_is_read_and_again_when_nothing_is_any_more() -> None:
    reads = Reads()
    polling = Polling(asyncio.get_running_loop(), reads.read, 60)
    assert not await loop_works()
    for count in (1, 2):
        polling.read()
        assert reads.count == count
        assert await loop_works()
    polling.stop()
    await asyncio.sleep(0)
    assert not await loop_works()
    polling.read()
    assert await loop_works()
    polling.stop()


async def test_a_loop_is_kept_awake_only_for_a_while() -> None:
    polling = Polling(asyncio.get_running_loop(), Reads().read, 0.001)
    polling.read()
    await comes_true(lambda: not polling.is_awake)
    assert not await loop_works()


async def test_whoever_stops_while_it_is_read_lets_the_loop_sleep() -> None:
    reads = Reads()
    reads.polling = polling = Polling(asyncio.get_running_loop(), reads.read, 60)
    polling.read()
    assert not polling.is_awake
    assert not await loop_works()
