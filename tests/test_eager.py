"""Handlers start at once, as the task that goes on with them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import types
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import pytest

from seqrpc.services.eager import ENDED, Runner, Starter

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


@pytest.fixture
async def starter() -> AsyncIterator[Starter]:
    starter = Starter(asyncio.get_running_loop(), run)
    yield starter
    starter.close()


@types.coroutine
def run() -> Runner:
    """Run coroutines as whoever answers calls does, with nothing to answer."""
    while True:
        owner, coroutine = yield ENDED
        assert owner == "owner"
        yield from coroutine


def start(starter: Starter, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
    """Start a coroutine; for type checkers, it waits."""
    return cast("asyncio.Task[None]", starter.start(contextvars.copy_context(), "owner", coroutine))


def spare_of(starter: Starter) -> asyncio.Task[Any]:
    """Return the task that serves the next coroutine, as one sees it that ends at once."""
    seen: list[asyncio.Task[Any]] = []

    async def look() -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append(task)

    assert start(starter, look()) is None
    return seen[0]


async def from_a_callback(function: Callable[[], Any]) -> Any:
    """Call ``function`` as the loop calls a reader: with no task around it."""
    done = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            done.set_result(function())
        except BaseException as exc:
            done.set_exception(exc)

    asyncio.get_running_loop().call_soon(call)
    return await done


async def test_a_coroutine_that_does_not_wait_is_done_when_start_returns(starter: Starter) -> None:
    seen = []

    async def handler() -> None:
        seen.append(asyncio.current_task())

    before = asyncio.all_tasks()

    await from_a_callback(lambda: [start(starter, handler()) for _ in range(3)])

    assert len(seen) == 3
    assert None not in seen
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_one_that_waits_goes_on_in_the_task_that_it_saw_as_its_own(starter: Starter) -> None:
    gate = asyncio.Event()
    seen: list[asyncio.Task[Any] | None] = []

    async def handler() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())
        await gate.wait()
        seen.append(asyncio.current_task())

    first = await from_a_callback(lambda: start(starter, handler()))
    second = await from_a_callback(lambda: start(starter, handler()))

    assert first is not second
    assert {first, second} <= asyncio.all_tasks()
    gate.set()
    await asyncio.gather(first, second)
    assert set(seen) == {first, second}
    assert len(seen) == 6


async def test_a_spare_that_has_parked_serves_a_later_coroutine(starter: Starter) -> None:
    async def quick() -> None: ...

    async def slow(gate: asyncio.Event) -> None:
        await gate.wait()

    await from_a_callback(lambda: start(starter, quick()))
    await asyncio.sleep(0.0)
    await asyncio.sleep(0.0)
    gate = asyncio.Event()
    task = await from_a_callback(lambda: start(starter, slow(gate)))
    await asyncio.sleep(0)

    assert not task.done()
    gate.set()
    await task


async def test_each_coroutine_has_a_context_of_its_own_from_its_first_step_to_its_last(starter: Starter) -> None:
    seen = []

    async def handler(value: str, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        seen.append(variable.get())
        variable.set(value)
        await wait()
        seen.append(variable.get())

    async def no_wait() -> None: ...

    def start_both() -> asyncio.Task[None]:
        start(starter, handler("first", no_wait))
        return start(starter, handler("second", lambda: asyncio.sleep(0)))

    await (await from_a_callback(start_both))

    assert seen == ["outside", "first", "outside", "second"]
    assert variable.get() == "outside"


async def test_timeouts_entered_in_the_first_step_work(starter: Starter) -> None:
    outcome: list[str] = []

    async def handler() -> None:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            outcome.append("time is up")

    await (await from_a_callback(lambda: start(starter, handler())))

    assert outcome == ["time is up"]


async def test_cancelled_in_the_turn_it_began_it_hears_of_it_where_it_waits(starter: Starter) -> None:
    outcome: list[str] = []

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.append("cancelled")
            await asyncio.sleep(0)
            outcome.append("cleaned up")

    def start_and_cancel() -> asyncio.Task[None]:
        task = start(starter, handler())
        task.cancel()
        return task

    await (await from_a_callback(start_and_cancel))

    assert outcome == ["cancelled", "cleaned up"]


async def test_cancelled_later_it_hears_of_it_where_it_waits(starter: Starter) -> None:
    async def handler() -> None:
        await asyncio.Event().wait()

    task = await from_a_callback(lambda: start(starter, handler()))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_one_that_cancels_itself_and_ends_harms_nobody_after_it(starter: Starter) -> None:
    async def reckless() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def patient() -> None:
        await asyncio.sleep(0)

    def start_both() -> asyncio.Task[None]:
        start(starter, reckless())
        return start(starter, patient())

    task = await from_a_callback(start_both)
    await task

    assert not task.cancelled()


async def test_started_inside_a_task_it_leaves_that_task_as_it_was(starter: Starter) -> None:
    inside: list[asyncio.Task[Any] | None] = []

    async def handler() -> None:
        inside.append(asyncio.current_task())
        await asyncio.sleep(0)

    outer = asyncio.current_task()
    task = start(starter, handler())

    assert asyncio.current_task() is outer
    assert inside == [task]
    await task


async def test_an_exception_of_the_first_step_is_not_lost(starter: Starter) -> None:
    """Handlers catch everything themselves; what gets through stops the program, as in any task."""

    async def handler() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await from_a_callback(lambda: start(starter, handler()))


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
async def test_after_an_exception_of_a_first_step_the_next_coroutine_starts_as_any(
    starter: Starter, exception: type[BaseException]
) -> None:
    outcome: list[str] = []

    async def fatal() -> None:
        raise exception

    async def slow() -> None:
        outcome.append("began")
        await asyncio.sleep(0)
        outcome.append("ended")

    def start_all() -> asyncio.Task[None]:
        assert start(starter, quick()) is None
        with pytest.raises(exception):
            start(starter, fatal())
        assert asyncio.current_task() is None
        assert start(starter, quick()) is None
        return start(starter, slow())

    before = asyncio.all_tasks()
    task = await from_a_callback(start_all)
    assert asyncio.all_tasks() - before == {task}
    await task
    assert outcome == ["began", "ended"]


async def test_only_one_that_waits_is_among_all_tasks(starter: Starter) -> None:
    seen: list[bool] = []

    async def handler(*, waits: bool) -> None:
        seen.append(asyncio.current_task() in asyncio.all_tasks())
        if waits:
            await asyncio.sleep(0)
            seen.append(asyncio.current_task() in asyncio.all_tasks())

    def start_both() -> asyncio.Task[None]:
        start(starter, handler(waits=False))
        return start(starter, handler(waits=True))

    await (await from_a_callback(start_both))
    assert seen == [False, False, True]


async def test_nothing_keeps_what_a_coroutine_had_after_its_end(starter: Starter) -> None:
    class Weighty:
        task: asyncio.Task[None] | None = None  # what a call knows of itself

    kept: list[weakref.ref[Weighty]] = []

    async def handler(what: Weighty, *, waits: bool) -> Weighty:
        variable.set(what)  # type: ignore[arg-type]
        if waits:
            await asyncio.sleep(0)
        return what

    def start_one(*, waits: bool) -> asyncio.Task[None]:
        what = Weighty()
        kept.append(weakref.ref(what))
        what.task = start(starter, handler(what, waits=waits))
        return what.task

    gc.disable()
    try:
        await from_a_callback(lambda: start_one(waits=False))
        task = await from_a_callback(lambda: start_one(waits=True))
        await task
        del task
        await asyncio.sleep(0)
        assert [ref() for ref in kept] == [None, None]
    finally:
        gc.enable()


async def test_what_a_task_abandons_is_closed(starter: Starter) -> None:
    outcome: list[str] = []

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            outcome.append("closed")

    task = await from_a_callback(lambda: start(starter, handler()))
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()

    assert outcome == ["closed"]
    task.cancel()
    with pytest.raises((asyncio.CancelledError, RuntimeError)):
        await task


async def test_a_closed_starter_has_no_task_left_and_may_start_again(starter: Starter) -> None:
    ran = []

    async def quick() -> None:
        ran.append(asyncio.current_task())

    await from_a_callback(lambda: start(starter, quick()))
    starter.close()
    starter.close()
    await asyncio.sleep(0)
    await from_a_callback(lambda: start(starter, quick()))

    assert len(ran) == 2


async def quick() -> None: ...


@pytest.mark.parametrize("warm", [False, True])
async def test_cancelled_in_the_turn_it_began_so_is_what_it_waits_for(starter: Starter, warm: bool) -> None:
    outcome: list[str] = []
    children: list[asyncio.Task[None]] = []

    async def child() -> None:
        await asyncio.sleep(0.01)
        outcome.append("the child ran on")

    async def handler() -> None:
        children.extend(asyncio.create_task(child()) for _ in range(2))
        try:
            await asyncio.gather(*children)
        except asyncio.CancelledError as exc:
            outcome.extend(exc.args)
            await asyncio.sleep(0)
            outcome.append("cleaned up")
            raise

    def start_and_cancel() -> asyncio.Task[None]:
        task = start(starter, handler())
        task.cancel("stop it")
        return task

    if warm:
        await from_a_callback(lambda: start(starter, quick()))
        await asyncio.sleep(0.001)
    task = await from_a_callback(start_and_cancel)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert all(one.cancelled() for one in children)
    await asyncio.sleep(0.02)
    assert outcome[-1:] == ["cleaned up"]
    assert "the child ran on" not in outcome


async def test_cancelled_in_the_turn_it_began_after_what_it_waits_for_is_done(starter: Starter) -> None:
    outcome: list[str] = []
    future = asyncio.get_running_loop().create_future()

    async def handler() -> None:
        try:
            await future
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    def start_and_cancel() -> asyncio.Task[None]:
        task = start(starter, handler())
        future.set_result(None)
        task.cancel()
        return task

    task = await from_a_callback(start_and_cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcome == ["cancelled"]


@pytest.mark.parametrize("warm", [False, True])
async def test_one_that_cancels_itself_before_it_waits_hears_of_it_where_it_waits(starter: Starter, warm: bool) -> None:
    outcome: list[str] = []

    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        outcome.append("waits")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    if warm:
        await from_a_callback(lambda: start(starter, quick()))
        await asyncio.sleep(0.001)
    task = await from_a_callback(lambda: start(starter, handler()))
    with pytest.raises(asyncio.CancelledError):
        await task

    assert outcome == ["waits", "cancelled"]


async def test_a_task_shows_where_its_coroutine_waits(starter: Starter) -> None:
    gate = asyncio.Event()

    async def patient_handler() -> None:
        await gate.wait()

    task = await from_a_callback(lambda: start(starter, patient_handler()))
    for _ in range(2):
        stack = io.StringIO()
        task.print_stack(file=stack)
        assert "await gate.wait()" in stack.getvalue()
        assert "patient_handler() running at" in repr(task)
        coroutine: Any = task.get_coro()
        assert coroutine.__name__ == "patient_handler"
        assert coroutine.cr_await is not None
        assert not coroutine.cr_running
        assert not hasattr(coroutine, "gi_frame")
        await asyncio.sleep(0)
    gate.set()
    await task
    assert "patient_handler() done" in repr(task)


async def test_a_spare_task_can_be_looked_at(starter: Starter) -> None:
    task = await from_a_callback(lambda: spare_of(starter))
    stack = io.StringIO()
    task.print_stack(file=stack)
    assert "No stack" in stack.getvalue()
    assert "coro=<spare()>" in repr(task)


async def test_a_spare_that_never_ran_anything_can_be_closed_and_not_awaited(starter: Starter) -> None:
    task = await from_a_callback(lambda: spare_of(starter))
    spare: Any = task.get_coro()
    spare.close()

    with pytest.raises(NotImplementedError):
        spare.__await__()
