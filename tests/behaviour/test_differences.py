"""What the client without an event loop does otherwise, row by row of the table in docs/blocking.md."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.faces import Kind
from support.incidents import AN_INCIDENT
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
import seqrpc.blocking


class Host(seqrpc.Service):
    """Calls those who call."""

    def __init__(self) -> None:
        self.kept: Any = None
        self.read: list[int] = []
        self.over = asyncio.Event()
        self.may_ask = asyncio.Event()

    @seqrpc.method
    async def ask(self, method: str) -> Any:
        return await seqrpc.current_call().connection.call(method)

    @seqrpc.method
    async def ask_later(self, method: str) -> None:
        connection = seqrpc.current_call().connection

        async def ask() -> Any:
            await self.may_ask.wait()
            return await connection.call(method)

        self.kept = asyncio.ensure_future(ask())

    @seqrpc.method
    async def reads_later(self, numbers: AsyncIterator[int]) -> None:
        async def read() -> None:
            try:
                async for number in numbers:
                    self.read.append(number)
            except seqrpc.Unavailable:
                self.read.append(-1)
            self.over.set()

        self.kept = asyncio.ensure_future(read())

    @seqrpc.method
    async def keep(self, guest: Guest) -> None:
        self.kept = guest


class Guest(seqrpc.Service):
    """What a client brings."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.closed = 0

    @seqrpc.method
    async def waits(self) -> str:
        await asyncio.sleep(0)
        return "waited"

    @seqrpc.method
    def plain(self) -> int:
        return threading.get_ident()

    @seqrpc.method
    def runs(self) -> bool:
        return hasattr(seqrpc.current_call(), "run")

    @seqrpc.method
    async def look(self) -> int:
        return 5

    async def close(self) -> None:
        self.closed += 1


async def test_what_waits_in_a_coroutine_function_is_answered_with_a_failure(kind: Kind) -> None:
    async with kind.serving(Host(), services=Guest()) as client:
        if kind.name == "asyncio":
            assert await client.call("Host.ask", "Guest.waits") == "waited"
        else:
            with pytest.raises(seqrpc.RpcError) as caught:
                await client.call("Host.ask", "Guest.waits")
            assert caught.value.message == AN_INCIDENT
        assert await client.call("Host.ask", "Guest.look") == 5


async def test_plain_functions_run_in_the_thread_that_waits(kind: Kind) -> None:
    waiting: list[int] = []

    def call(connection: Any) -> Any:
        waiting.append(threading.get_ident())
        return connection.call("Host.ask", "Guest.plain")

    async with kind.serving(Host(), services=Guest()) as client:
        ran_in = await kind.do(call, client.raw)
        assert (ran_in in waiting) is (kind.name == "blocking")
        assert await client.call("Host.ask", "Guest.runs") is (kind.name == "asyncio")


async def test_nobody_is_served_where_nobody_waits(kind: Kind) -> None:
    host = Host()
    async with kind.serving(host, services=Guest()) as client:
        await client.call("Host.ask_later", "Guest.look")
        host.may_ask.set()
        if kind.name == "blocking":
            await turns_of_the_loop()
            assert not host.kept.done()
            await kind.do(client.raw.process)
        async with asyncio.timeout(PATIENCE):
            assert await host.kept == 5


async def test_a_stream_that_was_given_ends_with_its_call(kind: Kind) -> None:
    host = Host()
    async with kind.serving(host) as client:
        await client.call("Host.reads_later", kind.iterator(iter(range(100_000))))
        async with asyncio.timeout(PATIENCE):
            await host.over.wait()
        assert (host.read[-1] == -1) is (kind.name == "blocking")


async def test_a_stream_in_a_notice_goes_on_while_a_thread_waits(kind: Kind) -> None:
    host = Host()
    async with kind.serving(host) as client:
        await client.notify("Host.reads_later", kind.iterator(iter(range(10))))
        async with asyncio.timeout(PATIENCE):
            while not host.over.is_set():
                await client.call("rpc.ping")
        assert host.read == [*range(10)]


async def test_an_async_iterable_needs_a_loop(kind: Kind) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    host = Host()
    async with kind.serving(host) as client:
        given = numbers()
        if kind.name == "asyncio":
            await client.call("Host.reads_later", given)
            async with asyncio.timeout(PATIENCE):
                await host.over.wait()
            assert host.read == [1]
        else:
            with pytest.raises(seqrpc.LocalProtocolError, match="needs an event loop"):
                await client.call("Host.reads_later", given)
            await given.aclose()  # type: ignore[attr-defined]


async def test_closing_takes_objects_back(kind: Kind) -> None:
    host, guest = Host(), Guest()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(host, sock=theirs):
        async with kind.connected(sock=ours) as client:
            await client.call("Host.keep", guest)
        if kind.name == "asyncio":
            assert await host.kept.look() == 5
        else:
            with pytest.raises(seqrpc.SeqrpcError) as caught:
                await host.kept.look()
            assert caught.value.execution is seqrpc.Execution.DID_NOT_RUN
            assert guest.closed == 1
        await host.kept.close()
        await comes_true(lambda: guest.closed == 1)


async def test_lifespans_need_a_loop(kind: Kind) -> None:
    class Lasting(Guest, name="Lasting"):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            self.seen.append("entered")
            yield

    lasting = Lasting()
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        if kind.name == "asyncio":
            async with kind.connected(sock=ours, services=lasting):
                assert lasting.seen == ["entered"]
        else:
            with ours, pytest.raises(TypeError, match="needs an event loop"):
                await kind.connect(sock=ours, services=lasting)


async def test_the_end_is_noticed_by_whoever_waits(kind: Kind) -> None:
    ours, theirs = seqrpc.socket_pair()
    async with kind.connected(sock=ours) as client:
        theirs.close()
        if kind.name == "asyncio":
            await client.raw.wait_closed()
        else:
            assert not client.closed
            await kind.do(client.raw.process)
        assert client.closed


async def test_any_thread_may_use_it(kind: Kind) -> None:
    async with kind.serving(Guest()) as client:
        if kind.name == "blocking":
            assert await asyncio.gather(*(client.call("Guest.look") for _ in range(10))) == [5] * 10
        else:
            with pytest.raises(seqrpc.WrongLoop):
                await asyncio.to_thread(lambda: asyncio.run(client.raw.call("Guest.look")))
