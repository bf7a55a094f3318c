"""Handlers share a spare task as long as nobody can tell, and what goes wrong in answering costs one call only."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daemons import PATIENCE, on_a_pair

import seqrpc

ENDED: list[asyncio.Task[Any]] = []


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class Unspeakable(seqrpc.RpcError, code="test.Unspeakable"):
    @property
    def data(self) -> Any:
        raise KeyError("data")

    @data.setter
    def data(self, value: Any) -> None: ...


class Unsendable:
    def __init__(self, exc: BaseException) -> None:
        self.exc = exc

    @property
    def fileno(self) -> Any:
        raise self.exc


def without_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(self: Any) -> Any:
        return await function(self, 1)

    return wrapper


class Tasks(seqrpc.Service):
    def __init__(self) -> None:
        self.kept: list[asyncio.Task[Any]] = []
        self.values: weakref.WeakKeyDictionary[asyncio.Task[Any], str] = weakref.WeakKeyDictionary()
        self.gate = asyncio.Event()
        self.waits = asyncio.Event()

    @seqrpc.method
    async def keep(self) -> None:
        self.kept.append(this_task())

    @seqrpc.method
    async def wait(self) -> str:
        self.waits.set()
        await self.gate.wait()
        return "done"

    @seqrpc.method
    async def value(self, default: str) -> str:
        return self.values.setdefault(this_task(), default)

    @seqrpc.method
    async def watch_its_end(self) -> None:
        this_task().add_done_callback(ENDED.append)

    @seqrpc.method
    async def quick(self) -> int:
        return id(this_task())

    @seqrpc.method
    async def unspeakable(self, waits: bool) -> None:
        if waits:
            await asyncio.sleep(0)
        raise Unspeakable("nobody hears of it")

    @seqrpc.method
    async def unsendable(self, waits: bool) -> Any:
        if waits:
            await asyncio.sleep(0)
        return Unsendable(asyncio.CancelledError())

    @seqrpc.method
    @without_arguments
    async def takes_none(self, number: int) -> int:
        return number


async def test_handlers_that_end_at_once_share_a_task() -> None:
    async with on_a_pair(Tasks()) as connection:
        assert len({await connection.call("Tasks.quick") for _ in range(5)}) == 1


async def test_a_task_that_somebody_kept_is_nobody_else_s(socket_path: Path) -> None:
    """Cancelled after its end, as a timer may do, it does no harm to the calls of others."""
    service = Tasks()
    async with (
        seqrpc.serve(service, socket_path),
        seqrpc.connect(socket_path) as one,
        seqrpc.connect(socket_path) as other,
    ):
        await one.call("Tasks.keep")
        waiting = asyncio.ensure_future(other.call("Tasks.wait"))
        await service.waits.wait()
        service.kept[0].cancel()
        await asyncio.sleep(0)
        service.gate.set()
        assert await asyncio.wait_for(waiting, PATIENCE) == "done"
        assert await asyncio.wait_for(other.call("Tasks.wait"), PATIENCE) == "done"
        await asyncio.wait(service.kept, timeout=PATIENCE)
        assert all(task.done() for task in service.kept)


async def test_what_is_kept_by_task_is_not_another_caller_s() -> None:
    async with on_a_pair(Tasks()) as connection:
        assert [await connection.call("Tasks.value", name) for name in ("alice", "bob")] == ["alice", "bob"]


async def test_who_wants_to_hear_of_a_task_s_end_does() -> None:
    ENDED.clear()
    async with on_a_pair(Tasks()) as connection:
        for number in range(1, 4):
            await connection.call("Tasks.watch_its_end")
            await connection.call("Tasks.quick")
            assert len(ENDED) == number
        ENDED.clear()


@pytest.mark.parametrize("waits", [False, True])
async def test_an_error_that_cannot_be_told_is_internal(waits: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with on_a_pair(Tasks()) as connection:
        with pytest.raises(seqrpc.Internal):
            await connection.call("Tasks.unspeakable", waits)
        assert "its error cannot be told" in caplog.text
        assert await connection.call("Tasks.value", "goes on") == "goes on"


@pytest.mark.parametrize("waits", [False, True])
async def test_a_result_that_cancels_while_it_is_encoded_is_internal(waits: bool, socket_path: Path) -> None:
    server = await seqrpc.serve(Tasks(), socket_path)
    async with seqrpc.connect(socket_path) as connection:
        with pytest.raises(seqrpc.Internal):
            await asyncio.wait_for(connection.call("Tasks.unsendable", waits), PATIENCE)
        assert await connection.call("Tasks.value", "goes on") == "goes on"
    await asyncio.wait_for(server.close(), PATIENCE)
    assert not server.connections


async def test_a_handler_that_does_not_take_what_it_declares_costs_its_call_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with on_a_pair(Tasks()) as connection:
        with pytest.raises(seqrpc.Internal):
            await connection.call("Tasks.takes_none", 1)
        assert "or not be taken" in caplog.text
        assert await connection.call("Tasks.value", "goes on") == "goes on"
