"""What surrounds the life of a service: what it may do, and when it is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.daemons import exists, on_a_pair
from support.lifespans import Broken, Group, Plain, Stuck, Vault
from support.processes import in_child
from support.waiting import PATIENCE

import seqrpc
from seqrpc.limits import CANCEL_GRACE


@pytest.mark.parametrize("how", ["close", "drain"])
async def test_it_is_left_when_handlers_streams_and_objects_have_ended(how: str, socket_path: Path) -> None:
    vault = Vault()
    limits = seqrpc.Limits(drain_timeout=0.05, close_timeout=0.05)
    server = await seqrpc.serve(vault, socket_path, limits=limits)
    connection = await seqrpc.connect(socket_path)
    proxy = connection.proxy(Vault)
    numbers = proxy.count()
    assert await anext(numbers) == 1
    child = await proxy.child()
    await child.ping()
    working = asyncio.ensure_future(proxy.work())
    await vault.stage.wait("works")
    closing = asyncio.ensure_future(getattr(server, how)())
    await server.wait_closed()
    assert vault.told[:2] == ["Vault begins", "Vault works"]
    assert set(vault.told[2:-1]) == {"Vault was cancelled", "Vault counts no more", "Plain closes"}
    assert vault.told[-1] == "Vault ends"
    await closing
    with pytest.raises((seqrpc.ConnectionLost, seqrpc.Cancelled)):
        await working
    with pytest.raises(seqrpc.RpcError):
        await anext(numbers)
    await connection.close()


async def test_who_has_none_costs_no_task(socket_path: Path) -> None:
    before = asyncio.all_tasks()
    async with seqrpc.serve(Plain([]), socket_path):
        assert asyncio.all_tasks() == before
    async with Plain([]).lifespan():
        pass


async def test_it_is_not_that_of_objects_that_are_given_away() -> None:
    class Giver(seqrpc.Service):
        @seqrpc.method
        async def give(self) -> Vault:
            return Vault(told)

    told: list[str] = []
    async with on_a_pair(Giver()) as connection, await connection.proxy(Giver).give() as vault:
        assert await vault.where() == "nowhere"
    assert told == []


async def test_nobody_calls_it(socket_path: Path) -> None:
    async with on_a_pair(Vault()) as connection:
        with pytest.raises(seqrpc.MethodNotFound):
            await connection.call("Vault.lifespan")
    with pytest.raises(TypeError, match=r"Callable\.lifespan is what surrounds the service's life"):

        class Callable(seqrpc.Service):
            @seqrpc.method
            async def lifespan(self) -> None:  # type: ignore[override]
                pass


async def test_one_that_is_no_context_manager_is_told(socket_path: Path) -> None:
    class Generator(seqrpc.Service):
        async def lifespan(self) -> AsyncIterator[None]:  # type: ignore[override]
            yield

    class Coroutine(seqrpc.Service):
        async def lifespan(self) -> None:  # type: ignore[override]
            pass

    for cls in (Generator, Coroutine):
        with pytest.raises(TypeError, match=f"{cls.__name__}.lifespan: an async context manager was expected"):
            await seqrpc.serve(cls(), socket_path)
        assert os.listdir(socket_path.parent) == []


@pytest.mark.parametrize("is_stubborn", [False, True])
async def test_a_start_that_is_cancelled_ends_what_has_begun(is_stubborn: bool, socket_path: Path) -> None:
    told: list[str] = []
    stuck = Stuck(told)
    stuck.at, stuck.is_stubborn = "the start", is_stubborn
    starting = asyncio.ensure_future(_serving([Vault(told), stuck], socket_path))
    await stuck.stage.wait("stuck")
    starting.cancel()
    while "Stuck is cancelled" not in told:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)
    stuck.stage.reach("may go on")
    with pytest.raises(asyncio.CancelledError):
        await starting
    ends = ["Stuck is cancelled", "Stuck ends", "Vault ends"]
    assert told == ["Vault begins", "Stuck begins", *ends]
    assert os.listdir(socket_path.parent) == []


async def _serving(services: list[seqrpc.Service], path: Path, **limits: float) -> seqrpc.Server:
    return await seqrpc.serve(services, path, limits=seqrpc.Limits(**limits))  # type: ignore[arg-type]


async def test_what_it_raises_at_the_end_keeps_no_other_from_ending(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Breaking(Broken):
        pass

    told: list[str] = []
    server = await seqrpc.serve([Vault(told), Broken(told), Breaking(told)], socket_path)
    for use in (server.close, server.drain, server.wait_closed, server.close):
        with pytest.raises(OSError, match="the disk is full"):
            await use()
    assert told[3:] == ["Breaking ends", "Broken ends", "Vault ends"]
    assert not exists(socket_path)
    failures = [record.getMessage() for record in caplog.records]
    assert failures == ["! the lifespan of Breaking failed", "! the lifespan of Broken failed"]
    assert "OSError: the disk is full" in caplog.text


async def test_what_the_block_raises_is_not_thrown_into_it(socket_path: Path) -> None:
    class Careless(Vault):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            self.tell("begins")
            yield
            self.tell("ends")

    careless = Careless()
    with pytest.raises(KeyError):
        async with seqrpc.serve(careless, socket_path):
            raise KeyError
    assert careless.told == ["Careless begins", "Careless ends"]


async def test_the_ends_have_a_bound_and_those_after_have_their_time(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    stuck, stubborn = Stuck(told), type("Stubborn", (Stuck,), {})(told)
    stubborn.is_stubborn = True
    server = await _serving([Vault(told), stuck, stubborn], socket_path, lifespan_timeout=0.05, close_timeout=0.06)
    async with asyncio.timeout(PATIENCE / 4):  # the stage would let them go on for longer
        await server.close()
    assert told[3:] == ["Stubborn is cancelled", "Stuck is cancelled", "Stuck ends", "Vault ends"]
    assert [record.getMessage() for record in caplog.records] == [
        "= the lifespan of Stubborn has not ended within 0.06 s; it is cancelled",
        "= the lifespan of Stubborn is still running 0.06 s after it was cancelled; it is not waited for",
        "= the lifespan of Stuck has not ended within 0.06 s; it is cancelled",
    ]
    left = asyncio.all_tasks() - {asyncio.current_task()}
    stubborn.stage.reach("may go on")
    await asyncio.gather(*left, return_exceptions=True)


async def test_who_closes_and_is_cancelled_leaves_it_all_the_same(socket_path: Path) -> None:
    stuck = Stuck()
    server = await seqrpc.serve(stuck, socket_path)
    closing = asyncio.ensure_future(server.close())
    await stuck.stage.wait("stuck")
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    waiting = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0)
    assert not waiting.done()
    stuck.stage.reach("may go on")
    await waiting
    assert stuck.told == ["Stuck begins", "Stuck ends"]


async def test_one_that_ends_by_itself_closes_the_server(socket_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    group, vault = Group(told), Vault(told)
    server = await seqrpc.serve([group, vault], socket_path)
    async with seqrpc.connect(socket_path) as connection:
        working = asyncio.ensure_future(connection.call("Vault.work"))
        await vault.stage.wait("works")
        group.stage.reach("fails")
        with pytest.raises(ExceptionGroup) as caught:
            await server.wait_closed()
        assert caught.value.exceptions == (group.reason,)
        with pytest.raises((seqrpc.ConnectionLost, seqrpc.Cancelled)):
            await working
    assert told[3:] == ["Group ends", "Vault was cancelled", "Vault ends"]
    assert "the lifespan of Group ended before its server, which is closed" in caplog.text
    assert not exists(socket_path)
    with pytest.raises(ExceptionGroup):
        await server.close()


async def test_one_that_ends_without_a_failure_closes_the_server_too(socket_path: Path) -> None:
    class Short(Vault):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            with contextlib.suppress(TimeoutError):
                async with super().lifespan(), asyncio.timeout(0.01):
                    yield

    short = Short()
    async with seqrpc.serve(short, socket_path) as server, asyncio.timeout(PATIENCE):
        await server.wait_closed()
    assert short.told == ["Short begins", "Short ends"]


async def test_one_that_fails_while_it_is_being_closed_ends_once(socket_path: Path) -> None:
    class Slow(Group):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            try:
                async with super().lifespan():
                    yield
            finally:
                self.stage.reach("stuck")
                await self.stage.wait("may go on")

    slow = Slow()
    server = await seqrpc.serve(slow, socket_path)
    slow.stage.reach("fails")
    await slow.stage.wait("stuck")
    closing = asyncio.ensure_future(server.close())
    await asyncio.sleep(0)
    slow.stage.reach("may go on")
    with pytest.raises(ExceptionGroup):
        await closing
    assert slow.told == ["Slow begins", "Slow ends"]


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_one_that_ends_before_the_others_have_begun_is_a_failed_start(
    is_cancelled: bool, socket_path: Path
) -> None:
    told: list[str] = []
    group, stuck = Group(told), Stuck(told)
    stuck.at = "the start"
    starting = asyncio.ensure_future(_serving([group, stuck], socket_path))
    await stuck.stage.wait("stuck")
    if is_cancelled:
        (task,) = set(group.tasks)
        assert isinstance(task, asyncio.Task)
        task.cancel()
        with pytest.raises(RuntimeError, match="the lifespan of Group ended before the server began"):
            await starting
    else:
        group.stage.reach("fails")
        with pytest.raises(ExceptionGroup):
            await starting
    assert sorted(told[2:]) == ["Group ends", "Stuck ends", "Stuck is cancelled"]
    assert os.listdir(socket_path.parent) == []


async def test_an_object_at_two_addresses_has_two_lives(socket_path: Path) -> None:
    vault = Vault()
    async with seqrpc.serve(vault, socket_path):
        async with seqrpc.serve(vault, socket_path.with_name("other.sock")):
            assert vault.told == ["Vault begins"] * 2
        assert vault.told == ["Vault begins"] * 2 + ["Vault ends"]
    assert vault.told == ["Vault begins"] * 2 + ["Vault ends"] * 2


async def test_a_forked_child_does_not_leave_it(socket_path: Path) -> None:
    vault = Vault()
    async with seqrpc.serve(vault, socket_path) as server:

        def use() -> list[str]:
            asyncio.run(server.close())
            gc.collect()
            return vault.told

        assert in_child(use) == ["Vault begins"]
        assert vault.told == ["Vault begins"]
    assert vault.told == ["Vault begins", "Vault ends"]


@pytest.mark.parametrize("how", ["close", "drain", "wait_closed"])
async def test_a_task_that_it_started_may_close_the_server(how: str, socket_path: Path) -> None:
    class Closing(Vault):
        server: seqrpc.Server

        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            async with super().lifespan(), asyncio.TaskGroup() as group:
                group.create_task(self.watch())
                yield

        async def watch(self) -> None:
            await self.stage.wait("closes")
            await getattr(self.server, how)()
            self.tell("has closed")

    closing = Closing()
    limits = seqrpc.Limits(drain_timeout=0.05)
    async with seqrpc.serve(closing, socket_path, limits=limits) as server, seqrpc.connect(socket_path) as connection:
        closing.server = server
        working = asyncio.ensure_future(connection.call("Closing.work"))
        await closing.stage.wait("works")
        closing.stage.reach("closes")
        async with asyncio.timeout(PATIENCE):
            if how == "wait_closed":
                await server.close()
            await server.wait_closed()
        with pytest.raises((seqrpc.ConnectionLost, seqrpc.Cancelled)):
            await working
    assert closing.told[2:] == ["Closing was cancelled", "Closing has closed", "Closing ends"]


async def test_one_that_is_cancelled_closes_the_server_after_a_moment(socket_path: Path) -> None:
    vault = Vault()
    async with seqrpc.serve(vault, socket_path) as server, asyncio.timeout(PATIENCE):
        (task,) = vault.tasks
        assert isinstance(task, asyncio.Task)
        task.cancel()
        await server.wait_closed()
    assert vault.told == ["Vault begins", "Vault ends"]


async def test_one_that_is_cancelled_and_closed_in_that_moment_is_closed_once(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vault = Vault()
    async with seqrpc.serve(vault, socket_path):
        (task,) = vault.tasks
        assert isinstance(task, asyncio.Task)
        task.cancel()
        await asyncio.wait([task])
    await asyncio.sleep(2 * CANCEL_GRACE)  # its timer is nobody's to wait for
    assert caplog.text == ""


FORGETFUL = """
import asyncio, contextlib, gc, sys
import seqrpc

class Vault(seqrpc.Service):
    @contextlib.asynccontextmanager
    async def lifespan(self):
        try:
            yield
        finally:
            await asyncio.sleep(0)
            print("ends")

async def main():
    return await seqrpc.serve(Vault(), sys.argv[1])

server = asyncio.run(main())
del server
gc.collect()
"""


def test_a_loop_that_ends_before_the_server_leaves_it_and_no_task(socket_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORGETFUL, socket_path], capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"ends\n", b"")
