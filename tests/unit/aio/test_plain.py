from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.waiting import PATIENCE

import seqrpc
from seqrpc.aio.plain import PlainCalls
from seqrpc.limits import Limits


async def wait(*futures: Future[Any]) -> list[Any]:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)


class Busy:
    """All threads of some calls, until they may go on."""

    def __init__(self, calls: PlainCalls, threads: int) -> None:
        began = threading.Barrier(threads + 1)
        self.go_on = threading.Event()

        def work() -> str:
            began.wait(PATIENCE)
            self.go_on.wait(PATIENCE)
            return "worked"

        self.futures = [calls.submit(work) for _ in range(threads)]
        began.wait(PATIENCE)


@asynccontextmanager
async def plain_calls(threads: int, stall_timeout: float) -> AsyncIterator[PlainCalls]:
    calls = PlainCalls(Limits(max_threads=threads, stall_timeout=stall_timeout))
    yield calls
    calls.close()


async def test_functions_run_in_threads_and_nothing_is_watched_while_there_is_one_free() -> None:
    async with plain_calls(2, 0.01) as calls:
        for _ in range(20):
            (thread,) = await wait(calls.submit(threading.get_ident))
            assert thread != threading.get_ident()
        (failed,) = await wait(calls.submit(lambda: 1 // 0))
        assert type(failed) is ZeroDivisionError


async def test_what_waits_while_no_thread_comes_free_is_overloaded_and_never_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with plain_calls(2, 0.05) as calls:
        busy = Busy(calls, 2)
        ran: list[int] = []
        waiting = [calls.submit(lambda: ran.append(1)) for _ in range(3)]
        cancelled, discarded = waiting[0], waiting[1]
        assert cancelled.cancel()
        calls.discard(discarded)
        (refused,) = await wait(waiting[2])
        assert type(refused) is seqrpc.Overloaded
        assert refused.message == "all 2 threads are busy (max_threads), and none came free for 0.05 s (stall_timeout)"
        assert "plain functions are refused or dropped: all 2 threads are busy (max_threads)" in caplog.text
        busy.go_on.set()
        assert await wait(*busy.futures) == ["worked", "worked"]
        assert await wait(calls.submit(lambda: 5)) == [5]
        assert ran == []


async def test_the_watch_ends_when_nothing_waits_any_more() -> None:
    async with plain_calls(1, 0.05) as calls:
        busy = Busy(calls, 1)
        waiting = calls.submit(lambda: 5)
        busy.go_on.set()
        assert await wait(waiting) == [5]
        async with asyncio.timeout(PATIENCE):
            while calls._watch is not None and calls._watch._timer is not None:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)


async def test_a_line_that_moves_slowly_is_not_refused() -> None:
    async with plain_calls(1, 0.5) as calls:
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause = threading.Event()
        futures = [calls.submit(lambda: pause.wait(0.1)) for _ in range(8)]
        assert await wait(*futures) == [False] * 8
        assert loop.time() - began > 0.75


async def test_it_may_wait_for_ever_and_a_watch_ends_with_the_threads() -> None:
    async with plain_calls(1, math.inf) as calls:
        busy = Busy(calls, 1)
        waiting = calls.submit(lambda: 5)
        assert calls._watch is not None
        assert calls._watch._timer is not None
        calls.close()
        assert calls._watch._timer is None
        assert waiting.cancelled()
        busy.go_on.set()
        await wait(*busy.futures)
        with pytest.raises(RuntimeError, match="the threads were let go"):
            calls.submit(lambda: 5)


class Slow(seqrpc.Service):
    """A plain function that takes a thread, and others that would need one."""

    def __init__(self) -> None:
        self.began, self.go_on = asyncio.Event(), threading.Event()
        self.loop = asyncio.get_running_loop()
        self.heard: list[str] = []

    @seqrpc.method
    def work(self) -> str:
        self.loop.call_soon_threadsafe(self.began.set)
        self.go_on.wait(PATIENCE)
        return "worked"

    @seqrpc.method
    def size(self, file: seqrpc.OwnedFd) -> int:
        return os.fstat(file.fileno()).st_size

    @seqrpc.method(oneway=True)
    def hear(self, what: str) -> None:
        self.heard.append(what)


async def test_a_call_that_is_refused_closes_its_descriptors_and_a_oneway_is_dropped(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    service = Slow()
    async with on_a_pair(service, limits=seqrpc.Limits(max_threads=1, stall_timeout=0.05)) as connection:
        working = asyncio.ensure_future(connection.call("Slow.work"))
        await asyncio.wait_for(service.began.wait(), PATIENCE)
        before = len(os.listdir("/proc/self/fd"))
        await connection.notify("Slow.hear", "this is dropped")
        with seqrpc.OwnedFd.dup(pipe[0]) as fd, pytest.raises(seqrpc.Overloaded, match="all 1 threads are busy"):
            await connection.call("Slow.size", fd)
        assert len(os.listdir("/proc/self/fd")) == before
        assert "refused or dropped" in caplog.text
        service.go_on.set()
        assert await working == "worked"
        await connection.notify("Slow.hear", "this is heard")
        with seqrpc.OwnedFd.dup(pipe[0]) as fd:
            assert await connection.call("Slow.size", fd) == 0
    assert service.heard == ["this is heard"]
