"""Interceptors around handlers: their order, what they see, what they may do, and who owns what."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from support.daemons import Stage, on_a_pair, raw_client
from support.dispatch import KEPT, Everything, Insufficient, Weighty, in_milliseconds, open_count
from support.interceptors import Audit, Diary
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio.interceptors import Proceed

span: ContextVar[str] = ContextVar("span", default="none")


class Box(seqrpc.Service):
    def __init__(self) -> None:
        self.closed = 0

    @seqrpc.method
    async def look(self) -> str:
        return "inside"

    async def close(self) -> None:
        self.closed += 1


class Giver(seqrpc.Service):
    """What a handler may return that has to be let go if nobody gets it."""

    def __init__(self) -> None:
        self.box = Box()
        self.stage = Stage()

    @seqrpc.method
    async def span(self) -> str:
        return span.get()

    @seqrpc.method
    def span_in_thread(self) -> str:
        return span.get()

    @seqrpc.method
    async def file(self) -> Any:
        return seqrpc.OwnedFd.dup(0)

    @seqrpc.method
    async def files(self) -> Any:
        return [seqrpc.OwnedFd.dup(0), seqrpc.OwnedFd.dup(0), "text"]

    @seqrpc.method
    async def lend(self) -> Box:
        return self.box

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method
    async def weigh(self, what: Weighty) -> int:
        await asyncio.sleep(0)
        return len(what.content)

    @seqrpc.method
    async def wait(self) -> str:
        self.stage.reach("began")
        await self.stage.wait("may go on")
        return "done"


class Does(seqrpc.Interceptor):
    """Does what a test says."""

    def __init__(self, what: Callable[[seqrpc.CurrentCall, Proceed], Any]) -> None:
        self.what = what

    async def handle(self, call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        return await self.what(call, proceed)


async def test_the_first_is_outermost_and_each_sees_the_outcome() -> None:
    lines: list[str] = []
    async with on_a_pair(Everything(), interceptors=[Diary("outer", lines), Diary("inner", lines)]) as connection:
        assert await connection.call("Everything.add", 1) == 111
        with pytest.raises(Insufficient):
            await connection.call("Everything.fail", "typed")
    assert lines == [
        *("outer > Everything.add", "inner > Everything.add", "inner < 111", "outer < 111"),
        *("outer > Everything.fail", "inner > Everything.fail", "inner ! Insufficient", "outer ! Insufficient"),
    ]


async def test_those_who_are_refused_and_what_does_not_fit_never_reach_one() -> None:
    lines: list[str] = []
    async with on_a_pair(Everything(), allow=lambda _caller: False, interceptors=[Diary("a", lines)]) as connection:
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Everything.add", 1)
    async with on_a_pair(Everything(), interceptors=[Diary("a", lines)]) as connection:
        with pytest.raises(seqrpc.InvalidParams):
            await connection.call("Everything.add", "one")
        await connection.call("rpc.ping")
    assert lines == []


async def test_it_runs_in_the_task_and_the_context_of_the_handler() -> None:
    tasks = []

    async def name(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        assert span.get() == "none"
        assert seqrpc.current_call() is call
        span.set(call.method)
        tasks.append(asyncio.current_task())
        return await proceed()

    async with on_a_pair(Giver(), interceptors=[Does(name)]) as connection:
        for method in ("Giver.span", "Giver.span_in_thread", "Giver.span"):
            assert await connection.call(method) == method
    assert len({id(task) for task in tasks}) == 3


async def test_it_may_replace_the_result_which_is_to_fit() -> None:
    async def replace(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        result = await proceed()
        return "a text" if result == 112 else result + 1

    async with on_a_pair(Everything(), interceptors=[Does(replace)]) as connection:
        assert await connection.call("Everything.add", 1) == 112
        with pytest.raises(seqrpc.Internal):
            await connection.call("Everything.add", 2)


async def test_it_may_answer_without_the_handler_whose_arguments_are_let_go() -> None:
    async def instead(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        if call.method == "Giver.count":
            raise seqrpc.RpcError("no more", code="test.NoMore")
        return []

    before = open_count()
    async with on_a_pair(Everything(), Giver(), interceptors=[Does(instead)]) as connection:
        during = open_count()
        with seqrpc.OwnedFd.dup(0) as fd:
            assert await connection.call("Everything.echo", [fd]) == []
        assert await connection.call("Everything.in_thread") == []
        with pytest.raises(seqrpc.RpcError, match="no more"):
            await anext(connection.proxy(Giver).count(3))
        assert open_count() == during
    assert open_count() == before


async def test_what_it_raises_is_answered_as_the_handler_s_own(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        result = await proceed()
        raise Insufficient(5) if result == 111 else RuntimeError("the secret of the house")

    async with on_a_pair(Everything(), interceptors=[Does(fail)]) as connection:
        with pytest.raises(Insufficient, match="5 are missing"):
            await connection.call("Everything.add", 1)
        with pytest.raises(seqrpc.Internal) as caught:
            await connection.call("Everything.add", 2)
    assert "secret" not in str(caught.value)
    assert "the secret of the house" in caplog.text


async def test_it_may_make_good_what_the_handler_failed_in() -> None:
    async def mend(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        try:
            return await proceed()
        except Insufficient:
            return 5

    audit = Audit()
    async with on_a_pair(Everything(), interceptors=[audit, Does(mend)]) as connection:
        assert await connection.call("Everything.fail", "typed") == 5
        await audit.wait(1)
    assert audit.seen == [("Everything.fail", None)]


async def test_a_handler_runs_once_at_most() -> None:
    async def twice(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        await proceed()
        with pytest.raises(RuntimeError, match="runs once"):
            await proceed()
        return 5

    async with on_a_pair(Everything(), interceptors=[Does(twice)]) as connection:
        assert await connection.call("Everything.add", 1) == 5


async def test_a_replaced_result_is_given_up() -> None:
    async def replace(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        result = await proceed()
        if call.method == "Giver.files":
            return {"first": result[0]}  # of which one part goes on
        if call.method == "Box.look":
            return result
        return Box() if call.method == "Giver.lend" else None

    giver = Giver()
    async with on_a_pair(giver, interceptors=[Does(replace)]) as connection:
        before = open_count()
        assert await connection.call("Giver.file") is None
        assert open_count() == before
        with (await connection.call("Giver.files"))["first"] as first:
            assert open_count() == before + 1
            first.fileno()
        async with await connection.proxy(Giver).lend() as box:
            assert await box.look() == "inside"
            await comes_true(lambda: giver.box.closed == 1)
        await comes_true(lambda: open_count() == before)


async def test_a_result_that_goes_on_in_another_is_left_alone() -> None:
    async def wrap(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        return [await proceed()]

    giver = Giver()
    async with on_a_pair(giver, interceptors=[Does(wrap), Does(wrap)]) as connection:
        with (await connection.call("Giver.file"))[0][0] as fd:
            fd.fileno()
        (((channel,),),) = [await connection.call("Giver.count", 3)]
        assert [item async for item in channel] == [0, 1, 2]


@pytest.mark.parametrize("raises", [RuntimeError("of the house"), asyncio.CancelledError(), GeneratorExit()])
async def test_what_the_handler_returned_is_given_up_if_it_raises(raises: BaseException) -> None:
    async def fail(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        await proceed()
        raise raises

    giver = Giver()
    async with on_a_pair(giver, interceptors=[Does(fail)]) as connection:
        before = open_count()
        for method in ("Giver.file", "Giver.files", "Giver.lend"):
            with pytest.raises((seqrpc.Internal, seqrpc.Cancelled)):
                await connection.call(method)
        await comes_true(lambda: giver.box.closed == 1)
        assert open_count() == before


async def test_what_goes_on_in_an_error_is_left_alone() -> None:
    async def fail(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        first, _second, _text = await proceed()
        raise seqrpc.RpcError("with data", [first], code="test.Data")

    async with on_a_pair(Giver(), interceptors=[Does(fail)]) as connection:
        before = open_count()
        with pytest.raises(seqrpc.RpcError, match="with data") as caught:
            await connection.call("Giver.files")
        with caught.value.data[0] as fd:
            fd.fileno()
            assert open_count() == before + 1


class Computed(seqrpc.RpcError, code="test.Computed"):
    @property
    def data(self) -> Any:
        raise KeyError("not yet")

    @data.setter
    def data(self, value: Any) -> None:
        pass


async def test_an_error_whose_data_cannot_be_told_gives_up_everything() -> None:
    async def fail(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        await proceed()
        raise Computed("with data")

    async with on_a_pair(Giver(), interceptors=[Does(fail)]) as connection:
        before = open_count()
        with pytest.raises(seqrpc.Internal):
            await connection.call("Giver.file")
        assert open_count() == before


async def test_a_handler_that_was_left_in_a_task_is_answered_without_and_its_result_given_up() -> None:
    left: list[asyncio.Future[Any]] = []

    async def leave(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        left.append(asyncio.ensure_future(proceed()))
        await turns_of_the_loop(3)
        return "answered"

    class Late(Giver):
        @seqrpc.method
        async def wait(self) -> Any:
            self.stage.reach("began")
            await self.stage.wait("may go on")
            return seqrpc.OwnedFd.dup(0)

    late = Late()
    async with on_a_pair(late, interceptors=[Does(leave)]) as connection:
        before = open_count()
        assert await connection.call("Late.wait") == "answered"
        late.stage.reach("may go on")
        assert await left[0] is None
        assert open_count() == before
        left.clear()


async def test_a_handler_is_not_begun_after_its_call() -> None:
    kept: list[Proceed] = []

    async def keep(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        kept.append(proceed)
        return 5

    async with on_a_pair(Everything(), interceptors=[Does(keep)]) as connection:
        assert await connection.call("Everything.add", 1) == 5
        with pytest.raises(RuntimeError, match="while handle"):
            await kept[0]()


async def test_cancelling_and_deadlines_pass_through() -> None:
    lines: list[str] = []
    giver, audit = Giver(), Audit()
    interceptors = [audit, Diary("a", lines), Diary("b", lines)]
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(giver, sock=theirs, interceptors=interceptors):
        with raw_client(ours) as client:
            await client.send(0, 1, "Giver.wait", [])
            await giver.stage.wait("began")
            await client.send(3, 1)
            await audit.wait(1)
            await client.send(0, 2, "Giver.wait", [], {"deadline": in_milliseconds(50)})
            await audit.wait(2)
    assert lines == ["a > Giver.wait", "b > Giver.wait", "b ! CancelledError", "a ! CancelledError"] * 2
    assert audit.seen == [("Giver.wait", "rpc.Cancelled"), ("Giver.wait", "rpc.DeadlineExceeded")]


async def test_it_surrounds_one_way_calls_and_the_opening_of_streams() -> None:
    lines: list[str] = []
    service = Everything()
    async with on_a_pair(service, Giver(), interceptors=[Diary("a", lines)]) as connection:
        await connection.notify("Everything.tell", "ann")
        await service.stage.wait("told ann")
        assert [item async for item in connection.proxy(Giver).count(3)] == [0, 1, 2]
    assert lines == ["a > Everything.tell", "a < None", "a > Giver.count", "a < Source"]


async def test_what_it_keeps_does_not_keep_arguments() -> None:
    kept: list[Any] = []

    async def keep(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        kept.extend([call, proceed])
        return await proceed()

    KEPT.clear()
    async with on_a_pair(Giver(), interceptors=[Does(keep)]) as connection:
        assert await connection.call("Giver.weigh", {"content": b"abc"}) == 3
        gc.disable()
        try:
            assert [each() for each in KEPT] == [None]
            kept.clear()
        finally:
            gc.enable()


async def test_objects_that_are_given_away_are_surrounded_too() -> None:
    lines: list[str] = []
    audit = Audit()
    async with on_a_pair(Giver(), interceptors=[audit, Diary("a", lines)]) as connection:
        async with await connection.proxy(Giver).lend() as box:
            assert await box.look() == "inside"
            with pytest.raises(seqrpc.MethodNotFound):
                await connection.call("Box.look")
        await audit.wait(3)
    assert lines == ["a > Giver.lend", "a < Box", "a > Box.look", "a < str"]
    assert sorted(map(str, audit.seen)) == [
        "('Box.look', 'rpc.MethodNotFound')",
        "('Box.look', None)",
        "('Giver.lend', None)",
    ]


async def test_what_a_client_serves_is_surrounded_likewise() -> None:
    audit = Audit()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.connect(sock=theirs, services=Giver(), interceptors=[audit]):
        with raw_client(ours) as client:
            await client.send(0, 1, "Giver.span", [], {"deadline": in_milliseconds(60_000)})
            assert await client.receive() == [1, 1, None, "none"]
            await audit.wait(1)
    assert audit.seen == [("Giver.span", None)]


async def test_a_time_out_around_the_handler_is_the_interceptor_s_to_answer() -> None:
    async def bound(call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        try:
            return await asyncio.wait_for(proceed(), 0.01)  # on 3.11 in a task of its own
        except TimeoutError:
            return "too long"

    async with on_a_pair(Giver(), interceptors=[Does(bound)]) as connection:
        assert await asyncio.wait_for(connection.call("Giver.wait"), PATIENCE) == "too long"
