"""What was given away and does not arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from support.descriptors import owned
from support.link import next_message, one_end
from support.waiting import comes_true

from seqrpc.aio.answers import Answers

# What was given away and does not arrive


async def test_what_is_given_up_from_another_thread_is_let_go_on_the_loop() -> None:
    async with one_end() as (end, _raw):
        with owned(2) as fds:
            here, there = fds
            end.answers.give_up([here])
            assert here.closed
            await asyncio.to_thread(end.answers.give_up, [there])
            await comes_true(lambda: there.closed)


def test_what_is_given_up_when_the_loop_is_closed_lets_go_of_its_descriptors() -> None:
    async def ended() -> Answers:
        async with one_end() as (end, _raw):
            return end.answers

    answers = asyncio.run(ended())
    with owned(1) as fds:
        (fd,) = fds
        answers.give_up([fd])
        assert fd.closed


class Unfetched(list[Any]):
    raises: type[BaseException] = ValueError

    def __iter__(self) -> Iterator[Any]:
        raise self.raises


class Panicking(Unfetched):
    raises = asyncio.CancelledError


class Leaving(Unfetched):
    raises = SystemExit


@pytest.mark.parametrize("kind", [Unfetched, Panicking])
async def test_what_raises_while_it_is_taken_apart_is_given_up_as_far_as_it_can_be(kind: type[Unfetched]) -> None:
    async with one_end() as (end, _raw):
        with owned(2) as fds:
            here, there = fds
            end.answers.give_up([here, kind()])
            assert here.closed
            await asyncio.to_thread(end.answers.give_up, [there, kind()])
            await comes_true(lambda: there.closed)


async def test_what_ends_the_program_is_not_kept_from_it() -> None:
    async with one_end() as (end, _raw):
        with pytest.raises(SystemExit):
            end.answers.give_up([Leaving()])


def test_what_raises_so_when_the_loop_is_closed_raises_nothing() -> None:
    async def ended() -> Answers:
        async with one_end() as (end, _raw):
            return end.answers

    asyncio.run(ended()).give_up([Unfetched()])


async def test_the_result_of_a_call_that_wants_no_answer_is_given_up_and_nothing_is_sent() -> None:
    async with one_end() as (end, raw):
        with owned(1) as fds:
            (fd,) = fds
            assert end.answers.send_result(None, [fd]) == []
            assert fd.closed
        end.answers.send_result(1, "the next")
        assert await next_message(raw) == [1, 1, None, "the next"]
