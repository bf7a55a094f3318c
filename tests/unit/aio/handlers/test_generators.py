"""Handlers that give streams."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from support.daemons import descriptor, on_a_pair, raw_client
from support.descriptors import open_count
from support.flow import Flow, every
from support.waiting import PATIENCE

import seqrpc
from seqrpc import OwnedFd


class Home(seqrpc.Service):
    def __init__(self) -> None:
        self.hellos = 0

    @seqrpc.method
    async def hello(self) -> str:
        self.hellos += 1
        return f"hello {self.hellos}"


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
        assert await every(connection.proxy(Flow).unannotated()) == [{"any": "thing"}]


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
                await stream.aclose()
            del stream
        await flow.stage.wait("count ended")
