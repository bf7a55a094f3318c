"""Who watches hears of each call, of no other than those that were asked for, and costs nobody anything otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import pytest
from support.daemons import Stage, as_user, needs_root
from support.processes import OTHER_UID
from support.waiting import comes_true

import seqrpc
from seqrpc.aio import watching
from seqrpc.aio.server import hub_of
from seqrpc.interface.tallies import Tallies
from seqrpc.oversight import CallEvent, Monitor, Statistics


class Oops(seqrpc.RpcError, code="watched.Oops"):
    pass


class Lamp(seqrpc.Service):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @seqrpc.method
    async def turn(self, on: bool) -> bool:
        return on

    @seqrpc.method
    async def hold(self) -> None:
        self.stage.reach("held")
        await self.stage.wait("go")


class Work(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def add(self, a: int, b: int = 1) -> int:
        return a + b

    @seqrpc.method
    async def fail(self) -> None:
        raise Oops("no")

    @seqrpc.method(oneway=True)
    async def drop(self) -> None:
        pass

    @seqrpc.method
    async def hold(self) -> None:
        self.stage.reach("held")
        await self.stage.wait("go")

    @seqrpc.method
    async def lamp(self) -> Lamp:
        return Lamp(self.stage)

    @seqrpc.method
    async def count(self, end: int) -> AsyncIterator[int]:
        for number in range(end):
            yield number

    @seqrpc.method
    def plain(self, text: str) -> str:
        return text

    @seqrpc.method(allow=seqrpc.policy.uid(12_345))
    async def secret(self) -> None:
        pass


class Shown(seqrpc.Service, show_arguments=True):
    @seqrpc.method
    async def open(self, user: str, password: Annotated[str, seqrpc.SENSITIVE]) -> None:
        """Take something secret."""

    @seqrpc.method
    async def empty(self, numbers: Any) -> None:
        """Change what it was given."""
        numbers.clear()


class Watcher:
    """Hears of calls."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.first: asyncio.Future[CallEvent] | None = asyncio.ensure_future(anext(stream))

    async def next(self) -> CallEvent:
        first, self.first = self.first, None
        event: CallEvent = await (first or anext(self.stream))
        return event

    async def close(self) -> None:
        if self.first is not None:
            self.first.cancel()
            await asyncio.wait([self.first])
        self.stream.close()


@contextlib.asynccontextmanager
async def watched(
    server: seqrpc.Server, connection: seqrpc.Connection, *args: Any, **kwargs: Any
) -> AsyncIterator[Watcher]:
    """Yield a watcher that watches."""
    before = number_of(hub_of(server).watches)
    watcher = Watcher(connection.proxy(Monitor).monitor(*args, **kwargs))
    try:
        await comes_true(lambda: number_of(hub_of(server).watches) == before + 1)
        yield watcher
    finally:
        await watcher.close()


def number_of(watches: watching.Watches) -> int:
    return len(watches._watches)


async def test_each_kind_of_ending_is_told(socket_path: Path) -> None:
    work = Work()
    async with (
        seqrpc.serve(work, socket_path) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        proxy = connection.proxy(Work)
        lamp = await proxy.lamp()  # it is there before anybody watches
        async with seqrpc.connect(socket_path) as other:
            watcher = await stack.enter_async_context(watched(server, other))
            before = time.monotonic()
            assert await proxy.add(2) == 3
            event = await watcher.next()
            assert (event.method, event.code, event.refused, event.oneway, event.arguments, event.missed) == (
                *("Work.add", None, False, False, None),
                0,
            )
            assert (event.uid, event.gid, event.pid) == (os.getuid(), os.getgid(), os.getpid())
            assert before < event.began < time.monotonic()
            assert 0 < event.duration < 60
            with pytest.raises(Oops):
                await proxy.fail()
            assert (await watcher.next()).code == "watched.Oops"
            with pytest.raises(seqrpc.InvalidParams):
                await connection.call("Work.add", "two")
            event = await watcher.next()
            assert (event.method, event.code, event.refused, event.duration) == (
                *("Work.add", "rpc.InvalidParams"),
                True,
                0.0,
            )
            with pytest.raises(seqrpc.PermissionDenied):
                await proxy.secret()
            event = await watcher.next()
            assert (event.method, event.code, event.refused) == ("Work.secret", "rpc.PermissionDenied", True)
            with pytest.raises(seqrpc.MethodNotFound):
                await connection.call("Work." + "x" * 1_000)
            event = await watcher.next()
            assert event.method is not None
            assert (len(event.method), event.code) == (201, "rpc.MethodNotFound")
            await connection.notify("Work.drop")
            event = await watcher.next()
            assert (event.method, event.oneway, event.code) == ("Work.drop", True, None)
            await connection.call("rpc.ping")
            event = await watcher.next()
            assert (event.method, event.code, event.refused, event.duration) == ("rpc.ping", None, False, 0.0)
            assert [number async for number in proxy.count(3)] == [0, 1, 2]
            assert (await watcher.next()).method == "Work.count"
            assert await proxy.plain("a") == "a"
            assert (await watcher.next()).method == "Work.plain"
            assert await lamp.turn(on=True)
            assert (await watcher.next()).method == "Lamp.turn"
            async with await proxy.lamp() as later:
                assert (await watcher.next()).method == "Work.lamp"
                await later.turn(on=False)
                assert (await watcher.next()).method == "Lamp.turn"
            holding = asyncio.ensure_future(proxy.hold())
            await work.stage.wait("held")
            holding.cancel()
            event = await watcher.next()
            assert (event.method, event.code, event.refused) == ("Work.hold", "rpc.Cancelled", False)


async def test_a_call_that_ran_before_is_told_and_connections_made_later_are_watched(socket_path: Path) -> None:
    work = Work()
    async with (
        seqrpc.serve(work, socket_path) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        holding = asyncio.ensure_future(connection.call("Work.hold"))
        await work.stage.wait("held")
        watcher = await stack.enter_async_context(watched(server, connection))
        work.stage.reach("go")
        await holding
        assert (await watcher.next()).method == "Work.hold"
        async with seqrpc.connect(socket_path) as later:
            await later.call("Work.add", 1)
            assert (await watcher.next()).method == "Work.add"


async def test_only_what_was_asked_for_is_told(socket_path: Path) -> None:
    async with (
        seqrpc.serve([Work(), Shown()], socket_path) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        by_service = await stack.enter_async_context(watched(server, connection, ["Shown"]))
        by_method = await stack.enter_async_context(watched(server, connection, ["Work.fail", "Work.missing"]))
        by_user = await stack.enter_async_context(watched(server, connection, uid=os.getuid() + 1))
        await connection.call("Work.add", 1)
        await connection.call("Shown.open", "anna", "hunter2")
        with pytest.raises(Oops):
            await connection.proxy(Work).fail()
        with pytest.raises(seqrpc.MethodNotFound):
            await connection.call("Work.missing")
        assert (await by_service.next()).method == "Shown.open"
        assert [(await by_method.next()).method for _ in range(2)] == ["Work.fail", "Work.missing"]
        await by_user.close()


async def test_arguments_are_told_of_services_that_allow_it_without_what_is_sensitive(socket_path: Path) -> None:
    async with (
        seqrpc.serve([Work(), Shown()], socket_path) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        watcher = await stack.enter_async_context(watched(server, connection))
        await connection.call("Shown.open", "anna", "hunter2")
        await connection.call("Shown.open", user="ben", password="hunter3")
        await connection.call("Work.plain", "secret")
        with pytest.raises(seqrpc.InvalidParams):
            await connection.call("Shown.open", "anna", ["hunter2"])
        await connection.call("Shown.empty", [1, 2])
        assert [(await watcher.next()).arguments for _ in range(5)] == [
            "user='anna', password=...",
            "user='ben', password=...",
            None,
            None,  # nobody knows what those were
            "numbers=[]",  # as the handler left it
        ]


async def test_classes_inherit_whether_arguments_are_told(socket_path: Path) -> None:
    class Below(Shown):
        pass

    class Quiet(Shown, show_arguments=False):
        pass

    async with (
        seqrpc.serve([Below(), Quiet()], socket_path) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        watcher = await stack.enter_async_context(watched(server, connection))
        await connection.call("Below.empty", [])
        await connection.call("Quiet.empty", [])
        assert [(await watcher.next()).arguments for _ in range(2)] == ["numbers=[]", None]


async def test_who_does_not_keep_up_is_told_how_many_were_missed() -> None:
    tallies = Tallies()
    watches = watching.Watches(tallies, list)
    slow, quick = watches.begin((), None), watches.begin((), None)
    for number in range(watching._MOST_WAITING + 5):
        tallies.refuse(f"Work.m{number}", "rpc.MethodNotFound")
        assert (await quick.next()) is not None
    first = await slow.next()
    assert first is not None
    assert (first.method, first.missed) == ("Work.m0", 0)
    tallies.refuse(None, "rpc.TooLarge")
    events = [await slow.next() for _ in range(watching._MOST_WAITING)]
    assert [event.missed for event in events if event is not None] == [0] * (watching._MOST_WAITING - 1) + [5]
    assert events[-1] is not None
    assert events[-1].method is None
    quick_event = await quick.next()
    assert quick_event is not None
    assert quick_event.missed == 0


async def test_nothing_is_told_or_looked_at_once_nobody_watches(socket_path: Path) -> None:
    async with (
        seqrpc.serve(Work(), socket_path) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        hub = hub_of(server)
        tallies = hub.oversight._tallies
        assert tallies.watching is None
        one, two = (
            await stack.enter_async_context(watched(server, connection)),
            await stack.enter_async_context(watched(server, connection)),
        )
        (dispatcher,) = hub.dispatchers.values()
        assert dispatcher.running.is_attended
        await one.close()
        await comes_true(lambda: number_of(hub.watches) == 1)
        await connection.call("Work.add", 1)
        assert (await two.next()).method == "Work.add"
        assert dispatcher.running.is_attended
        await two.close()
        await comes_true(lambda: tallies.watching is None)
        await connection.call("Work.add", 1)
        await comes_true(lambda: not dispatcher.running.is_attended)
        await connection.call("rpc.ping")


async def test_a_watcher_that_is_killed_is_forgotten(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        program = "import sys, seqrpc.blocking as b; [*b.connect(sys.argv[1]).__enter__().call('rpc.monitor')]"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, socket_path)
        await comes_true(lambda: number_of(hub_of(server).watches) == 1)
        process.kill()
        await process.wait()
        await comes_true(lambda: number_of(hub_of(server).watches) == 0)


async def test_a_drain_waits_for_calls_and_not_for_watchers(socket_path: Path) -> None:
    work = Work()
    limits = seqrpc.Limits(close_timeout=60.0)
    async with (
        seqrpc.serve(work, socket_path, limits=limits) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        watcher = await stack.enter_async_context(watched(server, connection))
        holding = asyncio.ensure_future(connection.call("Work.hold"))
        await work.stage.wait("held")
        draining = asyncio.ensure_future(server.drain(60.0))
        work.stage.reach("go")
        await holding
        async with asyncio.timeout(30):  # close_timeout is twice that
            assert await draining
        assert (await watcher.next()).method == "Work.hold"
        with pytest.raises(StopAsyncIteration):
            await watcher.next()
        late = hub_of(server).watches.begin((), None)
        assert await late.next() is None
        late.close()


async def test_a_drain_does_not_wait_for_a_watcher_that_reads_no_more(socket_path: Path) -> None:
    async with (
        seqrpc.serve(Work(), socket_path, limits=seqrpc.Limits(close_timeout=0.05)) as server,
        seqrpc.connect(socket_path) as connection,
        seqrpc.connect(socket_path) as other,
    ):
        stream = await other.call("rpc.monitor")
        (watch,) = hub_of(server).watches._watches
        while not (watch.stream is not None and watch.stream.waits and len(watch._waiting) > 10):
            await connection.call("Work.add", 1)
        async with asyncio.timeout(30):
            assert await server.drain(60.0)
        with pytest.raises((seqrpc.Unavailable, seqrpc.ConnectionLost)):
            async for _event in stream:
                pass


async def test_a_watcher_costs_a_stop_nothing_either(socket_path: Path) -> None:
    async with (
        seqrpc.serve(Work(), socket_path) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        watcher = await stack.enter_async_context(watched(server, connection))
        await server.close()
        with pytest.raises((StopAsyncIteration, seqrpc.Unavailable, seqrpc.ConnectionLost)):
            await watcher.next()


async def test_too_many_names_are_refused(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path), seqrpc.connect(socket_path) as connection:
        with pytest.raises(seqrpc.InvalidParams, match="1000"):
            await anext(connection.proxy(Monitor).monitor(["x"] * 1_001))


async def test_too_many_watchers_are_refused_until_one_has_gone(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_MOST_WATCHERS", 2)
    async with (
        seqrpc.serve(Work(), socket_path) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        one, _two = [await stack.enter_async_context(watched(server, connection)) for _ in range(2)]
        with pytest.raises(seqrpc.Overloaded, match="2 watch this server already"):
            await anext(connection.proxy(Monitor).monitor())
        await one.close()
        await comes_true(lambda: number_of(hub_of(server).watches) == 1)
        await stack.enter_async_context(watched(server, connection))


@needs_root
async def test_another_user_may_not_watch_and_is_watched(socket_path: Path) -> None:
    socket_path.parent.chmod(0o755)
    async with (
        seqrpc.serve(Work(), socket_path, mode=0o666, allow=seqrpc.policy.anyone) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        watcher = await stack.enter_async_context(watched(server, connection, uid=OTHER_UID))
        program = "show([ask(connected(argv[0]), 0, 1, name, [])[0] for name in ('rpc.monitor', 'Work.none')])"
        told = await as_user(program, socket_path, uid=OTHER_UID)
        assert [error[0] for error in told] == ["rpc.PermissionDenied", "rpc.MethodNotFound"]
        events = [await watcher.next() for _ in range(2)]
        assert [(event.method, event.uid, event.code) for event in events] == [
            ("rpc.monitor", OTHER_UID, "rpc.PermissionDenied"),
            ("Work.none", OTHER_UID, "rpc.MethodNotFound"),
        ]
        assert number_of(hub_of(server).watches) == 1


async def test_statistics_and_the_monitor_count_alike(socket_path: Path) -> None:
    async with (
        seqrpc.serve(Work(), socket_path) as server,
        seqrpc.connect(socket_path) as connection,
        AsyncExitStack() as stack,
    ):
        watcher = await stack.enter_async_context(watched(server, connection, ["Work"]))
        for _ in range(5):
            await connection.call("Work.add", 1)
        events = [await watcher.next() for _ in range(5)]
        tally = (await connection.proxy(Statistics).stats()).methods["Work.add"]
        assert tally.seconds == pytest.approx(sum(event.duration for event in events))
