from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import itertools
import random
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any

import pytest
import uvloop
from support.waiting import comes_true

import seqrpc
from seqrpc.interface.alarms import Alarms, PureAlarms, alarms_of
from seqrpc.twin import native

KINDS = [pytest.param(PureAlarms, id="pure")] + ([] if native is None else [pytest.param(native.Alarms, id="native")])


class Timer:
    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """A loop whose time goes on as it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []
        self.refuses = False
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Timer:
        assert context is not None
        if self.refuses:
            raise RuntimeError("this loop is closed")
        self.made += 1
        timer = Timer(when, lambda: context.run(callback, *args))
        self.timers.append(timer)
        return timer

    @property
    def waits(self) -> list[float]:
        return sorted(timer.when for timer in self.timers if not timer.cancelled)

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        while self.turn():
            pass

    def turn(self) -> bool:
        """Go round once; return whether anything was due."""
        due = [timer for timer in self.timers if timer.when <= self.now]
        for timer in due:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.call()
        return bool(due)


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    assert len(clock.waits) <= 1


@pytest.fixture(params=KINDS)
def alarms(request: pytest.FixtureRequest, clock: Clock) -> Alarms:
    made: Alarms = request.param(clock)
    assert made.loop is clock
    return made


def test_it_calls_at_its_time_once(alarms: Alarms, clock: Clock) -> None:
    rung: list[int] = []
    alarm = alarms.set(5, rung.append, 7)
    assert alarm.is_set
    clock.go_on(4)
    assert rung == []
    clock.go_on(1)
    assert rung == [7]
    assert not alarm.is_set
    assert not alarm.cancel()
    clock.go_on(1000)
    assert rung == [7]
    assert len(alarms) == 0


def test_one_that_is_cancelled_does_not_call_and_keeps_nothing(alarms: Alarms, clock: Clock) -> None:
    class Thing:
        """What an alarm refers to."""

    thing = Thing()
    gone = weakref.ref(thing)
    alarm = alarms.set(5, print, thing)
    del thing
    assert gone() is not None
    assert alarm.cancel()
    assert gone() is None
    assert not alarm.is_set
    assert not alarm.cancel()
    clock.go_on(10)
    assert len(alarms) == 0


def test_they_call_in_order_and_share_one_timer(alarms: Alarms, clock: Clock) -> None:
    rung: list[int] = []
    for seconds in (30, 10, 20, 10, 40):
        alarms.set(seconds, rung.append, seconds)
        assert len(clock.waits) == 1
    assert clock.waits == [100.1], "it looks soon whether it is still wanted"
    clock.go_on(0.2)
    assert clock.waits == [pytest.approx(100.3)]
    clock.go_on(0.2)
    assert clock.waits == [110]
    clock.go_on(15)
    assert rung == [10, 10]
    assert clock.waits == [120]
    clock.go_on(4)
    assert clock.made == 4
    clock.go_on(100)
    assert rung == [10, 10, 20, 30, 40]
    assert clock.waits == []


def test_those_of_one_time_call_in_the_order_in_which_they_were_set(alarms: Alarms, clock: Clock) -> None:
    rung: list[int] = []
    for number in range(50):
        alarms.set(5, rung.append, number)
    clock.go_on(5)
    assert rung == list(range(50))


def test_thousands_of_one_time_do_not_ring_in_one_turn(alarms: Alarms, clock: Clock) -> None:
    rung: list[int] = []
    for number in range(1000):
        alarms.set(5, rung.append, number)
    clock.now += 5
    turns = 0
    while len(rung) < 1000:
        before = len(rung)
        assert clock.turn(), "nobody would call the rest"
        assert len(rung) - before <= 16
        turns += 1
    assert rung == list(range(1000))
    assert turns <= 63
    assert clock.waits == []


def test_those_that_cost_nothing_do_not_keep_others_waiting(alarms: Alarms, clock: Clock) -> None:
    rung: list[int] = []

    def ring(number: int) -> object:
        rung.append(number)
        return number < 1000 or 1  # which is not True

    for number in range(1040):
        alarms.set(5, ring, number)
    clock.now += 5
    turns: list[int] = []
    while len(rung) < 1040:
        before = len(rung)
        assert clock.turn(), "nobody would call the rest"
        turns.append(len(rung) - before)
    assert rung == list(range(1040))
    assert turns == [256, 256, 256, 232 + 16, 16, 8]


def test_what_is_never_reached_costs_no_timer(alarms: Alarms, clock: Clock) -> None:
    for _ in range(1000):
        assert alarms.set(60, print, None).cancel()
        clock.go_on(0.001)
    assert clock.made <= 11
    clock.go_on(0.1)
    assert clock.waits == []


def test_those_that_were_cancelled_do_not_add_up(alarms: Alarms, clock: Clock) -> None:
    kept = [alarms.set(3600 + number, print, None) for number in range(100)]
    for _ in range(10_000):
        alarms.set(60, print, None).cancel()
        assert len(alarms) <= 2 * len(kept) + 65
    for alarm in kept:
        assert alarm.cancel()
    assert len(alarms) <= 65


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_set_and_cancelled_the_rest_calls_in_time(seed: int, alarms: Alarms, clock: Clock) -> None:
    chance = random.Random(seed)
    expected: dict[int, float] = {}
    live: dict[int, Any] = {}
    rung: list[tuple[int, float]] = []

    def ring(number: int) -> None:
        rung.append((number, clock.now))
        del live[number]

    for number in itertools.count():
        if number > 600:
            break
        seconds = chance.choice([0.0, -1.0, 0.5, 1.0, 3.0, 60.0, chance.random() * 100])
        expected[number] = clock.now + seconds
        live[number] = alarms.set(seconds, ring, number)
        for other in [other for other in live if chance.random() < 0.05 + 0.9 * (seed % 2)]:
            assert live.pop(other).cancel()
            del expected[other]
        if chance.random() < 0.3:
            clock.go_on(chance.choice([0.1, 1.0, 10.0]))
    clock.go_on(1000)
    assert live == {}
    assert [number for number, _when in rung] != []
    assert {number for number, _when in rung} == set(expected)
    for number, when in rung:
        assert when >= expected[number] - 0.001
    assert clock.waits == []


def test_one_may_be_set_or_cancelled_by_another_that_rings(alarms: Alarms, clock: Clock) -> None:
    rung: list[str] = []

    def first(_argument: object) -> None:
        rung.append("first")
        assert second.cancel()
        alarms.set(1, rung.append, "third")
        alarms.set(0, rung.append, "fourth")

    alarms.set(5, first, None)
    second = alarms.set(5, rung.append, "second")
    clock.go_on(5)
    assert rung == ["first", "fourth"], "what is due is called while it is at it"
    clock.go_on(1)
    assert rung == ["first", "fourth", "third"]


def test_if_one_raises_the_rest_still_call(alarms: Alarms, clock: Clock) -> None:
    rung: list[int] = []
    for number in range(3):
        alarms.set(5, [].pop if number == 1 else rung.append, number)
    with pytest.raises(IndexError):
        clock.go_on(5)
    clock.go_on(0)
    assert rung == [0, 2]


def test_none_is_set_where_the_loop_takes_no_timer(alarms: Alarms, clock: Clock) -> None:
    clock.refuses = True
    with pytest.raises(RuntimeError, match="this loop is closed"):
        alarms.set(5, print, None)
    assert len(alarms) == 0
    clock.refuses = False
    rung: list[int] = []
    alarms.set(5, rung.append, 1)
    clock.go_on(5)
    assert rung == [1]


def test_it_calls_in_a_context_that_is_nobodys(alarms: Alarms, clock: Clock) -> None:
    variable = contextvars.ContextVar("variable", default="nobody's")
    seen: list[str] = []
    context = contextvars.copy_context()
    context.run(variable.set, "somebody's")
    context.run(alarms.set, 5, lambda _argument: seen.append(variable.get()), None)
    clock.go_on(5)
    assert seen == ["nobody's"]


def test_wrong_arguments_are_refused(alarms: Alarms, clock: Clock) -> None:
    with pytest.raises(TypeError):
        alarms.set("soon", print, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        alarms.set(1, print)  # type: ignore[call-arg]
    assert len(alarms) == 0
    with pytest.raises(TypeError):
        type(alarms)()


def test_those_that_refer_to_one_another_are_collected(alarms: Alarms, clock: Clock) -> None:
    class Thing:
        """What refers to its alarm."""

        def ring(self, _argument: object) -> None:
            """Be called by nobody."""

    thing: Any = Thing()
    thing.alarm = alarms.set(5, thing.ring, thing)
    thing.alarms = alarms
    gone = weakref.ref(thing)
    clock.timers.clear()
    del thing, alarms
    gc.collect()
    left = gone()
    assert left is None or left.alarm.is_set, "the fixture may hold the alarms"


async def test_a_real_loop_calls_them() -> None:
    alarms = alarms_of(asyncio.get_running_loop())
    assert alarms is alarms_of(asyncio.get_running_loop())
    rung: list[int] = []
    alarms.set(0.02, rung.append, 2)
    alarms.set(0.0, rung.append, 0)
    alarms.set(0.01, rung.append, 1)
    gone = alarms.set(0.01, rung.append, 3)
    assert gone.cancel()
    assert rung == [], "not before the next turn"
    await comes_true(lambda: len(rung) == 3)
    assert rung == [0, 1, 2]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_each_loop_has_its_own_and_a_loop_that_is_gone_leaves_none(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    loops = [new_loop() for _ in range(2)]
    found = [alarms_of(loop) for loop in loops]
    assert found[0] is not found[1]
    assert [alarms_of(loop) for loop in loops] == found
    gone = [weakref.ref(loop) for loop in loops]
    for alarms, loop in zip(found, loops, strict=True):
        alarms.set(3600, print, None)
        loop.close()
    del alarms, loop
    loops.clear()
    found.clear()
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_alarms_that_go_are_asked_for_no_more() -> None:
    """Though a finalizer asks while they do."""
    kept: list[object] = []

    async def enter() -> None:
        block = seqrpc.timeout(60)
        kept.append(block)
        await block.__aenter__()

    async def main() -> None:
        held = alarms_of(asyncio.get_running_loop())
        async with seqrpc.timeout(0.001):
            await asyncio.sleep(0)
        await comes_true(functools.partial(is_empty, held))
        gone = weakref.ref(held, lambda _gone: drive(enter()))
        del held
        gc.collect()
        assert gone() is None
        assert len(kept) == 1
        assert len(alarms_of(asyncio.get_running_loop())) == 1

    with asyncio.Runner() as runner:
        runner.run(main())


def is_empty(alarms: Alarms) -> bool:
    return not len(alarms)


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(StopIteration):
        coroutine.send(None)
