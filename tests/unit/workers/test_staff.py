from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.descriptors import open_fds
from support.lifespans import Broken
from support.plans import planned
from support.waiting import PATIENCE, comes_true, turns_of_the_loop
from support.workers import Desk, Refuses, Slow, is_alive

import seqrpc
from seqrpc import Execution
from seqrpc.calls.plans import Plan
from seqrpc.workers.hall import Member
from seqrpc.workers.staff import Staff

NOWHERE: dict[str, Any] = {"origin": None, "command": ("/nowhere/program",)}


def staffed(plan: Plan, size: int = 1, **options: Any) -> Staff:
    usual = {"calls_per_worker": 1, "max_calls": None, "max_memory_bytes": None, "idle_timeout": None}
    return Staff(plan, size, **{**usual, **options})


@contextlib.asynccontextmanager
async def begun(size: int = 1, plan: Plan | None = None, **options: Any) -> AsyncIterator[Staff]:
    staff = staffed(planned(Desk) if plan is None else plan, size, **options)
    async with asyncio.timeout(PATIENCE):
        await staff.begin()
    try:
        async with asyncio.timeout(PATIENCE):
            yield staff
    finally:
        async with asyncio.timeout(PATIENCE):
            await staff.close()


async def call(staff: Staff, method: str = "Desk.add", *args: Any) -> Any:
    """Make a call as a pool does."""
    member = await staff.hall.take()
    try:
        return await member.callee.request(method, args or (1,))
    finally:
        staff.hall.give_back(member)


async def during(staff: Staff) -> Member:
    """Return a worker that has a call."""
    return await staff.hall.take()


def pids(staff: Staff) -> list[int]:
    return [each.process.pid for each in staff.runnings]


def kill(staff: Staff) -> None:
    for pid in pids(staff):
        os.kill(pid, signal.SIGKILL)


async def replaced(staff: Staff, before: list[int], number: int = 1) -> None:
    await comes_true(lambda: len(pids(staff)) == number and not {*pids(staff)} & {*before})


async def test_as_many_as_are_wanted_begin_and_all_end() -> None:
    async with begun(2) as staff:
        assert repr(staff) == "<WorkerPool Desk: 2 of 2 workers>"
        assert await call(staff) == 1
        assert staff.is_unclosed
        alive = pids(staff)
    assert not staff.is_unclosed
    assert not any(map(is_alive, alive))
    assert pids(staff) == []


async def test_one_that_does_not_begin_ends_the_others() -> None:
    before = open_fds()
    staff = staffed(planned(Refuses, "no"), 3)
    with pytest.raises(seqrpc.WorkerCrashed, match="did not begin: ValueError: no"):
        await staff.begin()
    assert staff.is_closing
    await turns_of_the_loop()
    assert set(open_fds()) <= set(before)


async def test_a_beginning_that_is_cancelled_leaves_nobody() -> None:
    before = open_fds()
    staff = staffed(planned(Slow, 60), 2)
    beginning = asyncio.ensure_future(staff.begin())
    await turns_of_the_loop()
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    await turns_of_the_loop()
    assert set(open_fds()) <= set(before)


async def test_those_that_begin_as_it_is_closed_end_again() -> None:
    staff = staffed(planned(Desk), 2)
    beginning = asyncio.ensure_future(staff.begin())
    await turns_of_the_loop()
    await staff.close()
    await beginning
    assert pids(staff) == []


async def test_one_that_dies_is_replaced() -> None:
    async with begun(2) as staff:
        await call(staff)
        before = pids(staff)
        os.kill(before[0], signal.SIGKILL)
        await comes_true(lambda: len(pids(staff)) == 2 and before[0] not in pids(staff))
        assert before[1] in pids(staff)
        assert staff._delay == 0


async def test_those_that_die_before_they_have_answered_anything_are_replaced_ever_more_slowly() -> None:
    async with begun() as staff:
        for delay in (0.1, 0.2):
            before = pids(staff)
            kill(staff)
            await comes_true(lambda: staff._timer is not None)
            staff.fill()
            assert staff._delay == delay
            assert not staff._starting
            await replaced(staff, before)
        await call(staff)
        before = pids(staff)
        kill(staff)
        await replaced(staff, before)
        assert staff._delay == 0


async def test_calls_that_wait_are_told_why_nobody_begins(caplog: pytest.LogCaptureFixture) -> None:
    async with begun() as staff:
        plan, staff._plan = staff._plan, staff._plan._replace(**NOWHERE)
        before = pids(staff)
        kill(staff)
        await comes_true(lambda: not staff.runnings)
        with pytest.raises(seqrpc.WorkerCrashed, match="exited with status 126") as caught:
            await call(staff)
        assert caught.value.execution is Execution.DID_NOT_RUN
        assert "a worker does not begin" in caplog.text
        staff._plan = plan
        assert await call(staff) == 1, "the next one begins"
        assert not {*before} & {*pids(staff)}


async def test_what_the_system_says_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with begun() as staff:
        monkeypatch.setattr("sys.executable", "")
        kill(staff)
        await comes_true(lambda: not staff.runnings)
        with pytest.raises(seqrpc.WorkerCrashed, match="does not know its own Python"):
            await call(staff)


async def test_one_that_does_not_begin_is_no_matter_to_calls_while_there_are_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with begun(2) as staff:
        await call(staff)
        staff._plan = staff._plan._replace(**NOWHERE)
        os.kill(pids(staff)[0], signal.SIGKILL)
        await comes_true(lambda: "a worker does not begin" in caplog.text)
        assert len(pids(staff)) == 1
        assert await call(staff) == 1


async def test_a_worker_with_enough_calls_leaves_once_its_successor_has_begun() -> None:
    async with begun(max_calls=2, calls_per_worker=3) as staff:
        before = pids(staff)
        members = [await during(staff) for _ in range(3)]
        for member in members[:2]:
            staff.hall.give_back(member)
        assert len(staff._replaced) == 1
        await comes_true(lambda: len(pids(staff)) == 2)
        assert is_alive(before[0]), "it has a call yet"
        await comes_true(lambda: members[0].is_leaving)
        new = await during(staff)
        assert new is not members[0]
        staff.hall.give_back(new)
        staff.hall.give_back(members[2])
        await replaced(staff, before)


async def test_one_whose_successor_does_not_begin_stays() -> None:
    async with begun(max_calls=2) as staff:
        before = pids(staff)
        plan, staff._plan = staff._plan, staff._plan._replace(**NOWHERE)
        for _ in range(2):
            await call(staff)
        await comes_true(lambda: not staff._replaced and not staff._starting)
        assert pids(staff) == before
        staff._plan = plan
        while pids(staff) == before and not staff._starting:  # it is not tried again at once
            await call(staff)
        await replaced(staff, before)


async def test_one_that_has_grown_is_replaced() -> None:
    async with begun(max_memory_bytes=150_000_000) as staff:
        await call(staff)
        assert not staff._replaced
        before = pids(staff)
        await call(staff, "Desk.memory", 200_000_000)
        await replaced(staff, before)


async def test_those_with_nothing_to_do_end_and_come_again_when_they_are_wanted() -> None:
    async with begun(2, idle_timeout=0.1) as staff:
        member = await during(staff)
        await comes_true(lambda: len(pids(staff)) == 1)
        assert pids(staff) == [member.callee.running.process.pid]
        staff.hall.give_back(member)
        await comes_true(lambda: not pids(staff))
        await comes_true(lambda: staff._idle_timer is None)
        assert [*await asyncio.gather(call(staff), call(staff))] == [1, 1]
        await comes_true(lambda: not pids(staff))


async def test_it_grows_and_shrinks() -> None:
    async with begun() as staff:
        await staff.scale(3)
        assert len(pids(staff)) == staff.size == 3
        busy = await during(staff)
        await staff.scale(1)
        assert pids(staff) == [busy.callee.running.process.pid], "those with nothing to do go first"
        staff.hall.give_back(busy)
        await staff.scale(1)
        assert len(pids(staff)) == 1


async def test_all_go_also_if_the_lifespans_of_what_is_served_to_them_fail() -> None:
    staff = staffed(planned(Desk, serve=Broken()), 3)
    async with asyncio.timeout(PATIENCE):
        await staff.begin()
        alive = pids(staff)
        await staff.scale(2)
        assert len(pids(staff)) == 2
        with pytest.raises(OSError, match="the disk is full"):
            await staff.close()
    assert pids(staff) == []
    assert not any(map(is_alive, alive))


async def test_one_that_is_made_smaller_while_it_grows_is_small_in_the_end() -> None:
    async with begun() as staff:
        growing = asyncio.ensure_future(staff.scale(3))
        await turns_of_the_loop()
        await staff.scale(1)
        await growing
        assert len(pids(staff)) == 1


async def test_one_that_was_made_smaller_lets_those_go_that_have_finished() -> None:
    async with begun(2) as staff:
        await call(staff)
        staff.size = 1
        await call(staff)
        await comes_true(lambda: len(pids(staff)) == 1)


async def test_once_it_is_closed_nobody_begins() -> None:
    async with begun(idle_timeout=5) as staff:
        staff._plan = planned(Slow, 60)
        growing = asyncio.ensure_future(staff.scale(2))
        member = await during(staff)
        await turns_of_the_loop()
        await staff.close()
        staff.hall.give_back(member)
        await growing
        await staff.scale(4)
        staff.fill()
        with pytest.raises(seqrpc.ConnectionLost, match="the pool was closed on this side"):
            await call(staff)
        assert not staff._starting
        assert pids(staff) == []


async def test_one_that_waits_before_it_starts_others_is_closed() -> None:
    async with begun() as staff:
        kill(staff)
        await comes_true(lambda: staff._timer is not None)
    assert staff._timer is not None
    assert staff._timer.cancelled()


async def test_all_end_without_waiting_when_it_is_abandoned() -> None:
    async with begun(2) as staff:
        alive = pids(staff)
        staff._plan = planned(Slow, 60)
        growing = asyncio.ensure_future(staff.scale(3))
        await turns_of_the_loop()
        staff.abandon()
        assert not staff.is_unclosed
        await growing
        await comes_true(lambda: not any(map(is_alive, alive)))
        await comes_true(lambda: not pids(staff))


async def test_a_worker_that_ends_while_it_leaves_is_gone() -> None:
    async with begun(2) as staff:
        member = await during(staff)
        other = await during(staff)
        leaving = asyncio.ensure_future(staff.scale(1))
        await turns_of_the_loop()
        (going,) = (each for each in staff.hall.members if each.is_leaving)
        os.kill(going.callee.running.process.pid, signal.SIGKILL)
        await comes_true(lambda: len(pids(staff)) == 1)
        for each in (member, other):
            staff.hall.give_back(each)
        await leaving
        assert len(pids(staff)) == 1
        assert staff._delay == 0
