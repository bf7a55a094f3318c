from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from types import FrameType
from typing import Any

import pytest
from support.commands import environment
from support.lines import interrupting

from seqrpc.errors import DeadlineExceeded, Execution
from seqrpc.interface.scope import EVERYWHERE, metadata, scope
from seqrpc.interface.timeouts import Timeout, timeout


def seconds_left() -> float:
    deadline = scope.get().deadline_ns
    assert deadline is not None
    return (deadline - time.monotonic_ns()) / 1e9


async def test_time_that_is_up_is_deadline_exceeded_and_a_timeout_error() -> None:
    with pytest.raises(DeadlineExceeded, match=r"the time given by seqrpc\.timeout is up") as caught:
        async with timeout(0.001):
            await asyncio.Event().wait()
    assert isinstance(caught.value, TimeoutError)
    assert not caught.value.remote


async def test_what_ends_in_time_is_left_alone() -> None:
    async with timeout(60):
        await asyncio.sleep(0)
        assert 50 < seconds_left() <= 60
    assert scope.get() is EVERYWHERE


async def test_the_earlier_of_nested_deadlines_holds() -> None:
    async with timeout(60):
        async with timeout(3600):
            assert 50 < seconds_left() <= 60
        async with timeout(5):
            assert seconds_left() <= 5
        assert seconds_left() > 50


async def test_an_outer_deadline_ends_an_inner_block() -> None:
    with pytest.raises(DeadlineExceeded):
        async with timeout(0.001), timeout(60):
            await asyncio.Event().wait()


@pytest.mark.parametrize("delay", [None, math.inf, 1e12])
async def test_no_bound_is_added_where_none_is_wanted(delay: float | None) -> None:
    async with timeout(delay):
        assert scope.get().deadline_ns is None
    async with timeout(60), timeout(delay):
        assert 50 < seconds_left() <= 60


@pytest.mark.parametrize("delay", [0, -1])
async def test_time_that_was_up_before_ends_the_block_at_its_first_wait(delay: float) -> None:
    ran: list[str] = []

    async def late() -> None:
        async with timeout(delay):
            ran.append("before")
            await asyncio.Event().wait()
            ran.append("after")

    with pytest.raises(DeadlineExceeded):
        await late()
    assert ran == ["before"]


async def test_time_that_was_up_before_ends_a_block_that_waits_for_one_turn_only() -> None:
    with pytest.raises(DeadlineExceeded):
        async with timeout(0):
            await asyncio.sleep(0)
    assert cancelling() == 0


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_one_that_is_entered_is_not_entered_again() -> None:
    shared = timeout(60)
    async with shared:
        with pytest.raises(RuntimeError, match=r"^seqrpc\.timeout\(60\) is entered already: make one for each block$"):
            async with shared:
                pass
        assert seconds_left() > 50
    async with shared:  # one after the other is as good as two
        assert seconds_left() > 50
    assert scope.get() is EVERYWHERE


async def test_a_block_that_another_task_leaves_cancels_nobody_later() -> None:
    async def bounded_items() -> AsyncGenerator[int, None]:
        async with timeout(0.02):
            yield 1

    items = bounded_items()
    assert await anext(items) == 1
    with pytest.raises(ValueError, match="different Context"):
        await asyncio.create_task(items.aclose())
    with pytest.raises(DeadlineExceeded):
        async with timeout(0.04):
            await asyncio.Event().wait()
    assert cancelling() == 0


async def test_no_number_is_no_time() -> None:
    with pytest.raises(ValueError, match="NaN"):
        async with timeout(math.nan):
            pass
    assert scope.get() is EVERYWHERE


async def test_a_timeout_error_of_the_block_s_own_passes() -> None:
    with pytest.raises(TimeoutError, match="mine") as caught:
        async with timeout(60):
            raise TimeoutError("mine")
    assert not isinstance(caught.value, DeadlineExceeded)


async def test_the_deadline_exceeded_of_a_call_passes_as_it_is() -> None:
    error = DeadlineExceeded("of a call")
    with pytest.raises(DeadlineExceeded) as caught:
        async with timeout(60):
            raise error
    assert caught.value is error


async def test_a_timeout_error_that_the_block_makes_of_its_end_is_deadline_exceeded() -> None:
    async def overrun() -> None:
        async with timeout(0.001):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise TimeoutError("mine") from None

    with pytest.raises(DeadlineExceeded, match=r"the time given by seqrpc\.timeout is up") as caught:
        await overrun()
    assert str(caught.value.__cause__) == "mine"


async def test_cancelling_the_task_is_no_timeout() -> None:
    async def wait() -> None:
        async with timeout(60):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_tasks_begun_inside_take_the_deadline_along() -> None:
    async def look() -> float:
        return seconds_left()

    async with timeout(60):
        assert 50 < await asyncio.ensure_future(look()) <= 60


async def test_metadata_and_deadlines_do_not_touch_one_another() -> None:
    with metadata(trace="1"):
        async with timeout(60):
            assert scope.get().outgoing_meta == {"trace": "1"}
    async with timeout(60):
        with metadata(trace="1"):
            assert seconds_left() > 50


# Without a loop


def test_blocking_calls_are_bounded_by_with() -> None:
    with timeout(60):
        assert 50 < seconds_left() <= 60
        with timeout(3600):
            assert 50 < seconds_left() <= 60
        with timeout(5):
            assert seconds_left() <= 5
    assert scope.get() is EVERYWHERE
    with timeout(None):
        assert scope.get().deadline_ns is None


def test_what_is_given_up_inside_because_time_is_up_says_so_and_whether_it_ran() -> None:
    inside = DeadlineExceeded("a call")
    inside.execution = Execution.RAN
    with pytest.raises(DeadlineExceeded, match=r"the time given by seqrpc\.timeout is up") as caught, timeout(0):
        raise inside
    assert caught.value.__cause__ is inside
    assert caught.value.execution is Execution.RAN


def test_that_a_call_was_not_sent_says_more() -> None:
    inside = DeadlineExceeded("a call")
    inside.execution = Execution.DID_NOT_RUN
    with pytest.raises(DeadlineExceeded) as caught, timeout(0):
        raise inside
    assert caught.value is inside


@pytest.mark.parametrize("delay", [60, None])
def test_what_is_given_up_inside_for_another_reason_passes(delay: float | None) -> None:
    inside = DeadlineExceeded("of a callee")
    with pytest.raises(DeadlineExceeded) as caught, timeout(delay):
        raise inside
    assert caught.value is inside
    with pytest.raises(ValueError, match="no"), timeout(delay):
        raise ValueError("no")


def test_a_signal_that_keeps_a_block_from_beginning_leaves_no_bound_behind() -> None:
    def is_set(frame: FrameType, event: str, what: Any) -> bool:
        return event == "c_return" and frame.f_code.co_name == "__enter__" and what.__name__ == "set"

    with metadata(trace="1"):
        outer = scope.get()
        with interrupting(is_set) as came, pytest.raises(KeyboardInterrupt), timeout(60):
            raise AssertionError("it has not begun")
        assert came
        assert scope.get() == outer


async def test_with_is_a_mistake_where_a_loop_runs() -> None:
    with pytest.raises(TypeError, match=r"seqrpc\.timeout\(3\) is entered by 'async with', not by 'with'"), timeout(3):
        pass
    with Timeout(3, with_loop=False):
        assert seconds_left() <= 3
    assert repr(Timeout(3, with_loop=False)) == "seqrpc.blocking.timeout(3)"


def test_no_loop_is_loaded_to_find_out_whether_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "asyncio")
    with timeout(3):
        assert seconds_left() <= 3
    assert "asyncio" not in sys.modules


ALONE = """
import asyncio, sys
import seqrpc
async def main():
    async with seqrpc.timeout(5):
        await asyncio.sleep(0)
    async with seqrpc.timeout(None):
        pass
asyncio.run(main())
assert "seqrpc.aio" not in sys.modules
"""


def test_it_needs_nothing_that_makes_calls() -> None:
    argv = [sys.executable, "-c", ALONE]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(), check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_time_too_short_to_be_counted_is_no_time() -> None:
    with pytest.raises(DeadlineExceeded):
        async with timeout(1e-10):
            await asyncio.sleep(0)


async def test_a_block_that_could_not_be_left_elsewhere_is_left_in_its_own_task() -> None:
    block = timeout(None)
    await block.__aenter__()
    assert scope.get() is not EVERYWHERE
    with pytest.raises(ValueError, match="different Context"):
        await asyncio.create_task(leave(block))
    await leave(block)
    assert scope.get() is EVERYWHERE


async def leave(block: Timeout) -> None:
    await block.__aexit__(None, None, None)


async def test_it_is_entered_in_a_task() -> None:
    async def enter() -> None:
        async with timeout(60):
            pass

    raised: list[BaseException] = []

    def drive() -> None:
        try:
            enter().send(None)
        except BaseException as exc:
            raised.append(exc)

    asyncio.get_running_loop().call_soon(drive)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [str(exc) for exc in raised] == ["seqrpc.timeout(60) is entered in a task"]


async def test_what_the_block_says_of_the_time_that_is_up_passes() -> None:
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise DeadlineExceeded("of the block's own") from None

    with pytest.raises(DeadlineExceeded, match="of the block's own"):
        async with timeout(0.001):
            await wait()
    assert cancelling() == 0
