"""A connection belongs to one process and one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from support.link import End, next_message, one_end
from support.packets import wire
from support.processes import in_child
from support.waiting import comes_true

from seqrpc import SeqrpcError


def outcome(use: Callable[[], Coroutine[Any, Any, Any]]) -> str:
    """Return what comes of using a connection on a loop that was made for it."""
    try:
        return str(asyncio.run(use()))
    except SeqrpcError as exc:
        return type(exc).__name__


def by_hand(use: Callable[[], Coroutine[Any, Any, Any]]) -> str:
    """Return what comes of using a connection where no loop runs."""
    coroutine = use()
    try:
        coroutine.send(None)
    except SeqrpcError as exc:
        return type(exc).__name__
    finally:
        coroutine.close()
    return "went on"


def _uses(end: End) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
    async def detach() -> object:
        return end.connection.detach()

    caller = end.connection.caller
    return [
        lambda: caller.request("m", ()),
        lambda: caller.send_notify("m", ()),
        end.connection.wait_closed,
        detach,
    ]


async def test_a_copy_in_a_forked_child_is_closed_and_of_no_use() -> None:
    async with one_end() as (end, raw):
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))
        call = end.call("m")
        message = await next_message(raw)

        async def check() -> None:
            end.connection.check_process()

        def use() -> list[Any]:
            assert outcome(check) == "WrongProcess"
            end.connection.abandon()
            uses = [*map(outcome, _uses(end)), *map(by_hand, _uses(end))]
            return [*uses, outcome(end.connection.close), end.connection.closed, len(end.connection.session.calls)]

        assert in_child(use) == [*["WrongProcess"] * 8, "None", True, 0]
        end.connection.check_process()
        assert not end.connection.closed
        raw.send(wire(1, message[1], None, "answer"))
        assert await call == "answer"
        end.answers.send_result(1, "mine")
        assert await next_message(raw) == [1, 1, None, "mine"]


async def test_what_a_child_answers_goes_nowhere() -> None:
    async with one_end() as (end, raw):
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))

        def answer() -> bool:
            end.answers.send_result(1, "the child's")
            end.answers.send_error(1, "a.b", "the child's")
            end.answers.send_closing("the child's")
            return True

        assert in_child(answer)
        end.answers.send_result(1, "mine")
        assert await next_message(raw) == [1, 1, None, "mine"]


async def test_on_another_loop_it_is_of_no_use_either_and_goes_on_on_its_own() -> None:
    async with one_end() as (end, raw):
        for use in [*_uses(end), end.connection.close]:
            assert await asyncio.to_thread(outcome, use) == "WrongLoop"
        assert await asyncio.to_thread(by_hand, _uses(end)[0]) == "WrongLoop"
        call = end.call("m")
        message = await next_message(raw)
        assert message[2:] == ["m", []]
        raw.send(wire(1, message[1], None, "answer"))
        assert await call == "answer"
