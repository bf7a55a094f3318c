"""Waiting in line."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from support.waiting import turns_of_the_loop

from seqrpc.aio.turns import Turns


class Room:
    """So many places, and the line before them."""

    def __init__(self, places: int, *stall: Any) -> None:
        self.places = places
        self.order: list[str] = []
        self.turns = Turns(asyncio.get_running_loop(), lambda going: going < self.places, *stall)

    async def enter(self, name: str) -> None:
        await self.turns.wait()
        self.places -= 1
        self.order.append(name)

    def leave(self) -> None:
        self.places += 1
        self.turns.next()

    def line_up(self, *names: str) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.enter(name)) for name in names]


async def stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_turns_come_in_the_order_of_the_line_and_no_more_than_there_is_room() -> None:
    room = Room(0)
    tasks = room.line_up("a", "b", "c", "d")
    await turns_of_the_loop()
    assert room.turns.waiting == 4
    assert room.order == []

    room.places = 2
    room.turns.next()
    await asyncio.gather(*tasks[:2])
    await turns_of_the_loop()
    assert room.order == ["a", "b"]
    assert room.turns.waiting == 2

    room.leave()
    room.leave()
    await asyncio.gather(*tasks)
    assert room.order == ["a", "b", "c", "d"]
    assert room.turns.waiting == 0


async def test_a_turn_that_was_given_holds_its_place_until_it_is_used() -> None:
    room = Room(0)
    tasks = room.line_up("a", "b")
    await turns_of_the_loop()
    room.places = 1
    room.turns.next()
    room.turns.next()  # the one place is promised
    assert room.turns.waiting == 2, "whoever comes now must see that there is a line"
    await turns_of_the_loop()
    assert room.order == ["a"]
    await stop(tasks)


async def test_next_with_nobody_in_line_does_nothing() -> None:
    room = Room(1)
    room.turns.next()
    assert room.turns.waiting == 0


async def test_one_that_is_cancelled_in_line_is_passed_over() -> None:
    room = Room(0)
    tasks = room.line_up("a", "b")
    await turns_of_the_loop()
    tasks[0].cancel()
    room.leave()  # before the cancelled task has run
    await tasks[1]
    assert room.order == ["b"]
    assert tasks[0].cancelled()


async def test_one_that_is_cancelled_leaves_nothing_in_the_line() -> None:
    room = Room(0)
    await stop(room.line_up("a", "b", "c"))
    assert room.turns.waiting == 0
    assert not room.turns._line


async def test_a_turn_whose_task_is_cancelled_as_it_comes_goes_to_the_next() -> None:
    room = Room(0)
    tasks = room.line_up("a", "b")
    await turns_of_the_loop()
    room.leave()
    tasks[0].cancel()  # it has its turn, and has not run
    await tasks[1]
    assert room.order == ["b"]
    assert tasks[0].cancelled()


async def test_a_turn_that_is_not_used_goes_to_the_next() -> None:
    room = Room(0)

    async def turn_away() -> None:
        await room.turns.wait()
        raise LookupError

    away = asyncio.create_task(turn_away())
    await turns_of_the_loop()
    tasks = room.line_up("b")
    await turns_of_the_loop()
    room.leave()
    with pytest.raises(LookupError):
        await away
    await tasks[0]
    assert room.order == ["b"]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_who_waits_when_the_loop_is_closed_goes_quietly(
    new_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's turn comes any more, and there is no loop to give it on."""
    caught: list[Any] = []
    left: list[str] = []

    async def wait(room: Room, name: str) -> None:
        try:
            await room.enter(name)
        finally:
            left.append(name)

    async def line_up() -> list[asyncio.Task[None]]:
        room = Room(0)
        tasks = [asyncio.create_task(wait(room, name)) for name in "abc"]
        await turns_of_the_loop()
        assert room.turns.waiting == 3
        return tasks

    monkeypatch.setattr(sys, "unraisablehook", lambda args: caught.append(args.exc_value))
    loop = new_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # of tasks that were pending
    tasks = loop.run_until_complete(line_up())
    loop.close()
    del tasks, loop
    gc.collect()
    assert sorted(left) == ["a", "b", "c"]
    assert caught == []


async def test_fail_raises_in_all_who_wait_and_empties_the_line() -> None:
    room = Room(0)
    tasks = room.line_up("a", "b", "c")
    await turns_of_the_loop()
    tasks[0].cancel()
    room.turns.fail(LookupError("closed"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, LookupError, LookupError]
    assert room.turns.waiting == 0
    room.places = 1
    again = room.line_up("d")
    await turns_of_the_loop()
    room.turns.next()
    await again[0]
    assert room.order == ["d"]


async def test_fail_raises_an_error_of_its_own_in_each_with_what_caused_it() -> None:
    room = Room(0)
    tasks = room.line_up("a", "b")
    await turns_of_the_loop()
    error = LookupError("closed", 7)
    error.__cause__ = cause = OSError("the network")
    room.turns.fail(error)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    raised = [result for result in results if isinstance(result, LookupError)]
    assert len({id(each) for each in (error, *raised)}) == 3
    assert [each.args for each in raised] == [("closed", 7), ("closed", 7)]
    assert [each.__cause__ for each in raised] == [cause, cause]


async def test_who_waits_while_no_turn_is_given_is_refused_with_an_error_of_his_own() -> None:
    room = Room(0, 0.05, LookupError)
    tasks = room.line_up("a", "b")
    async with asyncio.timeout(20):
        first, second = await asyncio.gather(*tasks, return_exceptions=True)
    assert type(first) is type(second) is LookupError
    assert first is not second
    assert room.turns.waiting == 0
    assert not room.turns._line
    assert room.turns._watch is not None
    assert room.turns._watch._timer is None
    room.places = 1
    again = room.line_up("c")
    await turns_of_the_loop()
    room.turns.next()
    await again[0]
    assert room.order == ["c"]
    assert room.turns._watch._timer is None, "a timer runs though nobody waits"


async def test_a_line_that_moves_slowly_is_not_refused() -> None:
    room = Room(0, 0.4, LookupError)
    tasks = room.line_up(*"abcdefgh")
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(1, 9):
        loop.call_later(0.1 * number, room.leave)
    await asyncio.gather(*tasks)
    assert loop.time() - began > 0.7
    assert "".join(room.order) == "abcdefgh"


async def test_who_comes_late_to_a_line_that_stands_waits_as_long_as_the_others() -> None:
    room = Room(0, 0.2, LookupError)
    loop = asyncio.get_running_loop()
    ended: dict[str, float] = {}

    async def wait(name: str) -> None:
        came = loop.time()
        try:
            await room.turns.wait()
        except LookupError:
            ended[name] = loop.time() - came

    early = asyncio.create_task(wait("early"))
    late = asyncio.create_task(asyncio.wait({early}, timeout=0.1))
    await late
    await asyncio.gather(early, wait("late"))
    assert ended["early"] > 0.19
    assert ended["late"] > 0.19


async def test_a_line_that_waits_for_something_else_is_left_alone() -> None:
    asked: list[float] = []
    twice = asyncio.Event()
    loop = asyncio.get_running_loop()

    def refusal() -> None:
        asked.append(loop.time())
        if len(asked) == 2:
            twice.set()

    room = Room(0, 0.05, refusal)
    tasks = room.line_up("a")
    async with asyncio.timeout(20):
        await twice.wait()
    assert asked[1] - asked[0] > 0.04
    assert not tasks[0].done()
    room.leave()
    await tasks[0]


async def test_a_line_that_waited_for_something_else_is_measured_anew() -> None:
    room = Room(0, 0.2, LookupError)
    loop = asyncio.get_running_loop()
    tasks = room.line_up("a")
    began = loop.time()
    loop.call_later(0.1, room.turns.restart)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert loop.time() - began > 0.29


async def test_one_that_is_cancelled_as_the_line_is_refused_is_passed_over() -> None:
    room = Room(0, 0.2, LookupError)
    tasks = room.line_up("a", "b")
    await turns_of_the_loop()
    time.sleep(0.25)  # noqa: ASYNC251 - the loop is busy for longer than the line may stand
    tasks[0].cancel()
    room.turns._refuse_stalled()  # before the cancelled task has run
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, LookupError]


async def test_a_line_that_was_let_go_asks_nobody_and_lets_everybody_go() -> None:
    room = Room(0, 0.01, lambda: LookupError("it is full"))
    room.turns.let_go()
    (task,) = room.line_up("a")
    await turns_of_the_loop()
    room.turns.next()
    await task
    assert room.order == ["a"]
