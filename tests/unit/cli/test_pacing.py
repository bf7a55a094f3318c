"""When calls are due, and waiting for that."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import PATIENCE

from seqrpc.cli.pacing import Alarm, KernelAlarm, LoopAlarm, Pacer, Schedule, alarm_of

MS = 1_000_000


def taken(schedule: Schedule) -> list[int]:
    dues = []
    while (due := schedule.take()) is not None:
        dues.append(due)
    return dues


def test_calls_are_due_evenly() -> None:
    assert taken(Schedule(5, 1_000, count=3, seconds=None)) == [5, 5 + MS, 5 + 2 * MS]
    assert taken(Schedule(0, 3, count=None, seconds=1)) == [0, 333_333_333, 666_666_667]
    assert Schedule(0, 0.5, count=None, seconds=1).count == 1


@given(st.floats(0.01, 1e6), st.floats(0.001, 100), st.one_of(st.none(), st.integers(1, 1_000)), st.integers(0, 10**15))
def test_there_are_no_more_than_was_said(rate: float, seconds: float, count: int | None, begin: int) -> None:
    schedule = Schedule(begin, rate, count=count, seconds=seconds)
    assert count is None or schedule.count <= count
    assert schedule.count <= seconds * rate + 1
    assert schedule.due(schedule.count - 1) <= begin + seconds * 1e9 + 1_000
    assert [schedule.take() for _ in range(3)][: schedule.count] == [schedule.due(at) for at in range(3)][
        : schedule.count
    ]


def test_those_are_overdue_that_were_due_and_were_not_taken() -> None:
    schedule = Schedule(0, 1_000, count=10, seconds=None)
    assert [*schedule.overdue(-1)] == []
    assert [*schedule.overdue(2 * MS)] == [0, 1, 2]
    schedule.take()
    assert [*schedule.overdue(2 * MS)] == [1, 2]
    assert [*schedule.overdue(2 * MS, first=2)] == [2]
    assert [*schedule.overdue(2 * MS, first=5)] == []
    assert [*schedule.overdue(10**12)] == [*range(1, 10)]
    assert len(taken(schedule)) == 9
    assert [*schedule.overdue(10**12)] == []


ALARMS = pytest.mark.parametrize("make_alarm", [KernelAlarm, LoopAlarm, alarm_of])


@ALARMS
async def test_nobody_is_woken_before_the_time(make_alarm: Callable[..., Alarm]) -> None:
    pacer = Pacer(make_alarm)
    begin = time.monotonic_ns()
    dues = [begin + at * MS // 2 for at in range(20)]

    async def wait(due: int) -> int:
        assert await pacer.wait(due)
        return time.monotonic_ns()

    woken = await asyncio.wait_for(asyncio.gather(*map(wait, dues)), PATIENCE)
    pacer.close()
    margin = 0 if make_alarm is not LoopAlarm else 2 * MS  # the loops' clocks are in milliseconds
    assert all(now + margin >= due for now, due in zip(woken, dues, strict=True))
    assert woken == sorted(woken)


@ALARMS
async def test_a_time_that_is_over_is_waited_for_in_vain_by_nobody(make_alarm: Callable[..., Alarm]) -> None:
    pacer = Pacer(make_alarm)
    await asyncio.wait_for(pacer.wait(0), PATIENCE)
    await asyncio.wait_for(pacer.wait(time.monotonic_ns() - 10**9), PATIENCE)
    pacer.close()


@ALARMS
async def test_who_waits_can_be_let_go(make_alarm: Callable[..., Alarm]) -> None:
    pacer = Pacer(make_alarm)
    waiting = [asyncio.ensure_future(pacer.wait(time.monotonic_ns() + 10**12)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    pacer.let_go()
    assert await asyncio.gather(*waiting[1:]) == [False, False]
    assert waiting[0].cancelled()
    soon = time.monotonic_ns() + 5 * MS
    given_up = asyncio.ensure_future(pacer.wait(soon))
    other = asyncio.ensure_future(pacer.wait(soon))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await asyncio.wait_for(other, PATIENCE)
    pacer.close()


async def test_an_alarm_that_was_set_anew_rings_once() -> None:
    rings: list[int] = []
    rang = asyncio.Event()

    def ring() -> None:
        rings.append(1)
        rang.set()

    alarm = KernelAlarm(asyncio.get_running_loop(), ring)
    alarm.set(0)
    alarm._read()
    rang.clear()
    alarm._read()  # nothing is there to be read any more
    assert (rings, rang.is_set()) == ([1], False)
    alarm.set(time.monotonic_ns() + MS)
    await asyncio.wait_for(rang.wait(), PATIENCE)
    assert rings == [1, 1]
    alarm.close()


class _NoTimers:
    def __init__(self, *_args: object, **_options: object) -> None: ...


class _Refusing:
    def __init__(self, *_args: object, **_options: object) -> None: ...

    def timerfd_create(self, *_args: Any) -> int:
        ctypes.set_errno(24)
        return -1


@pytest.mark.parametrize("libc", [_NoTimers, _Refusing])
async def test_where_the_kernel_has_no_timer_the_loop_has_one(
    monkeypatch: pytest.MonkeyPatch, libc: type[object]
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", libc)
    assert isinstance(alarm_of(asyncio.get_running_loop(), lambda: None), LoopAlarm)
