"""The connection that handlers see where its users have it, and calls that are told of in a way of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

import pytest
from support.daemons import Stage, on_a_pair

import seqrpc


class Brought(seqrpc.Service):
    """Brought by a client."""

    def __init__(self) -> None:
        self.kept: list[seqrpc.Connection] = []

    @seqrpc.method
    async def keep(self) -> None:
        self.kept.append(seqrpc.current_call().connection)


class House(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    async def forgotten(self) -> None:
        raise AssertionError("it is not marked")

    @seqrpc.method
    async def hold(self, content: bytes) -> int:
        self.stage.reach("began")
        await self.stage.wait("may end")
        return len(content)

    @seqrpc.method
    async def quick(self) -> str:
        self.stage.reach("quick")
        return "answer"


async def test_handlers_see_the_users_connection_and_one_of_their_own_once_that_is_dropped(socket_path: Path) -> None:
    brought = Brought()
    async with seqrpc.serve(House(), socket_path) as server:
        connection = await seqrpc.connect(socket_path, services=brought)
        proxy = connection.proxy(House)
        assert await proxy.quick() == "answer"
        (accepted,) = server.connections
        await accepted.call("Brought.keep")
        assert brought.kept.pop() is connection
        del connection  # the proxy still holds what is below
        await accepted.call("Brought.keep")
        await accepted.call("Brought.keep")
        first, second = brought.kept
        assert first is second, "as long as somebody has it"
        assert await first.call("House.quick") == "answer"
        brought.kept.clear()
        await first.close()
        del proxy


async def test_a_method_that_is_not_marked_is_not_there_and_the_log_tells_why(caplog: pytest.LogCaptureFixture) -> None:
    async with on_a_pair(House()) as connection:
        with pytest.raises(seqrpc.MethodNotFound):
            await connection.call("House.forgotten")
        with pytest.raises(seqrpc.MethodNotFound):
            await connection.call("House.nothing")
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line == "! 'House.forgotten' was called, which is not marked with @seqrpc.method"


async def test_large_requests_are_refused_while_others_are_worked_on() -> None:
    house = House()
    async with on_a_pair(house, limits=seqrpc.Limits(max_held_bytes=150_000)) as connection:
        first = asyncio.ensure_future(connection.call("House.hold", bytes(200_000)))
        await house.stage.wait("began")
        with pytest.raises(seqrpc.Overloaded, match="max_held_bytes"):
            await connection.call("House.hold", bytes(100_000))
        house.stage.reach("may end")
        assert await first == 200_000


async def test_a_task_factory_that_fails_after_the_handler_ran_leaves_its_answer_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()

    def failing(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None, **_kwargs: Any) -> Any:
        if "Dispatcher._run" not in repr(coro):
            return asyncio.Task(coro, loop=loop, context=context)
        with contextlib.suppress(StopIteration):
            coro.send(None)
        raise MemoryError

    house = House()
    async with on_a_pair(house) as connection:
        before = loop.get_task_factory()
        loop.set_task_factory(failing)
        try:
            assert await connection.call("House.quick") == "answer"
        finally:
            loop.set_task_factory(before)
        assert await connection.call("House.quick") == "answer"
    assert house.stage.reached == ["quick", "quick"]
    assert "the task factory of 'House.quick' failed after its handler began" in caplog.text
