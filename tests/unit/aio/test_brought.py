"""What a client brings to a connection that is made anew, and the hook that tells of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from support.daemons import Stage
from support.dropped import unclosed
from support.reconnecting import QUICK, Journal, ended, raised_by, soon
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Reconnect


class Guest(seqrpc.Service):
    """What the client brings."""

    def __init__(self) -> None:
        self.lived: list[str] = []
        self.stage = Stage()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        self.lived.append("begins")
        yield
        self.lived.append("ends")

    @seqrpc.method
    async def name(self) -> str:
        return "Guest"

    @seqrpc.method
    async def wait(self) -> str:
        self.stage.reach("waits")
        await self.stage.wait("may go on")
        return "done"


async def test_services_are_served_on_each_connection_and_live_once(socket_path: Path) -> None:
    guest = Guest()
    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK, services=guest) as connection:
        assert await connection.call("Journal.ask_back") == "Guest"
        for _ in range(3):
            await server.close()
            server = await seqrpc.serve(Journal(), socket_path)
            await connection.wait_for_ready()
            assert await connection.call("Journal.ask_back") == "Guest"
        assert guest.lived == ["begins"]
    assert guest.lived == ["begins", "ends"]
    await server.close()


async def test_a_lifespan_that_fails_at_the_start_leaves_nothing(socket_path: Path) -> None:
    class Failing(seqrpc.Service):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            raise ZeroDivisionError
            yield

    async with seqrpc.serve(Journal(), socket_path) as server:
        with pytest.raises(ZeroDivisionError):
            await seqrpc.connect(socket_path, reconnect=QUICK, services=Failing())
        await comes_true(lambda: not server.connections)


async def test_a_lifespan_that_ends_early_closes_the_connection_for_good(socket_path: Path) -> None:
    class Short(seqrpc.Service):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._fail())
                yield

        async def _fail(self) -> None:
            await fails.wait()
            raise ZeroDivisionError

    fails = asyncio.Event()
    async with seqrpc.serve(Journal(), socket_path):
        connection = await seqrpc.connect(socket_path, reconnect=QUICK, services=Short())
        fails.set()
        with pytest.raises(ExceptionGroup):
            await connection.wait_closed()
        assert connection.closed
        with pytest.raises(ExceptionGroup):
            await connection.close()


async def test_a_handler_that_runs_holds_the_connection(socket_path: Path) -> None:
    guest = Guest()

    class Asking(seqrpc.Service):
        @seqrpc.method
        async def ask(self) -> str:
            answer: str = await seqrpc.current_call().connection.call("Guest.wait")
            answers.append(answer)
            return answer

    answers: list[str] = []
    async with seqrpc.serve(Asking(), socket_path):
        connection: Any = await seqrpc.connect(socket_path, reconnect=QUICK, services=guest)
        await connection.notify("Asking.ask")
        await guest.stage.wait("waits")
        del connection
        gc.collect()
        with unclosed():
            guest.stage.reach("may go on")
            await comes_true(lambda: guest.lived == ["begins", "ends"])
        assert answers == ["done"]


class Keeping(seqrpc.Service):
    """Keeps what the client gives away."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    @seqrpc.method
    async def keep(self) -> None:
        self.kept.append(await seqrpc.current_call().connection.call("Guest.give"))


class CancelledAtItsEnd(seqrpc.Service):
    async def close(self) -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task


class Giver(Guest, name="Guest"):
    @seqrpc.method
    async def give(self) -> CancelledAtItsEnd:
        return CancelledAtItsEnd()


async def test_an_object_whose_close_ends_cancelled_does_not_hold_the_connection(socket_path: Path) -> None:
    giver = Giver()
    async with seqrpc.serve(Keeping(), socket_path, accept_descriptors=True):
        connection = await seqrpc.connect(socket_path, services=giver)
        await connection.call("Keeping.keep")
        async with asyncio.timeout(PATIENCE):
            await connection.close()
        assert giver.lived == ["begins", "ends"]


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_that_ends_as_all_tasks_are_cancelled_can_be_closed(turns: int, socket_path: Path) -> None:
    giver = Giver()
    async with seqrpc.serve(Keeping(), socket_path, accept_descriptors=True):
        connection = await seqrpc.connect(socket_path, services=giver)
        await connection.call("Keeping.keep")
        connection_ends = asyncio.ensure_future(connection.close())
        await turns_of_the_loop(turns + 1)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        async with asyncio.timeout(PATIENCE):
            await connection.close()
            await connection.wait_closed()
        await asyncio.wait([connection_ends])
    assert giver.lived[0] == "begins"


async def test_a_handler_that_closes_its_connection_has_another_made(socket_path: Path) -> None:
    class Closing(seqrpc.Service, name="Guest"):
        @seqrpc.method
        async def name(self) -> str:
            await seqrpc.current_call().connection.close()
            return "never"

    async with (
        seqrpc.serve(Journal(), socket_path),
        seqrpc.connect(socket_path, reconnect=QUICK, services=Closing()) as connection,
    ):
        await raised_by(seqrpc.ConnectionLost, connection.call("Journal.ask_back"))
        assert await connection.call("Journal.add", "a") == "a"


async def test_the_hook_is_called_with_the_connection_each_time_but_the_first(socket_path: Path) -> None:
    made: list[seqrpc.Connection] = []
    policy = Reconnect(first_delay=0.001, longest_delay=0.01, on_reconnect=made.append)
    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=policy) as connection:
        assert made == []
        for number in range(1, 3):
            await server.close()
            server = await seqrpc.serve(Journal(), socket_path)
            await comes_true(lambda number=number: len(made) == number)  # type: ignore[misc]
            assert await made[-1].call("Journal.add", "a") == "a"
            assert await connection.call("Journal.add", "a") == "a"
    assert all(one.closed for one in made)
    made.clear()
    await server.close()


async def test_a_hook_that_fails_is_logged_and_changes_nothing(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(_connection: object) -> None:
        raise ZeroDivisionError

    caplog.set_level(logging.DEBUG, logger="seqrpc.client")
    server = await seqrpc.serve(Journal(), socket_path)
    policy = Reconnect(first_delay=0.001, longest_delay=0.01, on_reconnect=hook)
    async with seqrpc.connect(socket_path, reconnect=policy) as connection:
        await server.close()
        await ended(connection)
        call = soon(connection.call("Journal.add", "a"))
        async with seqrpc.serve(Journal(), socket_path):
            assert await call == "a"
    assert "on_reconnect failed" in caplog.text
    assert "was made anew" in caplog.text


class Thing(seqrpc.Service):
    @seqrpc.method
    async def look(self) -> int:
        return 1


class Giving(seqrpc.Service):
    @seqrpc.method
    async def give(self) -> Thing:
        return Thing()


async def test_objects_of_the_old_connection_live_as_long_as_their_daemon(socket_path: Path) -> None:
    server = await seqrpc.serve(Giving(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        thing = await connection.proxy(Giving).give()
        for one in server.connections:
            await one.close()
        await connection.wait_for_ready()
        assert await thing.look() == 1, "it has a socket of its own"
        await server.close()
        await raised_by(seqrpc.SeqrpcError, thing.look())
        async with seqrpc.serve(Giving(), socket_path):
            assert await (await connection.proxy(Giving).give()).look() == 1
