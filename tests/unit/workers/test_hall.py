from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest
from support.waiting import turns_of_the_loop

import seqrpc
from seqrpc import Execution
from seqrpc.errors import ConnectionLost
from seqrpc.workers.hall import Hall, Member

NOBODY = cast("Any", None)
"""Whom the members call: a hall only counts."""


class Room:
    """A hall with so many members, and what it wants."""

    def __init__(self, members: int, most: int = 1) -> None:
        self.wanted: list[Member | None] = []
        self.hall = Hall(most, self.wanted.append)
        self.members = [self.one_more() for _ in range(members)]

    def one_more(self) -> Member:
        member = Member(NOBODY, 0.0)
        self.hall.add(member)
        return member


def taking(hall: Hall, deadline: int | None = None) -> asyncio.Future[Member]:
    return asyncio.ensure_future(hall.take(deadline))


async def test_the_one_that_has_least_to_do_is_given() -> None:
    room = Room(2, most=2)
    first, second = room.members
    assert [await room.hall.take() for _ in range(4)] == [first, second, first, second]
    room.hall.give_back(second)
    assert await room.hall.take() is second
    assert (first.in_flight, first.begun, second.in_flight, second.begun) == (2, 2, 2, 3)
    assert room.wanted == [second]


async def test_those_that_wait_come_in_their_order() -> None:
    room = Room(1)
    (member,) = room.members
    assert await room.hall.take() is member
    calls = [taking(room.hall) for _ in range(3)]
    await turns_of_the_loop()
    assert room.hall.waiting == 3
    assert room.wanted == [None] * 3
    for number, call in enumerate(calls):
        assert not call.done()
        room.hall.give_back(member)
        assert await call is member
        assert room.hall.waiting == 2 - number
    room.hall.give_back(member)


async def test_one_that_comes_late_does_not_push_in() -> None:
    room = Room(0)
    early = taking(room.hall)
    await turns_of_the_loop()
    member = room.one_more()
    late = taking(room.hall)
    assert await early is member
    assert not late.done()
    room.hall.give_back(member)
    assert await late is member


async def test_a_member_knows_since_when_it_has_nothing_to_do() -> None:
    room = Room(1, most=2)
    (member,) = room.members
    assert member.quiet.is_set()
    for _ in range(2):
        await room.hall.take()
    assert not member.quiet.is_set()
    room.hall.give_back(member)
    assert (member.quiet.is_set(), member.quiet_since) == (False, 0.0)
    room.hall.give_back(member)
    assert member.quiet.is_set()
    assert member.quiet_since > 0


async def test_one_that_leaves_is_given_nothing() -> None:
    room = Room(2)
    first, second = room.members
    first.is_leaving = True
    assert await room.hall.take() is second
    call = taking(room.hall)
    await turns_of_the_loop()
    room.hall.discard(second)
    room.hall.discard(second)
    assert second.is_leaving
    room.hall.give_back(second)
    assert not call.done()
    third = room.one_more()
    assert await call is third
    assert list(room.hall.members) == [first, third]


async def test_a_deadline_that_passes_gives_the_place_up() -> None:
    room = Room(0)
    for deadline in (time.monotonic_ns() + 10_000_000, time.monotonic_ns(), 1):
        with pytest.raises(seqrpc.DeadlineExceeded, match="the deadline passed before a worker was free") as caught:
            await room.hall.take(deadline)
        assert caught.value.execution is Execution.DID_NOT_RUN
    assert room.hall.waiting == 0


async def test_a_deadline_that_is_far_off_is_none() -> None:
    room = Room(0)
    call = taking(room.hall, 2**63 - 1)
    await turns_of_the_loop()
    assert room.hall.waiting == 1
    member = room.one_more()
    assert await call is member


async def test_one_that_is_cancelled_gives_its_place_up() -> None:
    room = Room(0)
    calls = [taking(room.hall) for _ in range(3)]
    await turns_of_the_loop()
    calls[0].cancel()
    calls[1].cancel()
    await asyncio.wait(calls[:2])
    assert room.hall.waiting == 1
    member = room.one_more()
    assert await calls[2] is member
    assert member.begun == 1


async def test_one_that_is_cancelled_as_others_are_fed_is_passed_over() -> None:
    room = Room(0)
    first, second = taking(room.hall), taking(room.hall)
    await turns_of_the_loop()
    first.cancel()  # and has not run since
    member = room.one_more()
    assert await second is member
    assert first.cancelled()
    assert (member.in_flight, member.begun) == (1, 1)


async def test_one_whose_turn_came_as_it_was_cancelled_gives_it_on() -> None:
    room = Room(0)
    first, second = taking(room.hall), taking(room.hall)
    await turns_of_the_loop()
    member = room.one_more()
    first.cancel()
    assert await second is member
    assert first.cancelled()
    assert (member.in_flight, member.begun) == (1, 1)
    assert room.wanted[-1] is member


async def test_all_who_wait_are_told_that_there_is_nobody_and_others_may_yet_come() -> None:
    room = Room(0)
    calls = [taking(room.hall) for _ in range(3)]
    await turns_of_the_loop()
    calls[0].cancel()
    why = seqrpc.WorkerCrashed("none begins")
    why.__cause__ = OSError("a reason")
    room.hall.fail(why)
    calls[1].cancel()  # though it has been told
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [
        asyncio.CancelledError,
        asyncio.CancelledError,
        seqrpc.WorkerCrashed,
    ]
    told = results[2]
    assert isinstance(told, seqrpc.WorkerCrashed)
    assert told is not why
    assert told.__cause__ is why.__cause__
    assert told.execution is Execution.DID_NOT_RUN
    call = taking(room.hall)
    await turns_of_the_loop()
    member = room.one_more()
    assert await call is member


async def test_once_it_is_closed_there_is_nobody() -> None:
    room = Room(1)
    await room.hall.take()
    call = taking(room.hall)
    await turns_of_the_loop()
    room.hall.close(ConnectionLost("it was closed"))
    for late in (call, taking(room.hall)):
        with pytest.raises(ConnectionLost, match="it was closed") as caught:
            await late
        assert caught.value.execution is Execution.DID_NOT_RUN
    room.hall.give_back(room.members[0])
