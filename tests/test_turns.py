"""Waiting in line."""

from __future__ import annotations

import asyncio

import pytest
from packets import turns_of_the_loop

from seqrpc.carriers.turns import Turns


class Room:
    """So many places, and the line before them."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.order: list[str] = []
        self.turns = Turns(asyncio.get_running_loop(), lambda going: going < self.places)

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
