"""A handler's task and context are its own, and end with it."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import Stage, on_a_pair
from support.dispatch import KEPT, Weighty
from support.incidents import AN_INCIDENT

import seqrpc
from seqrpc import OwnedFd


class Watching(seqrpc.Service):
    """Looks at the task and the context that its handlers run in."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.tasks: list[str] = []  # their names, which are all different: one that is kept serves nobody else
        self.fatal: type[BaseException] = KeyboardInterrupt
        self.kept: list[weakref.ref[Any]] = []
        self.held: list[OwnedFd] = []

    @seqrpc.method
    async def quick(self) -> bool:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task.get_name())
        return task in asyncio.all_tasks()

    @seqrpc.method
    async def slow(self, name: str) -> list[Any]:
        seen: list[Any] = [word.get()]
        word.set(name)
        self.stage.reach(f"{name} began")
        await self.stage.wait("all may go on")
        return [*seen, word.get(), seqrpc.current_call().method, asyncio.current_task() in asyncio.all_tasks()]

    @seqrpc.method
    async def pause(self) -> bool:
        await asyncio.sleep(0)
        return asyncio.current_task() in asyncio.all_tasks()

    @seqrpc.method
    async def die(self) -> None:
        raise self.fatal

    @seqrpc.method
    async def hold(self, fd: OwnedFd) -> None:
        self.held.append(fd)
        self.stage.reach("holds")
        try:
            await asyncio.Event().wait()
        finally:
            self.stage.reach("left")

    @seqrpc.method
    async def take(self, fd: OwnedFd, waits: bool) -> Weighty:
        self.kept.append(weakref.ref(fd))
        if waits:
            await asyncio.sleep(0)
        return Weighty(b"x")


word: ContextVar[str] = ContextVar("word", default="none")


async def test_a_handler_is_among_all_tasks_and_its_context_is_its_own_to_the_end() -> None:
    service = Watching()
    async with on_a_pair(service) as connection:
        assert await connection.call("Watching.quick") is True
        calls = [asyncio.ensure_future(connection.call("Watching.slow", name)) for name in "ab"]
        for name in "ab":
            await service.stage.wait(f"{name} began")
        assert await connection.call("Watching.quick") is True
        service.stage.reach("all may go on")
        assert await asyncio.gather(*calls) == [["none", name, "Watching.slow", True] for name in "ab"]


async def test_each_handler_has_a_task_of_its_own_whatever_its_connection(socket_path: Path) -> None:
    service = Watching()
    async with (
        seqrpc.serve(service, socket_path),
        seqrpc.connect(socket_path) as one,
        seqrpc.connect(socket_path) as other,
    ):
        for connection in (one, other, one, other):
            await connection.call("Watching.quick")
        assert len(set(service.tasks)) == 4
        calls = [
            asyncio.ensure_future(connection.call("Watching.slow", name))
            for connection, name in ((one, "a"), (other, "b"))
        ]
        for name in "ab":
            await service.stage.wait(f"{name} began")
        await one.close()
        with pytest.raises(seqrpc.ConnectionLost):
            await calls[0]
        await other.call("Watching.quick")
        service.stage.reach("all may go on")
        assert await calls[1] == ["none", "b", "Watching.slow", True]


@pytest.mark.parametrize("waits", [False, True])
async def test_nothing_keeps_what_came_with_a_call_and_what_it_answered_after_its_end(
    waits: bool, pipe: tuple[int, int]
) -> None:
    """Without the garbage collector."""
    KEPT.clear()
    service = Watching()
    async with on_a_pair(service) as connection:
        gc.disable()
        try:
            with OwnedFd.dup(pipe[0]) as fd:
                for _ in range(3):
                    await connection.call("Watching.take", fd, waits)
            assert [kept() for kept in service.kept] == [kept() for kept in KEPT] == [None] * 3
        finally:
            gc.enable()


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_a_loop_that_a_handler_stopped_serves_the_next_call_when_it_runs_again(fatal: type[BaseException]) -> None:
    service = Watching()
    service.fatal = fatal
    ours, theirs = seqrpc.socket_pair()

    async def answer() -> Any:
        return msgpack.unpackb(await loop.sock_recv(ours, 65_536))

    with ours, asyncio.Runner() as runner:
        loop = runner.get_loop()
        ours.setblocking(False)
        server = runner.run(start(service, theirs))
        ours.send(msgpack.packb([0, 1, "Watching.die", []]))
        with pytest.raises(fatal):
            loop.run_forever()
        assert runner.run(answer()) == [1, 1, ["rpc.Internal", AN_INCIDENT, None], None]
        for _ in range(2):
            ours.send(msgpack.packb([0, 1, "Watching.quick", []]))
            assert runner.run(answer()) == [1, 1, None, True]
        ours.send(msgpack.packb([0, 1, "Watching.pause", []]))
        assert runner.run(answer()) == [1, 1, None, True]
        runner.run(server.close())


async def start(service: seqrpc.Service, sock: socket.socket) -> seqrpc.Server:
    return await seqrpc.serve(service, sock=sock)


def test_a_handler_that_is_thrown_away_with_its_loop_is_not_answered_for(pipe: tuple[int, int]) -> None:
    service = Watching()
    ours, theirs = seqrpc.socket_pair()

    async def begin() -> seqrpc.Server:
        server = await start(service, theirs)
        with OwnedFd.dup(pipe[0]) as fd:
            socket.send_fds(
                ours, [msgpack.packb([0, 1, "Watching.hold", [msgpack.ExtType(1, bytes(1))]])], [fd.fileno()]
            )
        await service.stage.wait("holds")
        return server

    with ours:
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(begin())
        before = len(service.held)
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed <Server on a socket that was passed>"):
            del loop, server
        assert theirs.fileno() == -1
        gc.collect()
        assert service.stage.reached == ["holds", "left"]
        assert ours.recv(10) == b""
        assert [fd.closed for fd in service.held] == [True] * before
        service.held.clear()
