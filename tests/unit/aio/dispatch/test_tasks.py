"""A handler's task is its own, and what goes wrong in answering costs one call only."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import on_a_pair
from support.waiting import PATIENCE

import seqrpc
from seqrpc import OwnedFd
from seqrpc.aio.connection import link_of
from seqrpc.aio.link import Link
from seqrpc.aio.transport import carrier_of

ENDED: list[asyncio.Task[Any]] = []


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class Reading:
    """What a lane does, without one."""

    def __init__(self, link: Link) -> None:
        self._intake = carrier_of(link.transport).intake

    def ready(self) -> None:
        self._intake._read_ready()


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
        self.connections: list[seqrpc.Connection] = []

    @seqrpc.method
    async def keep(self) -> None:
        self.kept.append(this_task())
        self.connections.append(seqrpc.current_call().connection)

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


async def test_each_handler_has_a_task_of_its_own() -> None:
    service = Tasks()
    async with on_a_pair(service) as connection:
        for _ in range(5):
            await connection.call("Tasks.keep")
        assert len(set(map(id, service.kept))) == 5


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


async def test_a_packet_that_is_read_within_a_task_has_a_task_of_its_own(socket_path: Path) -> None:
    service = Tasks()
    async with seqrpc.serve(service, socket_path), seqrpc.connect(socket_path) as connection:
        await connection.call("Tasks.keep")
        link = link_of(service.connections[0])
        link_of(connection).transport.get_extra_info("socket").send(msgpack.packb([0, 1000, "Tasks.keep", []]))
        here = this_task()
        (link.lane or Reading(link)).ready()
        assert (len(service.kept), this_task()) == (2, here)
        assert service.kept[1] is not here
        assert await connection.call("Tasks.value", "goes on") == "goes on"


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


class Owners(seqrpc.Service):
    """Leaves something on its task, and looks at what others left."""

    @seqrpc.method
    async def leave(self, who: str, waits: bool) -> list[Any]:
        task: Any = this_task()
        if waits:
            await asyncio.sleep(0)
        seen = [task.get_name(), getattr(task, "user", None), task.cancelling(), word.get()]
        word.set(who)
        task.set_name(who)
        with contextlib.suppress(AttributeError):  # tasks of C take no attributes, except those of a subclass
            task.user = who
        task.cancel()
        task.uncancel()
        return seen

    @seqrpc.method
    async def wait(self) -> str:
        await asyncio.sleep(0)
        return "done"

    @seqrpc.method
    async def group(self) -> str:
        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(self.fail())
        return "done"

    async def fail(self) -> None:
        raise ValueError

    @seqrpc.method
    async def closed(self, waits: bool) -> None:
        if waits:
            await asyncio.sleep(0)
        raise GeneratorExit

    @seqrpc.method
    async def exits(self) -> str:
        return "done"

    @seqrpc.method(oneway=True)
    async def hold(self, fd: OwnedFd) -> None:
        raise AssertionError("its task could not be made")


word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="nobody's")


class Mine(asyncio.Task[Any]):
    """A task that takes attributes, as any made by a factory of one's own."""


@pytest.fixture(params=["asyncio's", "one's own"])
def tasks(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Return what sets the running loop's task factory."""

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None, **kwargs: Any) -> Any:
        return Mine(coro, loop=loop, context=context)

    def install() -> None:
        if request.param == "one's own":
            asyncio.get_running_loop().set_task_factory(factory)

    return install


@pytest.mark.parametrize("waits", [False, True])
async def test_nothing_that_a_handler_leaves_on_its_task_is_another_caller_s(
    waits: bool, tasks: Callable[[], None], socket_path: Path
) -> None:
    tasks()
    async with (
        seqrpc.serve(Owners(), socket_path) as server,
        seqrpc.connect(socket_path) as ann,
        seqrpc.connect(socket_path) as bob,
    ):
        seen = [await who.call("Owners.leave", name, waits) for who, name in ((ann, "ann"), (bob, "bob"), (ann, "cat"))]
        assert [rest for _name, *rest in seen] == [[None, 0, "nobody's"]] * 3
        assert {"ann", "bob", "cat"}.isdisjoint([name for name, *_rest in seen])
        assert await asyncio.wait_for(ann.call("Owners.group"), PATIENCE) == "done"
        for who in (bob, ann, bob):
            assert await asyncio.wait_for(who.call("Owners.wait"), PATIENCE) == "done"
        assert await asyncio.wait_for(server.drain(), PATIENCE)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_handler_that_raises_generator_exit_is_answered(waits: bool, tasks: Callable[[], None]) -> None:
    tasks()
    async with on_a_pair(Owners()) as connection:
        for _ in range(2):
            with pytest.raises(seqrpc.Internal):
                await asyncio.wait_for(connection.call("Owners.closed", waits), PATIENCE)
        assert await connection.call("Owners.exits") == "done"


async def test_a_call_whose_task_is_cancelled_before_it_begins_is_answered(pipe: tuple[int, int]) -> None:
    """As anybody may who looks at all tasks; what came with it is closed."""
    loop = asyncio.get_running_loop()

    def cancelling(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None, **kwargs: Any) -> Any:
        task = asyncio.Task(coro, loop=loop, context=context)
        if "Dispatcher._run" in repr(coro):
            task.cancel()
        return task

    async with on_a_pair(Owners()) as connection:
        loop.set_task_factory(cancelling)
        try:
            for method, arguments in (("Owners.exits", ()), ("Owners.leave", ("x", False))):
                with pytest.raises(seqrpc.Cancelled):
                    await asyncio.wait_for(connection.call(method, *arguments), PATIENCE)
        finally:
            loop.set_task_factory(None)
        assert await connection.call("Owners.exits") == "done"


@pytest.mark.parametrize("kind", [MemoryError, asyncio.CancelledError])
async def test_a_task_factory_that_fails_costs_its_call_only(kind: type[BaseException]) -> None:
    loop = asyncio.get_running_loop()

    def failing(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None, **kwargs: Any) -> Any:
        if "Dispatcher._run" in repr(coro):
            raise kind
        return asyncio.Task(coro, loop=loop, context=context)

    async with on_a_pair(Owners()) as connection:
        loop.set_task_factory(failing)
        try:
            with pytest.raises(seqrpc.Internal):
                await asyncio.wait_for(connection.call("Owners.exits"), PATIENCE)
        finally:
            loop.set_task_factory(None)
        assert await connection.call("Owners.exits") == "done"


async def test_a_one_way_call_whose_task_cannot_be_made_leaves_nothing_that_a_drain_waits_for(
    socket_path: Path, pipe: tuple[int, int]
) -> None:
    loop = asyncio.get_running_loop()

    def failing(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None, **kwargs: Any) -> Any:
        if "Dispatcher._run" in repr(coro):
            raise MemoryError
        return asyncio.Task(coro, loop=loop, context=context)

    async with seqrpc.serve(Owners(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        loop.set_task_factory(failing)
        try:
            with OwnedFd.dup(pipe[0]) as fd:
                await connection.notify("Owners.hold", fd)
            await connection.call("rpc.ping")  # which comes after it
        finally:
            loop.set_task_factory(None)
        async with asyncio.timeout(PATIENCE):
            assert await server.drain(PATIENCE)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has no eager tasks")
async def test_a_task_factory_that_fails_after_the_handler_began_leaves_the_answer_to_it() -> None:
    loop = asyncio.get_running_loop()
    kept = []

    def failing(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None, **kwargs: Any) -> Any:
        if "Dispatcher._run" not in repr(coro):
            return asyncio.Task(coro, loop=loop, context=context)
        kept.append(asyncio.Task(coro, loop=loop, context=context, eager_start=True))  # type: ignore[call-arg,unused-ignore]
        raise MemoryError

    async with on_a_pair(Owners()) as connection:
        loop.set_task_factory(failing)
        try:
            assert await asyncio.wait_for(connection.call("Owners.exits"), PATIENCE) == "done"
        finally:
            loop.set_task_factory(None)
        assert await connection.call("Owners.exits") == "done"
    assert len(kept) == 1


class Slow(seqrpc.Service):
    @seqrpc.method
    async def compute(self) -> None:
        until = time.perf_counter() + 0.02
        while time.perf_counter() < until:
            pass

    @seqrpc.method
    async def quick(self) -> int:
        return 1


async def test_many_calls_at_once_that_compute_let_others_be_served_in_between(socket_path: Path) -> None:
    async with (
        seqrpc.serve(Slow(), socket_path),
        seqrpc.connect(socket_path) as greedy,
        seqrpc.connect(socket_path) as other,
    ):
        calls = [asyncio.ensure_future(greedy.call("Slow.compute")) for _ in range(100)]
        for number in range(5):
            await other.call("Slow.quick")
            assert sum(call.done() for call in calls) < 20 * (number + 1)
        await asyncio.gather(*calls)


async def test_a_name_of_the_protocol_that_is_not_there_is_told_to_everybody() -> None:
    async with on_a_pair(Slow(), allow=~seqrpc.policy.anyone) as connection:
        for arguments in ((), ("x" * 1_000,)):
            with pytest.raises(seqrpc.MethodNotFound):
                await connection.call("rpc.nothing", *arguments)
            with pytest.raises(seqrpc.PermissionDenied):
                await connection.call("Slow.nothing", *arguments)
