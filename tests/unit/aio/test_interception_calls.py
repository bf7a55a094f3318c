"""Interceptors around the calls that this side makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.daemons import Stage, on_a_pair
from support.dispatch import open_count
from support.interceptors import Audit, Diary

import seqrpc
from seqrpc.aio.interceptors import Proceed


class Caller(seqrpc.Service):
    @seqrpc.method
    async def answer(self) -> int:
        return 7


class House(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()
        self.heard: list[dict[str, str]] = []

    @seqrpc.method
    async def meta(self) -> dict[str, str]:
        return dict(seqrpc.current_call().meta)

    @seqrpc.method
    async def deadline(self) -> float | None:
        return seqrpc.current_call().deadline

    @seqrpc.method
    async def flaky(self) -> int:
        self.heard.append({})
        if len(self.heard) < 3:
            raise seqrpc.Overloaded("come back later")
        return len(self.heard)

    @seqrpc.method(oneway=True)
    async def tell(self) -> None:
        self.heard.append(dict(seqrpc.current_call().meta))
        self.stage.reach("told")

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method
    async def room(self) -> Room:
        return Room()

    @seqrpc.method
    async def call_back(self) -> int:
        return await seqrpc.current_call().connection.proxy(Caller).answer()

    @seqrpc.method
    async def call_object(self, caller: Caller) -> int:
        return await caller.answer()

    @seqrpc.method
    async def file(self) -> seqrpc.OwnedFd:
        return seqrpc.OwnedFd.dup(0)

    @seqrpc.method
    async def wait(self) -> None:
        self.stage.reach("began")
        await self.stage.wait("never")


class Room(seqrpc.Service):
    @seqrpc.method
    async def look(self) -> int:
        return 5

    @seqrpc.method
    async def next(self) -> Room:
        return Room()


class Does(seqrpc.Interceptor):
    """Does what a test says."""

    def __init__(self, what: Callable[[seqrpc.OutgoingCall, Proceed], Any]) -> None:
        self.what = what

    async def request(self, call: seqrpc.OutgoingCall, proceed: Proceed) -> Any:
        return await self.what(call, proceed)


async def test_the_first_is_outermost_and_each_sees_the_outcome() -> None:
    lines: list[str] = []
    diaries = [Diary("outer", lines), Diary("inner", lines)]
    async with on_a_pair(House(), client_interceptors=diaries) as connection:
        assert await connection.proxy(House).deadline() is None
        with pytest.raises(seqrpc.MethodNotFound):
            await connection.call("House.nothing")
        with pytest.raises(seqrpc.InvalidResult):
            await connection.proxy(Wrong).file()
    assert lines == [
        *("outer > House.deadline", "inner > House.deadline", "inner < None", "outer < None"),
        *("outer > House.nothing", "inner > House.nothing", "inner ! MethodNotFound", "outer ! MethodNotFound"),
        *("outer > House.file", "inner > House.file", "inner ! InvalidResult", "outer ! InvalidResult"),
    ]


class Wrong(seqrpc.Service, name="House"):
    @seqrpc.method
    async def file(self) -> int:
        raise NotImplementedError


async def test_it_sends_metadata_along_which_the_next_one_sees() -> None:
    seen: list[dict[str, str]] = []

    async def trace(call: seqrpc.OutgoingCall, proceed: Proceed) -> Any:
        seen.append(dict(call.meta))
        with seqrpc.metadata(span=f"{call.method}-{len(seen)}"):
            return await proceed()

    house = House()
    async with on_a_pair(house, client_interceptors=[Does(trace), Does(trace)]) as connection:
        with seqrpc.metadata(request="1"):
            assert await connection.proxy(House).meta() == {"request": "1", "span": "House.meta-2"}
        assert await connection.call("House.meta") == {"span": "House.meta-4"}
        await connection.proxy(House).tell()
        await house.stage.wait("told")
    assert house.heard == [{"span": "House.tell-6"}]
    assert seen == [
        *({"request": "1"}, {"request": "1", "span": "House.meta-1"}),
        *({}, {"span": "House.meta-3"}),
        *({}, {"span": "House.tell-5"}),
    ]


async def test_it_sees_the_deadline_and_may_make_it_earlier() -> None:
    seen: list[float | None] = []

    async def bound(call: seqrpc.OutgoingCall, proceed: Proceed) -> Any:
        seen.append(call.deadline)
        async with seqrpc.timeout(60):
            return await proceed()

    async with on_a_pair(House(), client_interceptors=[Does(bound)]) as connection:
        now = time.monotonic()
        deadline = await connection.proxy(House).deadline()
        assert deadline is not None
        assert now < deadline < time.monotonic() + 61
        async with seqrpc.timeout(30):
            earlier = await connection.proxy(House).deadline()
    assert earlier is not None
    assert seen == [None, pytest.approx(earlier)]
    assert earlier < deadline


async def test_what_was_said_around_the_call_holds_where_it_is_awaited_elsewhere() -> None:
    lines: list[str] = []
    async with on_a_pair(House(), client_interceptors=[Diary("a", lines)]) as connection:
        with seqrpc.metadata(made="inside"):
            call = connection.proxy(House).meta()
        with seqrpc.metadata(made="elsewhere"):
            assert await call == {"made": "inside"}
            assert await connection.proxy(House).meta() == {"made": "elsewhere"}
        assert await connection.proxy(House).meta() == {}


async def test_it_may_call_again_replace_the_result_or_not_call_at_all() -> None:
    async def insist(call: seqrpc.OutgoingCall, proceed: Proceed) -> Any:
        if call.method == "House.deadline":
            return 5.0
        while True:
            try:
                return await proceed() * 100
            except seqrpc.Overloaded:
                await asyncio.sleep(0)

    house, audit = House(), Audit()
    async with on_a_pair(house, interceptors=[audit], client_interceptors=[Does(insist)]) as connection:
        assert await connection.proxy(House).flaky() == 300
        assert await connection.proxy(House).deadline() == 5.0
        await audit.wait(3)
    assert audit.seen == [*[("House.flaky", "rpc.Overloaded")] * 2, ("House.flaky", None)]


async def test_what_it_raises_is_what_the_caller_gets() -> None:
    async def fail(call: seqrpc.OutgoingCall, proceed: Proceed) -> Any:
        await proceed()
        raise KeyError(call.method)

    async with on_a_pair(House(), client_interceptors=[Does(fail)]) as connection:
        for use in (connection.proxy(House).meta, connection.proxy(House).tell, lambda: connection.call("House.meta")):
            with pytest.raises(KeyError, match="House"):
                await use()


async def test_a_call_that_is_given_up_is_cancelled_through_it() -> None:
    lines: list[str] = []
    house, audit = House(), Audit()
    async with on_a_pair(house, interceptors=[audit], client_interceptors=[Diary("a", lines)]) as connection:
        call = asyncio.ensure_future(connection.proxy(House).wait())
        await house.stage.wait("began")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await audit.wait(1)
    assert lines == ["a > House.wait", "a ! CancelledError"]
    assert audit.seen == [("House.wait", "rpc.Cancelled")]


async def test_it_surrounds_the_opening_of_streams_and_tells_one_way_calls() -> None:
    seen: list[tuple[str, bool, str]] = []

    async def look(call: seqrpc.OutgoingCall, proceed: Proceed) -> Any:
        result = await proceed()
        seen.append((call.method, call.oneway, type(result).__name__))
        return result

    house = House()
    async with on_a_pair(house, client_interceptors=[Does(look)]) as connection:
        assert [item async for item in connection.proxy(House).count(3)] == [0, 1, 2]
        await connection.notify("House.tell")
        await house.stage.wait("told")
    assert seen == [("House.count", False, "Stream"), ("House.tell", True, "NoneType")]


async def test_channels_that_came_over_it_are_surrounded_and_what_comes_over_those() -> None:
    lines: list[str] = []
    async with (
        on_a_pair(House(), client_interceptors=[Diary("a", lines)]) as connection,
        await connection.proxy(House).room() as room,
        await room.next() as further,
    ):
        assert await room.look() == 5
        assert await further.look() == 5
    assert [line for line in lines if ">" in line] == [
        *("a > House.room", "a > Room.next", "a > Room.look", "a > Room.look"),
    ]


async def test_a_server_s_calls_back_are_surrounded_too_and_those_of_objects_that_it_was_passed() -> None:
    lines: list[str] = []
    interceptors = [Diary("a", lines)]
    async with on_a_pair(House(), client=[Caller()], interceptors=interceptors) as connection:
        assert await connection.proxy(House).call_back() == 7
        assert await connection.proxy(House).call_object(Caller()) == 7
    assert lines == [
        *("a > House.call_back", "a > Caller.answer", "a < 7", "a < 7"),
        *("a > House.call_object", "a > Caller.answer", "a < 7", "a < 7"),
    ]


async def test_objects_that_a_client_passes_are_surrounded_at_its_side() -> None:
    audit = Audit()
    async with on_a_pair(House(), client_interceptors=[audit]) as connection:
        assert await connection.proxy(House).call_object(Caller()) == 7
        await audit.wait(1)
    assert audit.seen == [("Caller.answer", None)]


async def test_what_a_result_holds_is_the_interceptor_s_to_close_unless_it_returns_it() -> None:
    async def close(call: seqrpc.OutgoingCall, proceed: Proceed) -> Any:
        fd = await proceed()
        if call.meta:
            fd.close()
            return None
        return fd

    async with on_a_pair(House(), client_interceptors=[Does(close)]) as connection:
        before = open_count()
        with await connection.proxy(House).file() as fd:
            fd.fileno()
        with seqrpc.metadata(drop="it"):
            assert await connection.call("House.file") is None
        assert open_count() == before


async def test_a_call_that_is_thrown_away_somewhere_else_says_nothing() -> None:
    house = House()
    lines: list[str] = []
    async with on_a_pair(house, client_interceptors=[Diary("a", lines)]) as connection:
        call = connection.proxy(House).wait()

        async def begin() -> None:
            call.send(None)

        await asyncio.create_task(begin())  # its context is gone with it
        call.close()
    assert lines == ["a > House.wait", "a ! GeneratorExit"]
