"""The way back to the loop for handlers that run in threads: ``current_call().run(...)``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from support.daemons import on_a_pair
from support.processes import in_child
from support.waiting import PATIENCE

import seqrpc


class Screen(seqrpc.Service):
    def __init__(self) -> None:
        self.shown: list[tuple[str, dict[str, str], float | None]] = []

    @seqrpc.method
    async def show(self, text: str) -> int:
        call = seqrpc.current_call()
        self.shown.append((text, dict(call.meta), call.deadline))
        return len(self.shown)

    @seqrpc.method
    async def fail(self) -> None:
        raise seqrpc.RpcError("no", code="screen.Broken")


class Waiting:
    """Something that never ends by itself, and that says how it ended."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended: concurrent.futures.Future[str] = concurrent.futures.Future()

    async def wait(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ended.set_result("cancelled")
            raise


class Worker(seqrpc.Service):
    """Does in a thread what a test gives it."""

    def __init__(self, job: Callable[[], Any]) -> None:
        self.job = job
        self.done: concurrent.futures.Future[Any] = concurrent.futures.Future()

    @seqrpc.method
    def work(self) -> Any:
        try:
            result = self.job()
        except BaseException as exc:
            self.done.set_exception(exc)
            raise
        self.done.set_result(result)
        return result

    @seqrpc.method
    async def work_on_the_loop(self) -> Any:
        return await self.job()


async def result_of(future: concurrent.futures.Future[Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.wrap_future(future)


async def test_a_plain_handler_calls_back_its_caller() -> None:
    def job() -> Any:
        call = seqrpc.current_call()
        screen = call.connection.proxy(Screen)
        return call.run(screen.show("working")) + call.run(call.connection.call("Screen.show", "done"))

    screen = Screen()
    async with on_a_pair(Worker(job), client=[screen]) as connection:
        assert await connection.call("Worker.work") == 3
    assert [text for text, _meta, _deadline in screen.shown] == ["working", "done"]


async def test_what_the_awaitable_raises_is_raised_in_the_thread() -> None:
    def job() -> str:
        call = seqrpc.current_call()
        try:
            call.run(call.connection.proxy(Screen).fail())
        except seqrpc.RpcError as exc:
            return exc.code
        return "nothing"

    async with on_a_pair(Worker(job), client=[Screen()]) as connection:
        assert await connection.call("Worker.work") == "screen.Broken"


async def test_it_has_the_context_of_the_handler() -> None:
    def job() -> list[Any]:
        call = seqrpc.current_call()

        async def inside() -> list[Any]:
            async with seqrpc.timeout(1_000):
                await call.connection.proxy(Screen).show("inside")
            return [seqrpc.current_call() is call, asyncio.get_running_loop() is call.connection.get_loop()]

        with seqrpc.metadata(user="ann"):
            return call.run(inside())

    screen = Screen()
    async with on_a_pair(Worker(job), client=[screen]) as connection:
        before = time.monotonic()
        async with seqrpc.timeout(60):
            assert await connection.call("Worker.work") == [True, True]
    ((text, meta, deadline),) = screen.shown
    assert (text, meta) == ("inside", {"user": "ann"})
    assert deadline is not None
    assert 50 < deadline - before <= 61, "the deadline of the call, which is the earlier one"


async def test_a_thread_that_the_handler_started_has_it_too() -> None:
    def job() -> bool:
        call = seqrpc.current_call()
        found: list[bool] = []

        async def inside() -> bool:
            return seqrpc.current_call() is call

        thread = threading.Thread(target=lambda: found.append(call.run(inside())))
        thread.start()
        thread.join(PATIENCE)
        return found == [True]

    async with on_a_pair(Worker(job)) as connection:
        assert await connection.call("Worker.work") is True


async def test_threads_of_a_coroutine_handler_have_it_too() -> None:
    async def job() -> int:
        call = seqrpc.current_call()
        runs = [asyncio.to_thread(lambda: call.run(asyncio.sleep(0, 2))) for _ in range(5)]
        return sum(await asyncio.gather(*runs))

    async with on_a_pair(Worker(job)) as connection:
        assert await connection.call("Worker.work_on_the_loop") == 10


async def test_it_takes_a_future_and_refuses_what_cannot_be_awaited() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(7)

    def job() -> Any:
        call = seqrpc.current_call()
        with pytest.raises(TypeError, match="await"):
            call.run(5)  # type: ignore[arg-type]
        return call.run(future)

    async with on_a_pair(Worker(job)) as connection:
        assert await connection.call("Worker.work") == 7


@pytest.mark.parametrize("how", ["cancelled", "deadline", "connection lost"])
async def test_it_ends_with_its_call(how: str) -> None:
    waiting = Waiting()
    calls: list[seqrpc.CurrentCall] = []

    def job() -> None:
        calls.append(seqrpc.current_call())
        calls[0].run(waiting.wait())

    worker = Worker(job)
    async with on_a_pair(worker) as connection:

        async def ask() -> None:
            async with seqrpc.timeout(0.05 if how == "deadline" else None):
                await connection.call("Worker.work")

        asking = asyncio.ensure_future(ask())
        assert await asyncio.to_thread(waiting.began.wait, PATIENCE)
        if how == "cancelled":
            asking.cancel()
        elif how == "connection lost":
            await connection.close()
        await asyncio.gather(asking, return_exceptions=True)
        assert await result_of(waiting.ended) == "cancelled"
        with pytest.raises(asyncio.CancelledError):  # what the other one is converted to
            await result_of(worker.done)
        assert isinstance(worker.done.exception(), concurrent.futures.CancelledError)

        assert await asyncio.to_thread(refused, calls[0])


async def _returned(value: Any) -> Any:
    return value


def refused(call: seqrpc.CurrentCall) -> bool:
    """Return whether a call runs nothing any more; a coroutine that it is given does not complain of it."""
    try:
        call.run(_returned(None))
    except concurrent.futures.CancelledError:
        return True
    return False


async def test_after_its_call_nothing_is_run() -> None:
    calls: list[seqrpc.CurrentCall] = []

    async def job() -> None:
        calls.append(seqrpc.current_call())

    async with on_a_pair(Worker(lambda: calls.append(seqrpc.current_call()))) as connection:
        await connection.call("Worker.work")
    async with on_a_pair(Worker(job)) as connection:
        await connection.call("Worker.work_on_the_loop")
        for call in calls:
            assert await asyncio.to_thread(refused, call)
    assert len(calls) == 2


async def test_an_awaitable_that_is_cancelled_by_others_is_told() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()

    def job() -> str:
        try:
            seqrpc.current_call().run(future)
        except concurrent.futures.CancelledError:
            return "cancelled"
        return "done"

    async with on_a_pair(Worker(job)) as connection:
        assert await connection.call("Worker.work") == "cancelled"


async def test_on_the_loop_it_would_wait_for_itself() -> None:
    async def job() -> str:
        try:
            seqrpc.current_call().run(_returned(None))
        except seqrpc.WrongLoop as exc:
            return str(exc)
        return "it waited"

    async with on_a_pair(Worker(job)) as connection:
        assert "would wait for itself: use await" in await connection.call("Worker.work_on_the_loop")


async def test_in_a_fork_it_raises_at_once() -> None:
    def job() -> str:
        call = seqrpc.current_call()

        def work() -> str:
            try:
                call.run(_returned(None))
            except seqrpc.WrongProcess:
                return "told"
            return "it ran"

        return in_child(work)

    async with on_a_pair(Worker(job)) as connection:
        assert await connection.call("Worker.work") == "told"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_loop_that_was_closed_keeps_no_thread(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """In a child: nothing of what such a loop leaves can be cleaned up."""

    def work() -> list[str]:
        waiting = Waiting()
        calls: list[seqrpc.CurrentCall] = []

        def job() -> None:
            calls.append(seqrpc.current_call())
            calls[0].run(waiting.wait())

        worker = Worker(job)
        loop = new_loop()
        pair = on_a_pair(worker)

        async def begin() -> asyncio.Future[Any]:
            connection = await pair.__aenter__()
            asking: Awaitable[Any] = connection.call("Worker.work")
            task = asyncio.ensure_future(asking)
            assert await asyncio.to_thread(waiting.began.wait, PATIENCE)
            return task

        kept = loop.run_until_complete(begin())
        loop.close()
        raised = [type(worker.done.exception(PATIENCE)).__module__]
        try:
            calls[0].run(_returned(None))
        except concurrent.futures.CancelledError as exc:
            raised.append(str(exc))
        assert not kept.done()
        return raised

    assert in_child(work) == ["concurrent.futures._base", "the event loop was closed"]
