"""Handlers begin in tasks of their own."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import functools
import sys
import time
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from support.waiting import comes_true, turns_of_the_loop

from seqrpc.aio import shares
from seqrpc.aio.shares import TURN_SECONDS, Share, share_of
from seqrpc.aio.starting import Pace, Starter, pace_of

IS_EAGER = sys.version_info >= (3, 12)  # asyncio can begin tasks at once

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


class Owner:
    """Whatever a coroutine is started for."""

    def __init__(self) -> None:
        self.is_paced = False
        self.has_begun = False
        self.task: asyncio.Task[Any] | None = None
        self.heard = 0

    def __call__(self, task: asyncio.Task[Any], /) -> None:
        assert task is self.task
        self.heard += 1


class Starting:
    """Starts coroutines as whoever answers calls does."""

    def __init__(self, uid: int = 2_001) -> None:
        self.pace = pace_of(asyncio.get_running_loop(), uid)
        self.starter = Starter(asyncio.get_running_loop(), uid)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        owner = Owner()
        return self.starter.start(contextvars.copy_context(), owner, self._run(owner, coroutine))

    async def _run(self, owner: Owner, coroutine: Coroutine[Any, Any, None]) -> None:
        owner.has_begun = True
        if owner.is_paced:
            if owner.task is not None:
                owner.task.remove_done_callback(owner)
            self.pace.started -= 1
            if (self.pace.started or self.pace.waiting or self.pace.turn_ends) and self.pace.must_wait():
                await self.starter.wait()
        await coroutine


@pytest.fixture(autouse=True)
async def somebody_else() -> tuple[Share, Share]:
    """Let a user be there besides the one whose handlers begin, and who has short turns therefore."""
    loop = asyncio.get_running_loop()
    return share_of(2_001, loop), share_of(2_002, loop)


@pytest.fixture
async def starts() -> Starting:
    return Starting()


@contextlib.contextmanager
def tasks_made_by(factory: Any) -> Iterator[None]:
    """Have a factory make the tasks of the running loop."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(None)


def plain_factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **kwargs)


async def take_a_turn(began: list[str], name: str) -> None:
    """Hold the loop for longer than a turn, on purpose."""
    began.append(name)
    time.sleep(1.5 * TURN_SECONDS)  # noqa: ASYNC251


def nobody_waits(pace: Pace) -> bool:
    return (pace.started, pace.waiting, len(pace._lines), len(pace._late)) == (0, 0, 0, 0)


async def test_a_coroutine_begins_at_once_and_whoever_starts_it_goes_on_behind_it(starts: Starting) -> None:
    done: list[object] = []
    loop = asyncio.get_running_loop()

    async def run(waits: bool) -> None:
        done.append(asyncio.current_task())
        if waits:
            await asyncio.sleep(0)
            done.append(asyncio.current_task())

    here = asyncio.current_task()
    quick = starts.start(run(False))
    assert (done, quick.done()) == ([quick], True)
    slow = starts.start(run(True))
    assert (done, slow.done()) == ([quick, slow], False)
    assert asyncio.current_task() is here
    assert slow in asyncio.all_tasks()
    await asyncio.wait([quick, slow])
    assert done == [quick, slow, slow]
    for task in (quick, slow):
        assert (type(task), task.get_loop(), task.result()) == (asyncio.Task, loop, None)


async def test_one_that_is_started_outside_of_tasks_begins_at_once(starts: Starting) -> None:
    seen: list[object] = []

    async def run() -> None:
        seen.append(asyncio.current_task())

    def start() -> None:
        seen.append(starts.start(run()))
        seen.append(asyncio.current_task())

    asyncio.get_running_loop().call_soon(start)
    await comes_true(lambda: len(seen) == 3)
    assert seen == [seen[1], seen[1], None]


@pytest.mark.parametrize("inside", [True, False])
async def test_what_ends_the_program_goes_on_to_whoever_started_it(starts: Starting, inside: bool) -> None:
    async def run() -> None:
        raise Leaving

    loop, here = asyncio.get_running_loop(), asyncio.current_task()
    loop.set_exception_handler(lambda _loop, _context: None)  # it is not told of otherwise, and a task has it
    caught: list[BaseException] = []

    def start() -> None:
        try:
            starts.start(run())
        except Leaving as exc:
            caught.append(exc)

    start() if inside else loop.call_soon(start)
    await comes_true(lambda: len(caught) == 1)
    assert asyncio.current_task() is here


class Leaving(SystemExit):
    """Is raised by asyncio's tasks, and not kept."""


@pytest.mark.skipif(IS_EAGER, reason="whatever stands there is asked to begin at once")
async def test_what_stands_in_the_place_of_asyncio_s_tasks_begins_in_the_next_turn(
    starts: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Timed(asyncio.Task[Any]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.made = self.get_loop().time()

    monkeypatch.setattr(asyncio, "Task", Timed)
    done: list[object] = []

    async def run() -> None:
        done.append(asyncio.current_task())

    task = starts.start(run())
    assert (type(task), done) == (Timed, [])
    await task
    assert done == [task]


async def test_a_task_tells_where_it_was_made_where_the_loop_debugs(starts: Starting) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    task = starts.start(asyncio.sleep(0))
    assert "created at" in repr(task)
    await task


async def test_each_has_a_task_and_a_context_of_its_own(starts: Starting) -> None:
    seen: list[Any] = []

    async def run(name: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append((task, variable.get(), getattr(task, "user", None), task.cancelling()))
        variable.set(name)
        task.set_name(name)
        task.cancel()
        task.uncancel()

    tasks = [starts.start(run(name)) for name in ("ann", "bob")]
    await asyncio.wait(tasks)
    assert [task for task, *_rest in seen] == tasks
    assert [rest for _task, *rest in seen] == [["outside", None, 0]] * 2
    assert variable.get() == "outside"


@pytest.mark.skipif(not IS_EAGER, reason="Task.get_context is new in Python 3.12")
async def test_the_task_s_context_is_the_coroutine_s(starts: Starting) -> None:
    same: list[bool] = []

    async def run() -> None:
        variable.set("mine")
        task = asyncio.current_task()
        assert task is not None
        same.append(task.get_context()[variable] == "mine")  # type: ignore[attr-defined,unused-ignore]
        await asyncio.sleep(0)
        same.append(task.get_context()[variable] == "mine")  # type: ignore[attr-defined,unused-ignore]

    await starts.start(run())
    assert same == [True, True]


@pytest.mark.parametrize("factory", [plain_factory, getattr(asyncio, "eager_task_factory", plain_factory)])
async def test_the_loop_s_task_factory_makes_the_tasks(starts: Starting, factory: Any) -> None:
    made: list[Any] = []
    ran: list[str] = []

    def counting(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        made.append(factory(loop, coro))  # what uvloop adds, not every factory of asyncio takes
        task: asyncio.Task[Any] = made[-1]
        return task

    async def run(name: str) -> None:
        variable.set(name)
        await asyncio.sleep(0)
        ran.append(variable.get())

    with tasks_made_by(counting):
        tasks = [starts.start(run(name)) for name in "ab"]
    await asyncio.wait(tasks)
    assert tasks == made
    assert ran == ["a", "b"]
    assert variable.get() == "outside"


async def test_what_a_task_factory_raises_leaves_nothing_behind(starts: Starting) -> None:
    def failing(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        coro.close()
        raise MemoryError

    async def run() -> None: ...

    coroutine = run()
    with tasks_made_by(failing):
        with pytest.raises(MemoryError):
            starts.start(coroutine)
        coroutine.close()
    assert nobody_waits(starts.pace)
    await starts.start(run())


async def begun_in_turns(starts: Starting, number: int, takes: float) -> list[int]:
    """Return how many coroutines that take so long begin in each turn of the loop."""
    turns: list[int] = []
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def turn() -> None:
        if not ended.done():
            turns.append(0)
            loop.call_soon(turn)

    async def run() -> None:
        until = time.perf_counter() + takes
        while time.perf_counter() < until:
            pass
        turns[-1] += 1

    with tasks_made_by(plain_factory):
        tasks = [starts.start(run()) for _ in range(number)]
    turn()
    await asyncio.wait(tasks)
    ended.set_result(None)
    return [begun for begun in turns if begun]


async def test_many_that_take_long_do_not_begin_in_one_turn(starts: Starting) -> None:
    assert await begun_in_turns(starts, 5, 1.5 * TURN_SECONDS) == [1] * 5


async def test_many_that_are_quick_do(starts: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "TURN_SECONDS", 60.0)
    assert await begun_in_turns(starts, 50, 0.0) == [50]
    assert await begun_in_turns(starts, 1, 0.0) == [1]


async def test_many_of_one_are_not_told_to_end_in_one_turn() -> None:
    loop = asyncio.get_running_loop()
    pace, told = pace_of(loop, 2_003), collections.Counter[int]()
    order: list[int] = []
    turn = 0

    def stop(number: int) -> None:
        told[turn] += 1
        order.append(number)

    for number in range(50):
        pace.end(functools.partial(stop, number))
    assert told == {0: 16}
    while len(order) < 50:
        turn += 1
        await asyncio.sleep(0)
        pace_of(loop, 2_004).end(lambda: None)  # others have theirs
    assert order == list(range(50))
    assert max(told.values()) <= 16
    await turns_of_the_loop()
    pace.end(functools.partial(stop, 50))
    assert len(order) == 51


async def test_where_very_many_are_to_end_more_do_in_a_turn() -> None:
    pace, ended = pace_of(asyncio.get_running_loop(), 2_003), list[int]()
    waits = [pace.end(functools.partial(ended.append, number)) for number in range(12_816)]
    assert waits == [False] * 16 + [True] * 12_800
    most = turns = 0
    while len(ended) < 12_816:
        before = len(ended)
        await asyncio.sleep(0)
        most, turns = max(most, len(ended) - before), turns + 1
    assert ended == list(range(12_816))
    assert most == 100, "of 128 times as many"
    assert turns < 450


async def test_one_that_cannot_be_told_to_end_keeps_none_of_the_others() -> None:
    pace, ended = pace_of(asyncio.get_running_loop(), 2_003), list[int]()

    def fail() -> None:
        raise ValueError("it does not end")

    loop, told = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _loop, context: told.append(repr(context["exception"])))
    try:
        for number in range(50):
            pace.end(fail if number % 10 == 0 else functools.partial(ended.append, number))
        await comes_true(lambda: len(ended) == 45)
    finally:
        loop.set_exception_handler(None)
    assert told == ["ValueError('it does not end')"] * 5
    assert ended == [number for number in range(50) if number % 10]


async def test_where_the_loop_is_closed_they_are_told_at_once() -> None:
    loop = asyncio.new_event_loop()
    pace, ended = pace_of(loop, 2_003), list[int]()
    loop.close()
    for number in range(50):
        pace.end(functools.partial(ended.append, number))
    assert ended == list(range(50))


async def test_where_there_is_nobody_else_a_turn_is_long() -> None:
    starts = Starting(2_003)
    shares._by_loop[id(asyncio.get_running_loop())].clear()
    assert max(await begun_in_turns(starts, 5, 1.5 * TURN_SECONDS)) > 1


async def test_they_begin_in_order_and_those_in_line_are_told_some_at_a_time(starts: Starting) -> None:
    began: list[int] = []

    async def run(number: int) -> None:
        began.append(number)
        if number % 50 == 0:
            time.sleep(1.5 * TURN_SECONDS)  # noqa: ASYNC251 - it holds the loop on purpose

    with tasks_made_by(plain_factory):
        tasks = [starts.start(run(number)) for number in range(300)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 1 <= len(began) < 300
        tasks += [starts.start(run(number)) for number in range(300, 400)]
        await asyncio.wait(tasks)
    assert began == list(range(400))
    assert nobody_waits(starts.pace)


async def test_connections_of_a_user_take_turns() -> None:
    began: list[str] = []
    greedy, modest = Starting(), Starting()
    with tasks_made_by(plain_factory):
        tasks = [greedy.start(take_a_turn(began, "greedy")) for _ in range(10)]
        tasks += [modest.start(take_a_turn(began, "modest")) for _ in range(3)]
        await asyncio.wait(tasks)
    assert len(began) == 13
    assert began[:8].count("modest") == 3


async def test_who_waits_in_line_begins_although_others_come_in_each_turn() -> None:
    began: list[str] = []
    waits, fresh = Starting(), Starting()
    with tasks_made_by(plain_factory):
        tasks = [waits.start(take_a_turn(began, "waits")) for _ in range(4)]
        while began.count("waits") < 4:
            tasks.append(fresh.start(take_a_turn(began, "fresh")))
            assert len(began) < 30
            await asyncio.sleep(0)
        await asyncio.wait(tasks)


async def test_no_more_than_one_that_takes_a_turn_begins_in_each() -> None:
    began: list[str] = []
    waits, fresh = Starting(), Starting()
    with tasks_made_by(plain_factory):
        tasks = [waits.start(take_a_turn(began, "waits")) for _ in range(4)]
        before = 0
        while len(began) < 12:
            tasks.append(fresh.start(take_a_turn(began, "fresh")))
            await asyncio.sleep(0)
            assert len(began) <= before + 1
            before = len(began)
        await asyncio.wait(tasks)


async def test_places_that_are_given_up_are_gone() -> None:
    began: list[str] = []
    busy, gives_up = Starting(), Starting()
    inner = [take_a_turn(began, "given up") for _ in range(20)]
    with tasks_made_by(plain_factory):
        tasks = [busy.start(take_a_turn(began, "busy")) for _ in range(5)]
        given_up = [gives_up.start(one) for one in inner]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.wait(given_up)
    assert not gives_up.starter._line
    assert gives_up.starter._line not in busy.pace._lines
    await asyncio.wait(tasks)
    assert began == ["busy"] * 5
    assert nobody_waits(busy.pace)
    for one in inner:
        one.close()


async def test_what_waits_when_its_loop_was_closed_ends_without_a_word(starts: Starting) -> None:
    loop = asyncio.get_running_loop()
    line: collections.deque[asyncio.Future[None]] = collections.deque()
    waiting = starts.pace.wait(line)
    waiting.send(None)
    assert len(line) == 1
    starts.pace._loop = None  # type: ignore[assignment] # nothing may be asked of it
    waiting.close()
    assert not starts.starter._line
    starts.pace._loop = loop
    assert nobody_waits(starts.pace)


async def test_a_factory_that_starts_and_then_raises_is_counted_once(starts: Starting) -> None:
    def raises_after(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(StopIteration):
            coro.send(None)
        raise MemoryError

    async def run() -> None: ...

    with tasks_made_by(raises_after), pytest.raises(MemoryError):
        starts.start(run())
    assert nobody_waits(starts.pace)


async def test_all_connections_of_a_user_have_one_pace_on_a_loop() -> None:
    loop = asyncio.get_running_loop()
    pace = pace_of(loop, 2_001)
    assert pace_of(loop, 2_001) is pace
    assert pace_of(loop, 2_002) is not pace
    other = asyncio.new_event_loop()
    assert pace_of(other, 2_001) is not pace
    other.close()


async def test_one_that_is_cancelled_while_it_waits_for_a_turn_does_not_begin(starts: Starting) -> None:
    ran: list[str] = []
    loop = asyncio.get_running_loop()

    async def run(name: str, function: Callable[[], object]) -> None:
        ran.append(name)
        time.sleep(1.5 * TURN_SECONDS)  # noqa: ASYNC251 - it holds the loop on purpose
        function()

    with tasks_made_by(plain_factory):
        second: list[asyncio.Task[None]] = []
        inner = run("second", list)
        first = starts.start(run("first", lambda: loop.call_soon(second[0].cancel)))
        second.append(starts.start(inner))
    await asyncio.wait([first, *second])
    assert ran == ["first"]
    assert second[0].cancelled()
    inner.close()
    assert nobody_waits(starts.pace)


async def test_one_that_is_cancelled_once_its_turn_has_come_does_not_begin(starts: Starting) -> None:
    began: list[str] = []
    inner = take_a_turn(began, "second")
    with tasks_made_by(plain_factory):
        tasks = [starts.start(take_a_turn(began, "first")), starts.start(inner)]
        tasks.append(starts.start(take_a_turn(began, "third")))
    await comes_true(lambda: began == ["first"] and starts.pace.waiting > 0 and not starts.starter._line)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert began == ["first", "third"]
    assert nobody_waits(starts.pace)
    inner.close()


async def test_one_that_never_begins_is_counted_no_more(starts: Starting) -> None:
    starts.pace.started = 1
    starts.starter.never_begun()
    assert nobody_waits(starts.pace)


def eager_factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
    """Take the first step at once, as any factory may; asyncio has one from Python 3.12 on."""
    if IS_EAGER:
        return asyncio.eager_task_factory(loop, coro)  # type: ignore[attr-defined,unused-ignore]
    try:
        waits_for = coro.send(None)
    except StopIteration:
        done = loop.create_future()
        done.set_result(None)
        return done
    return asyncio.Task(the_rest(coro, waits_for), loop=loop)


@types.coroutine
def the_rest(coro: Any, waits_for: Any) -> Generator[Any, Any, None]:
    """Go on with a coroutine that has begun."""
    try:
        while True:
            waits_for = coro.send((yield waits_for))
    except StopIteration:
        pass


@pytest.mark.parametrize("factory", [eager_factory, getattr(asyncio, "eager_task_factory", eager_factory)])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_factory_may_begin_at_once_what_it_makes_a_task_of(waits: bool, factory: Any, starts: Starting) -> None:
    began: list[str] = []

    async def run() -> None:
        began.append("run")
        if waits:
            await asyncio.sleep(0)

    owner = Owner()
    with tasks_made_by(eager_factory):
        task = starts.starter.start(contextvars.copy_context(), owner, starts._run(owner, run()))
        assert began == ["run"]
        assert owner.task is (task if waits else None), "what is over is not to be stopped"
        assert task.done() is not waits
    await task
    assert owner.heard == 0, "it began"
    assert nobody_waits(starts.pace)


async def test_one_that_begins_alone_begins_no_turn(starts: Starting) -> None:
    assert not starts.pace.must_wait()
    assert not starts.pace.turn_ends
    assert nobody_waits(starts.pace)


async def test_what_goes_on_counts_in_a_turn_and_waits_once_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = pace_of(asyncio.get_running_loop(), 2_004)
    monkeypatch.setattr(shares, "TURN_SECONDS", 60.0)
    monkeypatch.setattr(shares, "_ALONE_SECONDS", 60.0)
    assert not pace.is_over(), "a turn begins"
    assert not pace.is_over()
    pace.turn_ends = time.monotonic()
    assert pace.is_over()
    line: collections.deque[asyncio.Future[None]] = collections.deque()
    waiting = asyncio.create_task(pace.wait(line))
    await asyncio.sleep(0)
    await waiting
    assert not pace.is_over()
    pace.waiting += 1
    assert pace.is_over(), "others wait in line"
    pace.waiting -= 1
    assert nobody_waits(pace)
