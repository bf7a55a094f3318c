"""Who waits for a slot, or a thread, that only he himself could free: an answer comes, and all are well afterwards."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from support.daemons import Stage, on_a_pair
from support.waiting import PATIENCE

import seqrpc
from seqrpc.aio.connection import link_of

STALL_TIMEOUT = 0.2

LIMITS = seqrpc.Limits(max_calls_in_flight=4, stall_timeout=STALL_TIMEOUT)


class Mirror(seqrpc.Service):
    """Calls back whoever calls it, so many times deep."""

    def __init__(self) -> None:
        self.caller: seqrpc.Connection | None = None
        self.stage = Stage()

    @seqrpc.method
    async def reflect(self, depth: int) -> int:
        self.caller = seqrpc.current_call().connection
        if depth == 0:
            return 0
        return 1 + int(await self.caller.call("Mirror.reflect", depth - 1))

    @seqrpc.method
    async def stay(self) -> str:
        self.stage.reach("stays")
        await self.stage.wait("may go")
        return "went"

    @seqrpc.method
    async def pass_by(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def assert_nothing_is_owed(*connections: seqrpc.Connection | None) -> None:
    for connection in connections:
        assert connection is not None
        session = link_of(connection).session
        assert (session.calls, session.given_up, session.requests) == ({}, set(), {})
        assert link_of(connection).caller.turns.waiting == 0
        watch = link_of(connection).caller.turns._watch
        assert watch is None or watch._timer is None


@pytest.mark.parametrize("first", ["client", "server"])
async def test_two_sides_that_call_each_other_deeper_than_they_have_slots_get_an_answer(
    first: str, caplog: pytest.LogCaptureFixture
) -> None:
    served, offered = Mirror(), Mirror()
    async with on_a_pair(served, client=[offered], limits=LIMITS, client_limits=LIMITS) as connection:
        assert await connection.call("Mirror.reflect", 7) == 7
        theirs = served.caller
        assert theirs is not None
        caller = connection if first == "client" else theirs
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(seqrpc.Internal):  # a handler in the middle did not expect what it got
                await caller.call("Mirror.reflect", 12)
        text = "4 calls of this connection are unanswered (max_calls_in_flight), and no answer came for 0.2 s"
        assert text in caplog.text
        assert_nothing_is_owed(connection, theirs)
        for one in (connection, theirs):
            assert await one.call("Mirror.reflect", 7) == 7
        assert_nothing_is_owed(connection, theirs)


async def test_twelve_at_once_that_call_back_are_all_answered() -> None:
    served, offered = Mirror(), Mirror()
    async with on_a_pair(served, client=[offered], limits=LIMITS, client_limits=LIMITS) as connection:
        async with asyncio.timeout(PATIENCE):
            calls = [connection.call("Mirror.reflect", 3) for _ in range(12)]
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} <= {int, seqrpc.Internal, seqrpc.Overloaded}
        assert seqrpc.Overloaded in {type(result) for result in results}, "the inputs of this test make no circle"
        assert_nothing_is_owed(connection, served.caller)
        assert await asyncio.gather(*[connection.call("Mirror.reflect", 1) for _ in range(12)]) == [1] * 12


async def test_calls_and_notifications_beyond_those_that_are_never_answered_are_overloaded() -> None:
    served = Mirror()
    async with on_a_pair(served, client_limits=LIMITS) as connection:
        staying = [asyncio.ensure_future(connection.call("Mirror.stay")) for _ in range(4)]
        await served.stage.wait("stays")
        async with asyncio.timeout(PATIENCE):
            results = await asyncio.gather(
                connection.call("Mirror.reflect", 0), connection.notify("Mirror.stay"), return_exceptions=True
            )
        for result in results:
            assert isinstance(result, seqrpc.Overloaded)
            assert result.remote
            assert "4 calls of this connection are unanswered" in str(result)
            assert "0.2 s (stall_timeout)" in str(result)
        served.stage.reach("may go")
        assert await asyncio.gather(*staying) == ["went"] * 4
        assert_nothing_is_owed(connection)


async def test_a_line_of_calls_that_moves_slowly_is_not_refused() -> None:
    limits = seqrpc.Limits(max_calls_in_flight=1, stall_timeout=0.5)
    async with on_a_pair(Mirror(), client_limits=limits) as connection:
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*[connection.call("Mirror.pass_by", 0.1) for _ in range(8)])
        assert asyncio.get_running_loop().time() - began > 0.75


class Blocking(seqrpc.Service):
    """Plain functions, some of which call others of their own server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused: list[seqrpc.RpcError] = []
        self.told: list[int] = []
        self.threads = threading.Barrier(14)  # what one user may have of max_threads
        self.all_busy = threading.Event()

    @seqrpc.method
    def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    def add_by_a_call(self, a: int, b: int) -> int:
        async def call() -> Any:
            async with seqrpc.connect(self.path) as connection:
                return await connection.call("Blocking.add", a, b)

        if not self.all_busy.is_set():
            self.threads.wait(PATIENCE)
            self.all_busy.set()
        try:
            return int(asyncio.run(call()))
        except seqrpc.RpcError as exc:
            self.refused.append(exc)
            raise

    @seqrpc.method(oneway=True)
    def tell(self, number: int) -> None:
        self.told.append(number)


async def test_plain_functions_that_call_plain_functions_of_their_own_server_leave_it_well(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Blocking(socket_path)
    limits = seqrpc.Limits(stall_timeout=STALL_TIMEOUT)
    before = set(threading.enumerate())
    async with seqrpc.serve(service, socket_path, limits=limits), seqrpc.connect(socket_path) as connection:
        async with asyncio.timeout(PATIENCE):
            calls = [connection.call("Blocking.add_by_a_call", 1, number) for number in range(20)]
            results = await asyncio.gather(*calls, return_exceptions=True)
        for number, result in enumerate(results):
            assert result == 1 + number or isinstance(result, (seqrpc.Overloaded, seqrpc.Internal))
        assert service.refused, "the inputs of this test make no circle"
        for exc in service.refused:
            assert type(exc) is seqrpc.Overloaded
            assert "all 14 threads that one user may have are busy (max_threads), and none came free for 0.2" in str(
                exc
            )
        assert "of plain functions are refused or dropped" in caplog.text
        assert_nothing_is_owed(connection)
        threads = {thread for thread in threading.enumerate() if thread.name.startswith("seqrpc")} - before
        assert len(threads) == 14
        assert await asyncio.gather(*[connection.call("Blocking.add", 1, number) for number in range(40)]) == [
            1 + number for number in range(40)
        ]
        assert await connection.call("Blocking.add_by_a_call", 1, 2) == 3
