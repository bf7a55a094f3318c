from __future__ import annotations

import asyncio
import math

from support.waiting import PATIENCE

from seqrpc.aio.stalls import StallWatch


class Line:
    """Somebody waits in it for so many looks."""

    def __init__(self, stall_timeout: float, *delays: float | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.watch = StallWatch(self.loop, stall_timeout, self.look)
        self.delays = list(delays)
        self.looks: list[float] = []
        self.over = asyncio.Event()

    def look(self) -> float | None:
        self.looks.append(self.loop.time())
        delay = self.delays.pop(0)
        if delay is None:
            self.over.set()
        return delay

    async def wait(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.over.wait()


async def test_a_line_is_looked_at_until_nobody_waits() -> None:
    line = Line(0.08, 0.04, None)
    began = line.loop.time()
    line.watch.start()
    line.watch.start()  # the next one in line
    await line.wait()
    assert len(line.looks) == 2
    assert line.looks[0] - began > 0.07
    assert line.looks[1] - line.looks[0] > 0.03
    assert line.watch._timer is None
    line.delays, line.over = [None], asyncio.Event()
    line.watch.start()
    await line.wait()
    assert len(line.looks) == 3


async def test_it_is_not_looked_at_for_each_of_a_thousand_who_came_one_after_the_other() -> None:
    line = Line(0.16, *[1e-6] * 3, None)
    line.watch.start()
    await line.wait()
    assert all(later - earlier > 0.015 for earlier, later in zip(line.looks, line.looks[1:], strict=False))


async def test_a_line_that_is_empty_is_not_looked_at() -> None:
    line, other = Line(0.01), Line(0.02, None)
    line.watch.stop()
    line.watch.start()
    line.watch.stop()
    other.watch.start()
    await other.wait()
    assert line.looks == []
    assert line.watch._timer is None


async def test_it_may_be_looked_at_never() -> None:
    line = Line(math.inf)
    line.watch.start()
    assert line.watch._timer is not None
    line.watch.stop()
