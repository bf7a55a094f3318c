from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.lifespans import Broken
from support.waiting import PATIENCE, comes_true
from support.workers import Desk, Refuses, gone_within, is_alive

import seqrpc
from seqrpc import Execution, WorkerPool
from seqrpc.workers.mapping import Results


@asynccontextmanager
async def pooled(size: int = 2, **options: Any) -> AsyncIterator[tuple[WorkerPool, Desk]]:
    async with asyncio.timeout(PATIENCE), WorkerPool(Desk, size=size, **options) as pool:
        yield pool, pool.proxy(Desk)


def in_flight(pool: WorkerPool) -> int:
    assert pool._staff is not None
    return sum(member.in_flight for member in pool._staff.hall.members)


async def test_calls_are_spread() -> None:
    async with pooled(2, calls_per_worker=1) as (pool, desk):
        assert repr(pool) == repr(pool._callee) == "<WorkerPool Desk: 2 of 2 workers>"
        assert len(set(pool.pids)) == pool.size == 2
        await asyncio.gather(*(desk.doze(0.01) for _ in range(2)))
        pids = {who[1] for who in await asyncio.gather(*(desk.who() for _ in range(2)))}
        assert pids == set(pool.pids)
        assert await pool.call("Desk.add", 1) == 1
        await pool.notify("Desk.add", 1)
        assert [number async for number in desk.count(3)] == [0, 1, 2]
        async with desk:
            assert await desk.add(2) == 2
        assert not pool.closed
    assert pool.closed
    assert repr(pool) == "<WorkerPool Desk: 0 of 2 workers>"
    with pytest.raises(seqrpc.ConnectionLost, match="the pool was closed on this side"):
        await desk.add(1)


async def test_all_have_ended_when_it_is_told_that_the_lifespan_of_what_is_served_to_them_failed() -> None:
    with pytest.raises(OSError, match="the disk is full"):
        async with pooled(2, serve=Broken()) as (pool, _desk):
            alive = pool.pids
    assert pool.pids == ()
    assert not any(map(is_alive, alive))


async def test_a_notify_that_finds_its_worker_dead_goes_to_the_next_one() -> None:
    async with pooled(1) as (pool, desk):
        assert await desk.add(1) == 1
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        assert gone_within(PATIENCE, [pid])  # the loop has not heard of it
        await pool.notify("Desk.add", 1)
        await comes_true(lambda: pool.pids not in ((), (pid,)))
        assert (await desk.who())[1] == pool.pids[0] != pid
    with pytest.raises(seqrpc.ConnectionLost, match="the pool was closed on this side"):
        await pool.notify("Desk.add", 1)


async def test_calls_that_find_all_busy_wait_in_order_and_keep_their_deadlines() -> None:
    async with pooled(1, calls_per_worker=1) as (pool, desk):
        done: list[int] = []

        async def call(number: int) -> None:
            done.append(await desk.doze(0.01, number))

        first = asyncio.ensure_future(desk.doze(0.3))
        calls = [asyncio.ensure_future(call(number)) for number in range(4)]
        await comes_true(lambda: pool.waiting == 4)
        with pytest.raises(seqrpc.DeadlineExceeded, match="before a worker was free") as caught:
            async with asyncio.timeout(PATIENCE):
                await pool._callee.request("Desk.add", (1,), 1, None)
        assert caught.value.execution is Execution.DID_NOT_RUN
        calls[1].cancel()
        await first
        await asyncio.gather(*calls, return_exceptions=True)
        assert done == [0, 2, 3]
        assert pool.waiting == 0


async def test_a_turn_that_came_as_its_call_was_cancelled_goes_to_the_next() -> None:
    async with pooled(1, calls_per_worker=1) as (pool, desk):
        first, second, third = (asyncio.ensure_future(desk.doze(0.02, number)) for number in range(3))
        await comes_true(lambda: pool.waiting == 2)
        assert await first == 0
        second.cancel()
        assert await third == 2


async def test_a_crash_loses_the_calls_of_its_worker_and_no_others() -> None:
    async with pooled(2) as (pool, desk):
        calls = [asyncio.ensure_future(desk.doze(0.3, number)) for number in range(10)]
        await comes_true(lambda: in_flight(pool) == 10)
        os.kill(pool.pids[0], signal.SIGKILL)
        results = await asyncio.gather(*calls, return_exceptions=True)
        lost = [result for result in results if isinstance(result, seqrpc.WorkerCrashed)]
        assert len(lost) == 5
        assert {error.execution for error in lost} == {Execution.MAY_HAVE_RUN}
        await comes_true(lambda: len(pool.pids) == 2)
        assert await desk.add(1) == 1


async def test_idempotent_calls_are_made_again() -> None:
    async with pooled(2, retry=1) as (pool, desk):
        calls = [asyncio.ensure_future(desk.doze(0.3, number)) for number in range(10)]
        await comes_true(lambda: in_flight(pool) == 10)
        os.kill(pool.pids[0], signal.SIGKILL)
        assert await asyncio.gather(*calls) == list(range(10))


async def test_one_that_kills_each_worker_is_not_made_again_for_ever() -> None:
    async with pooled(1, retry=2) as (_pool, desk):
        with pytest.raises(seqrpc.WorkerCrashed):
            await desk.exit(1)
        assert await desk.add(1) == 1


async def test_a_worker_is_replaced_after_so_many_calls_with_its_successor_ready() -> None:
    async with pooled(1, max_calls=3) as (pool, desk):
        before = pool.pids
        for number in range(3):
            assert await desk.add(number) == number
        await comes_true(lambda: len(pool.pids) == 1 and pool.pids != before)
        await comes_true(lambda: not is_alive(before[0]))
        assert await desk.add(1) == 1


async def test_a_worker_that_is_replaced_ends_its_streams_first() -> None:
    async with pooled(1, max_calls=1) as (pool, desk):
        before = pool.pids
        numbers = desk.count(50_000)  # more than fits in its socket
        assert await anext(numbers) == 0
        await comes_true(lambda: len(pool.pids) == 2)
        assert sum([1 async for _ in numbers]) == 49_999
        await comes_true(lambda: len(pool.pids) == 1 and pool.pids != before)
        assert not is_alive(before[0])


async def test_a_worker_that_has_grown_is_replaced() -> None:
    async with pooled(1, max_memory_bytes=150_000_000) as (pool, desk):
        assert await desk.add(1) == 1
        before = pool.pids
        await desk.memory(200_000_000)
        await comes_true(lambda: len(pool.pids) == 1 and pool.pids != before)


async def test_it_grows_and_shrinks() -> None:
    async with pooled(1) as (pool, desk):
        await pool.scale(3)
        assert len(pool.pids) == pool.size == 3
        busy = [asyncio.ensure_future(desk.doze(0.2, number)) for number in range(6)]
        await desk.add(1)
        await pool.scale(1)
        assert len(pool.pids) == 1
        assert await asyncio.gather(*busy) == list(range(6)), "what was under way has ended"
        await pool.scale(1)


async def test_idle_workers_end_and_come_again() -> None:
    async with pooled(2, idle_timeout=0.05) as (pool, desk):
        await comes_true(lambda: not pool.pids)
        assert await desk.add(1) == 1
        await comes_true(lambda: not pool.pids)


async def test_all_are_told() -> None:
    async with pooled(3) as (pool, _desk):
        assert {who[1] for who in await pool.broadcast("Desk.who")} == set(pool.pids)
        with pytest.raises(seqrpc.MethodNotFound):
            await pool.broadcast("Desk.no")


@pytest.mark.parametrize("ordered", [True, False])
async def test_items_are_mapped(ordered: bool) -> None:
    async with pooled(2) as (pool, desk):
        seen: list[int] = []
        results = [each async for each in pool.map(desk.add, range(50), ordered=ordered, progress=seen.append)]
        assert (results if ordered else sorted(results)) == list(range(50))
        assert seen == list(range(1, 51))
        few: Results[int] = pool.map("Desk.add", range(3))
        async with few:
            assert [each async for each in few] == [0, 1, 2]


async def test_without_a_worker_that_begins_calls_fail() -> None:
    async with pooled(1) as (pool, desk):
        assert pool._staff is not None
        pool._staff._plan = pool._staff._plan._replace(origin=None, command=("/nowhere",))
        os.kill(pool.pids[0], signal.SIGKILL)
        await comes_true(lambda: not pool.pids)
        with pytest.raises(seqrpc.WorkerCrashed, match="exited with status 126") as caught:
            await desk.add(1)
        assert caught.value.execution is Execution.DID_NOT_RUN


async def test_one_that_does_not_begin_ends_the_others() -> None:
    with pytest.raises(seqrpc.WorkerCrashed, match="did not begin: ValueError: no"):
        await WorkerPool(Refuses, "no", size=2, output="capture").start()


async def test_before_it_is_started_it_has_nobody_to_call() -> None:
    pool = WorkerPool(Desk)
    assert (pool.size, pool.pids, pool.waiting, pool.closed) == (len(os.sched_getaffinity(0)), (), 0, False)
    assert repr(pool) == "<WorkerPool Desk>"
    with pytest.raises(RuntimeError, match="the pool of Desk was not started"):
        await pool.call("Desk.add", 1)
    for method in (pool.scale(1), pool.broadcast("Desk.add")):
        with pytest.raises(RuntimeError, match="the pool was not started"):
            await method
    async with pool.proxy(Desk):
        pass
    await pool.close()


async def test_it_is_started_once() -> None:
    async with pooled(1) as (pool, _desk):
        with pytest.raises(RuntimeError, match="was started before"):
            await pool.start()


async def test_one_that_is_dropped_ends_and_says_so() -> None:
    pool = WorkerPool(Desk, size=1)
    await pool.start()
    (pid,) = pool.pids
    with pytest.warns(ResourceWarning, match="unclosed <WorkerPool Desk"):
        pool = gc.collect()  # type: ignore[assignment] # nothing refers to it any more
    await comes_true(lambda: not is_alive(pid))
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    "options, kind, text",
    [
        ({"size": 0}, ValueError, "size= takes a whole number of at least 1, got 0"),
        ({"size": 1.5}, TypeError, "size= takes a whole number"),
        ({"calls_per_worker": 0}, ValueError, "calls_per_worker="),
        ({"max_calls": 0}, ValueError, "max_calls="),
        ({"max_memory_bytes": 0}, ValueError, "max_memory_bytes="),
        ({"retry": -1}, ValueError, "retry="),
        ({"idle_timeout": 0}, ValueError, "idle_timeout="),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        WorkerPool(Desk, **options)
