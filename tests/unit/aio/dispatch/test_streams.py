"""Handlers that give streams and take them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import msgspec
import pytest
from support.daemons import Stage, descriptor, on_a_pair, raw_client
from support.descriptors import open_count
from support.dispatch import Counter
from support.waiting import PATIENCE

import seqrpc
from seqrpc import OwnedFd, policy


class Point(msgspec.Struct):
    x: int


class Failed(seqrpc.RpcError, code="test.Failed"):
    def __init__(self, number: int) -> None:
        super().__init__(f"failed at {number}", number)


class Flow(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()
        self.held: list[Any] = []
        self.thread = ""

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        self.stage.reach("count began")
        try:
            for number in range(to):
                yield number
        finally:
            self.stage.reach("count ended")

    @seqrpc.method(allow=~policy.anyone)
    async def forbidden(self, to: int) -> AsyncIterator[int]:
        self.stage.reach("forbidden began")
        yield to

    @seqrpc.method
    async def about_the_call(self) -> AsyncIterator[Any]:
        for _ in range(2):
            call = seqrpc.current_call()
            yield [call.method, call.caller.pid, dict(call.meta), call.deadline is not None]
            await asyncio.sleep(0)

    @seqrpc.method
    async def call_back(self, times: int) -> AsyncIterator[str]:
        for _ in range(times):
            yield await seqrpc.current_call().connection.call("Home.hello")
            await self.stage.wait("go on")

    @seqrpc.method
    def call_back_by_another(self, times: int) -> AsyncIterator[str]:
        return self.call_back(times)

    @seqrpc.method
    async def look_at(self, fd: OwnedFd) -> AsyncIterator[int]:
        self.held.append(fd)
        try:
            for step in range(1, 10):
                yield os.fstat(fd.fileno()).st_ino
                await self.stage.wait(f"step {step}")
        finally:
            self.stage.reach("look ended")

    @seqrpc.method
    async def fail_at(self, number: int, how: str) -> AsyncIterator[int]:
        for n in range(number):
            yield n
        if how == "typed":
            raise Failed(number)
        raise KeyError("the secret of the house")

    @seqrpc.method
    async def returned(self, to: int) -> AsyncIterator[int]:
        return self.count(to)

    @seqrpc.method
    def returned_by_a_thread(self, to: int) -> AsyncIterable[int]:
        self.thread = threading.current_thread().name
        return Counter(to)

    @seqrpc.method
    def maker(self, to: int) -> AsyncIterator[int]:
        """A plain function whose result is a stream."""
        return self.count(to)

    @seqrpc.method
    async def unannotated(self):  # type: ignore[no-untyped-def]
        yield {"any": "thing"}

    @seqrpc.method
    async def add_up(self, numbers: AsyncIterator[int]) -> int:
        total = 0
        async for number in numbers:
            total += number
            self.stage.reach(f"at {total}")
        return total

    @seqrpc.method
    async def first(self, numbers: AsyncIterator[int]) -> int:
        async for number in numbers:
            return number
        return -1

    @seqrpc.method
    async def ignore(self, numbers: AsyncIterator[int]) -> None:
        pass

    @seqrpc.method
    async def doubled(self, points: AsyncIterator[Point]) -> AsyncIterator[Point]:
        try:
            async for point in points:
                yield Point(2 * point.x)
        finally:
            self.stage.reach("doubled ended")

    @seqrpc.method
    async def two(self, first: AsyncIterator[int], *, second: AsyncIterable[str]) -> list[str]:
        return [f"{number}{text}" async for number in first async for text in second]

    @seqrpc.method
    async def tolerant(self, numbers: AsyncIterator[int]) -> str:
        try:
            return str([number async for number in numbers])
        except seqrpc.InvalidParams as exc:
            return f"invalid: {exc.message}"

    @seqrpc.method
    async def descriptors(self, files: AsyncIterator[OwnedFd]) -> AsyncIterator[OwnedFd]:
        async for file in files:
            yield file


class Home(seqrpc.Service):
    def __init__(self) -> None:
        self.hellos = 0

    @seqrpc.method
    async def hello(self) -> str:
        self.hellos += 1
        return f"hello {self.hellos}"


async def every(stream: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in stream]


async def of(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


# Giving streams


@pytest.mark.parametrize("number", [0, 1, 2, 1_000])
async def test_a_generator_is_a_stream_and_the_first_item_makes_the_call(number: int) -> None:
    flow = Flow()
    async with on_a_pair(flow) as connection:
        stream = connection.proxy(Flow).count(number)
        assert flow.stage.reached == []
        assert await every(stream) == list(range(number))
        await flow.stage.wait("count ended")


async def test_the_policy_is_asked_before_anything_of_a_generator_runs() -> None:
    flow = Flow()
    async with on_a_pair(flow) as connection:
        with pytest.raises(seqrpc.PermissionDenied):
            await anext(connection.proxy(Flow).forbidden(1))
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Flow.forbidden", "not a number")
        with pytest.raises(seqrpc.InvalidParams):
            await connection.call("Flow.count", "not a number")
        assert flow.stage.reached == []


async def test_a_generator_knows_its_call_to_its_end() -> None:
    async with on_a_pair(Flow()) as connection:
        stream = connection.proxy(Flow).about_the_call()
        with seqrpc.metadata(trace="5"):
            assert isinstance(stream, seqrpc.Stream)
            await stream.open()
        assert await every(stream) == [["Flow.about_the_call", os.getpid(), {"trace": "5"}, False]] * 2


@pytest.mark.parametrize("method", ["call_back", "call_back_by_another"])
async def test_the_deadline_is_for_the_call_and_not_for_the_stream(method: str) -> None:
    flow, home = Flow(), Home()
    async with on_a_pair(flow, client=[home]) as connection:
        stream = getattr(connection.proxy(Flow), method)(2)
        assert isinstance(stream, seqrpc.Stream)
        async with seqrpc.timeout(0.1):
            await stream.open()
        assert await anext(stream) == "hello 1"
        await asyncio.sleep(0.1)  # the deadline of the call passes
        flow.stage.reach("go on")
        assert await every(stream) == ["hello 2"]


async def test_descriptors_given_to_a_generator_live_until_it_ends(pipe: tuple[int, int]) -> None:
    flow = Flow()
    async with on_a_pair(flow) as connection:
        before = open_count()
        inode = os.fstat(pipe[0]).st_ino
        with OwnedFd.dup(pipe[0]) as fd:
            stream = connection.proxy(Flow).look_at(fd)
            assert await anext(stream) == inode
        assert not flow.held[0].closed
        flow.stage.reach("step 1")
        assert await anext(stream) == inode
        del stream
        await flow.stage.wait("look ended")
        async with asyncio.timeout(PATIENCE):
            while not flow.held[0].closed:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
        assert open_count() == before


async def test_descriptors_given_to_a_generator_whose_answer_cannot_be_sent_are_closed(pipe: tuple[int, int]) -> None:
    flow = Flow()
    async with on_a_pair(flow, limits=seqrpc.Limits(max_living_values=1)) as connection:
        kept = connection.proxy(Flow).count(10**6)
        assert await anext(kept) == 0
        before = open_count()
        with OwnedFd.dup(pipe[0]) as fd, pytest.raises(seqrpc.Overloaded):
            await connection.call("Flow.look_at", fd)
        assert open_count() == before
        del kept
        await flow.stage.wait("count ended")


async def test_a_notify_to_a_generator_runs_nothing_and_leaves_nothing(pipe: tuple[int, int]) -> None:
    flow = Flow()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(flow, sock=theirs):
        with raw_client(ours) as client:
            before = open_count()
            await client.send(2, "Flow.count", [5])
            await client.send(2, "Flow.look_at", [descriptor(0)], fds=[pipe[0]])
            await client.send(0, 1, "rpc.ping", [])
            assert await client.receive() == [1, 1, None, None]
            assert flow.stage.reached == []
            assert flow.held == []
            assert open_count() == before


@pytest.mark.parametrize("how", ["returned", "returned_by_a_thread", "maker", "by name"])
async def test_streams_that_are_returned_are_streams_as_well(how: str) -> None:
    flow = Flow()
    async with on_a_pair(flow) as connection:
        proxy = connection.proxy(Flow)
        stream: Any
        if how == "returned":  # a coroutine function is awaited
            stream = await proxy.returned(5)
        elif how == "by name":
            stream = await connection.call("Flow.returned_by_a_thread", to=5)
        else:  # a plain function that is annotated with a stream is called like a generator
            stream = getattr(proxy, how)(5)
        assert isinstance(stream, seqrpc.Stream)
        assert await every(stream) == [0, 1, 2, 3, 4]
        if how in ("returned_by_a_thread", "by name"):
            assert flow.thread.startswith("seqrpc-")


async def test_a_generator_without_an_annotation_gives_anything() -> None:
    async with on_a_pair(Flow()) as connection:
        assert await every(connection.proxy(Flow).unannotated()) == [{"any": "thing"}]  # type: ignore[no-untyped-call]


async def test_a_generator_that_fails_raises_at_the_reader_what_a_call_would(caplog: pytest.LogCaptureFixture) -> None:
    async with on_a_pair(Flow()) as connection:
        stream = connection.proxy(Flow).fail_at(2, "typed")
        assert [await anext(stream), await anext(stream)] == [0, 1]
        with pytest.raises(seqrpc.RpcError, match="failed at 2") as caught:
            await anext(stream)
        assert (caught.value.code, caught.value.data) == ("test.Failed", 2)
        with pytest.raises(seqrpc.Internal) as internal:
            await every(connection.proxy(Flow).fail_at(0, "unforeseen"))
        assert "secret" not in str(internal.value)
        assert "the secret of the house" in caplog.text


async def test_a_stream_outlives_its_connection() -> None:
    flow = Flow()
    ours, theirs = seqrpc.socket_pair()
    server = await seqrpc.serve(flow, sock=theirs)
    async with seqrpc.connect(sock=ours) as connection:
        stream = connection.proxy(Flow).count(1_000)
        assert await anext(stream) == 0
    async with asyncio.timeout(PATIENCE):
        await server.wait_closed()
    assert await every(stream) == list(range(1, 1_000))
    await server.close()


@pytest.mark.parametrize("how", ["break", "aclose", "drop"])
async def test_a_reader_that_wants_no_more_stops_the_generator(how: str) -> None:
    flow = Flow()
    async with on_a_pair(flow) as connection:
        if how == "break":
            async for number in connection.proxy(Flow).count(10**9):
                if number == 5:
                    break
        else:
            stream = connection.proxy(Flow).count(10**9)
            assert await anext(stream) == 0
            if how == "aclose":
                await stream.aclose()  # type: ignore[attr-defined]
            del stream
        await flow.stage.wait("count ended")


# Taking streams


async def test_any_async_iterable_is_uploaded() -> None:
    async with on_a_pair(Flow()) as connection:
        flow = connection.proxy(Flow)
        assert await flow.add_up(of(*range(1_000))) == sum(range(1_000))
        assert await flow.add_up(Counter(5)) == 10  # type: ignore[arg-type]
        assert await flow.add_up(of()) == 0
        assert await flow.two(of(1, 2), second=of("a", "b")) == ["1a", "1b"]


async def test_an_upload_comes_as_it_is_made() -> None:
    flow = Flow()

    async def slowly() -> AsyncIterator[int]:
        yield 1
        await flow.stage.wait("at 1")
        yield 2
        await flow.stage.wait("at 3")

    async with on_a_pair(flow) as connection:
        assert await connection.proxy(Flow).add_up(slowly()) == 3


async def test_streams_go_both_ways_at_once() -> None:
    sent = Stage()

    async def points() -> AsyncIterator[Point]:
        for number in range(10):
            yield Point(number)
            await sent.wait(str(2 * number))

    flow = Flow()
    async with on_a_pair(flow) as connection:
        received = []
        async for point in connection.proxy(Flow).doubled(points()):
            received.append(point)
            sent.reach(str(point.x))
        assert received == [Point(2 * number) for number in range(10)]


@pytest.mark.parametrize("method", ["first", "ignore"])
async def test_a_handler_that_wants_no_more_stops_the_uploader(method: str) -> None:
    stage = Stage()

    async def endless() -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            stage.reach("ended")

    async with on_a_pair(Flow()) as connection:
        await getattr(connection.proxy(Flow), method)(endless())
        if method == "first":
            await stage.wait("ended")


async def test_dropping_a_two_way_stream_ends_both_sides() -> None:
    stage, flow = Stage(), Flow()

    async def endless() -> AsyncIterator[Point]:
        try:
            while True:
                yield Point(1)
        finally:
            stage.reach("ended")

    async with on_a_pair(flow) as connection:
        async for point in connection.proxy(Flow).doubled(endless()):
            assert point == Point(2)
            break
        del point
        await flow.stage.wait("doubled ended")
        await stage.wait("ended")


@pytest.mark.parametrize("bad", ["x", None, 1.5, [1]])
async def test_a_bad_item_is_invalid_params_at_the_handler_and_crosses_as_such(bad: Any) -> None:
    async with on_a_pair(Flow()) as connection:
        flow = connection.proxy(Flow)
        with pytest.raises(
            seqrpc.InvalidParams, match=r"an item of a stream does not fit its annotation: Expected `int`"
        ):
            await flow.add_up(of(1, bad, 2))
        assert (await flow.tolerant(of(1, bad))).startswith("invalid: an item of a stream")
        with pytest.raises(seqrpc.InvalidParams, match="an item of a stream"):
            await every(flow.doubled(of(Point(1), bad)))


async def test_the_items_before_a_bad_one_are_handled() -> None:
    flow = Flow()
    async with on_a_pair(flow) as connection:
        with pytest.raises(seqrpc.InvalidParams):
            await connection.proxy(Flow).add_up(of(1, 2, "x", 4))
        assert flow.stage.reached == ["at 1", "at 3"]


async def test_an_upload_that_fails_is_seen_by_the_handler_and_is_not_its_failure_as_such() -> None:
    async def failing(exc: Exception) -> AsyncIterator[int]:
        yield 1
        raise exc

    async with on_a_pair(Flow()) as connection:
        flow = connection.proxy(Flow)
        with pytest.raises(seqrpc.RpcError) as caught:
            await flow.add_up(failing(Failed(5)))
        assert caught.value.code == "test.Failed"
        with pytest.raises(seqrpc.Internal):
            await flow.add_up(failing(KeyError("secret")))


async def test_what_is_no_stream_is_refused_as_one_and_a_stream_as_anything_else() -> None:
    async with on_a_pair(Flow()) as connection:
        for wrong in ([1], "x", None):
            with pytest.raises(seqrpc.InvalidParams, match=r"Expected a stream, got `.*` - at `numbers`"):
                await connection.call("Flow.add_up", wrong)
        with pytest.raises(seqrpc.InvalidParams, match="Expected `int`, got `Stream`"):
            await connection.call("Flow.count", of(1))


async def test_uploads_to_a_call_that_is_refused_are_stopped_before_they_begin() -> None:
    before = open_count()
    async with on_a_pair(Flow()) as connection:
        with pytest.raises(seqrpc.MethodNotFound):
            await connection.call("Flow.nothing", of(1))
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Flow.forbidden", of(1))
    async with asyncio.timeout(PATIENCE):
        while open_count() > before:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)


async def test_items_with_descriptors_go_both_ways(pipe: tuple[int, int]) -> None:
    async with on_a_pair(Flow()) as connection:
        before = open_count()
        inodes = []
        async for fd in connection.proxy(Flow).descriptors(of(*[OwnedFd.dup(end) for end in pipe])):
            with fd:
                inodes.append(os.fstat(fd.fileno()).st_ino)
        assert inodes == [os.fstat(end).st_ino for end in pipe]
        async with asyncio.timeout(PATIENCE):
            while open_count() > before:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
