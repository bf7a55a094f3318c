"""Servers over socket pairs, and who calls them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from support.daemons import raw_client
from support.descriptors import owned, refuse_descriptors
from support.interceptors import Audit
from support.waiting import comes_true

import seqrpc
from seqrpc import policy
from seqrpc.testing import MemoryServer, assert_no_leaks, caller, memory_server, serve_in_memory

ANN = caller(uid=1001, gid=1001, groups=[4_000], pid=71)
BOB = caller(uid=1002, gid=1002, pid=72)

Ids = list[int | list[int] | None]


def ids_here() -> Ids:
    who = seqrpc.current_call().caller
    return [who.pid, who.uid, who.gid, None if who.groups is None else list(who.groups)]


class Inner(seqrpc.Service):
    """What is given away."""

    @seqrpc.method
    async def who(self) -> Ids:
        return ids_here()

    @seqrpc.method
    async def more(self) -> Inner:
        return Inner()

    @seqrpc.method(allow=policy.uid(1001))
    async def of_ann(self) -> str:
        return "Ann's"


class House(seqrpc.Service, allow=policy.anyone):
    def __init__(self) -> None:
        self.lives: list[str] = []
        self.shared = Inner()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        self.lives.append("begun")
        yield
        self.lives.append("ended")

    @seqrpc.method
    async def who(self) -> Ids:
        return ids_here()

    @seqrpc.method
    def who_in_a_thread(self) -> Ids:
        return ids_here()

    @seqrpc.method(allow=policy.gid(4_000))
    async def of_members(self) -> str:
        return "members only"

    @seqrpc.method(allow=policy.root)
    async def of_root(self) -> str:
        return "root only"

    @seqrpc.method
    async def inner(self) -> Inner:
        return Inner()

    @seqrpc.method
    async def common(self) -> Inner:
        return self.shared

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[Ids]:
        for _ in range(to):
            yield ids_here()

    @seqrpc.method
    async def peer(self) -> int | None:
        peer = seqrpc.current_call().connection.peer
        return None if peer is None else peer.uid

    @seqrpc.method
    async def ask_back(self) -> str:
        answer: str = await seqrpc.current_call().connection.call("Door.knock")
        return answer


class Door(seqrpc.Service):
    @seqrpc.method
    async def knock(self) -> str:
        return "who is there?"


class Sizes(seqrpc.Service):
    @seqrpc.method
    async def size(self, number: int) -> int:
        return number


ANNS: Ids = [71, 1001, 1001, [4_000]]


async def test_without_a_caller_it_is_this_process_by_the_kernel_s_word() -> None:
    async with assert_no_leaks(), serve_in_memory(House()) as connection:
        me: Ids = [os.getpid(), os.geteuid(), os.getegid(), None]
        assert await connection.proxy(House).who() == me
        assert await connection.proxy(House).peer() is None


async def test_handlers_of_all_kinds_see_who_calls() -> None:
    async with assert_no_leaks(), serve_in_memory(House(), caller=ANN) as connection:
        house = connection.proxy(House)
        assert await house.who() == ANNS
        assert await house.who_in_a_thread() == ANNS
        assert [ids async for ids in house.count(2)] == [ANNS, ANNS]
        assert await house.peer() == 1001


async def test_policies_are_asked_about_who_calls() -> None:
    async with memory_server(House()) as server:
        async with server.connect(caller=ANN) as ann, server.connect(caller=BOB) as bob:
            assert await ann.proxy(House).of_members() == "members only"
            for connection, method in ((bob, "of_members"), (ann, "of_root"), (bob, "of_root")):
                with pytest.raises(seqrpc.PermissionDenied, match=rf"^rpc.PermissionDenied: House\.{method}"):
                    await connection.call(f"House.{method}")
        async with server.connect(caller=caller(uid=0)) as root:
            assert await root.proxy(House).of_root() == "root only"


@pytest.mark.parametrize("who, admitted", [(caller(uid=os.geteuid()), True), (caller(uid=54_321), False)])
async def test_the_policy_of_the_server_holds_where_nothing_is_said(who: seqrpc.Credentials, admitted: bool) -> None:
    async with serve_in_memory(Door(), caller=who) as connection:
        if admitted:
            assert await connection.call("Door.knock") == "who is there?"
        else:
            with pytest.raises(seqrpc.PermissionDenied):
                await connection.call("Door.knock")
    async with serve_in_memory(Door(), caller=who, allow=policy.uid(54_321) | policy.default) as connection:
        assert await connection.call("Door.knock") == "who is there?"


async def test_records_of_interceptors_have_who_called() -> None:
    audit = Audit()
    async with serve_in_memory(House(), caller=BOB, interceptors=[audit]) as connection:
        inner = await connection.proxy(House).inner()
        await inner.who()
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("House.of_root")
        await connection.notify("House.who")
        records = await audit.wait(4)
        await inner.close()
    assert [record.caller for record in records] == [BOB] * 4
    assert [record.method for record in records] == ["House.inner", "Inner.who", "House.of_root", "House.who"]


async def test_objects_that_were_given_away_are_called_by_the_same() -> None:
    async with (
        memory_server(House()) as server,
        server.connect(caller=ANN) as ann,
        server.connect(caller=BOB) as bob,
    ):
        one, other = await ann.proxy(House).inner(), await bob.proxy(House).inner()
        assert await one.who() == ANNS
        assert await one.of_ann() == "Ann's"
        assert await other.who() == [72, 1002, 1002, []]
        with pytest.raises(seqrpc.PermissionDenied):
            await other.of_ann()
        deeper = await (await one.more()).more()
        assert await deeper.who() == ANNS
        shared = await ann.proxy(House).common(), await bob.proxy(House).common()
        assert [(await each.who())[1] for each in shared] == [1001, 1002]


async def test_who_passes_an_object_on_lends_its_name() -> None:
    class Taker(seqrpc.Service, allow=policy.anyone):
        @seqrpc.method
        async def call(self, inner: Inner) -> Ids:
            return await inner.who()

    async with serve_in_memory(House(), caller=ANN) as ann, serve_in_memory(Taker(), caller=BOB) as bob:
        assert await bob.proxy(Taker).call(await ann.proxy(House).inner()) == ANNS


async def test_services_of_the_client_are_called_by_this_process() -> None:
    async with serve_in_memory(House(), caller=ANN, services=Door()) as connection:
        assert await connection.proxy(House).ask_back() == "who is there?"
    async with serve_in_memory(House(), caller=ANN, services=[Door()], services_allow=~policy.anyone) as connection:
        with pytest.raises(seqrpc.Internal):
            await connection.proxy(House).ask_back()


async def test_bounds_of_one_user_are_those_of_who_is_pretended() -> None:
    most, ours = 64, 48  # a quarter is for others
    limits = seqrpc.Limits(max_connections=most)
    async with memory_server(House(), limits=limits) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(ours):
            await stack.enter_async_context(server.connect(caller=ANN))
        async with server.connect(caller=ANN) as late:
            with pytest.raises((seqrpc.Unavailable, seqrpc.ConnectionLost), match="connections here already"):
                await late.proxy(House).who()
        await comes_true(lambda: len(server.connections) == ours)
        async with server.connect(caller=BOB) as bob:
            assert await bob.proxy(House).peer() == 1002


async def test_a_server_stays_when_its_connections_end_and_has_a_life() -> None:
    house = House()
    async with memory_server(house) as server:
        assert isinstance(server, MemoryServer)
        assert (server.address, server.sockets) == (None, ())
        for who in (ANN, BOB, None):
            async with server.connect(caller=who) as connection:
                await connection.proxy(House).who()
        await comes_true(lambda: not server.connections)
        assert house.lives == ["begun"]
    assert house.lives == ["begun", "ended"]


async def test_it_drains_as_any_server() -> None:
    async with memory_server(House()) as server, server.connect(caller=ANN) as connection:
        assert await server.drain()
        with pytest.raises((seqrpc.Unavailable, seqrpc.ConnectionLost)):
            await connection.proxy(House).who()
        async with server.connect() as late:
            with pytest.raises((seqrpc.Unavailable, seqrpc.ConnectionLost)):
                await late.proxy(House).who()


async def test_a_raw_client_has_the_other_end() -> None:
    async with memory_server(House()) as server:
        with raw_client(server.open_socket(caller=ANN)) as client:
            await client.send(0, 1, "House.who", [])
            assert await client.receive() == [1, 1, None, ANNS]


async def test_services_that_take_no_descriptors_refuse_them_as_at_an_address() -> None:
    ours, theirs = seqrpc.socket_pair()
    with ours, theirs:
        refuse_descriptors(theirs)  # or skip
    for who in (None, ANN):
        async with serve_in_memory(Sizes(), caller=who, allow=policy.anyone) as connection:
            with owned(1) as fds, pytest.raises(seqrpc.PermissionDenied, match="takes no descriptors"):
                await connection.call("Sizes.size", fds[0])
            assert await connection.call("Sizes.size", 5) == 5
        options: dict[str, Any] = {"caller": who, "allow": policy.anyone, "accept_descriptors": True}
        async with serve_in_memory(Sizes(), **options) as connection:
            with owned(1) as fds, pytest.raises(seqrpc.InvalidParams):
                await connection.call("Sizes.size", fds[0])


class Broken(seqrpc.Service):
    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        raise RuntimeError("no database")
        yield


async def test_what_a_lifespan_raises_comes_out_and_nothing_is_left() -> None:
    async with assert_no_leaks():
        with pytest.raises(RuntimeError, match="no database"):
            async with serve_in_memory(Broken()):
                raise AssertionError("it is served")
        house = House()
        with pytest.raises(RuntimeError, match="no database"):
            async with serve_in_memory(house, services=Broken()):
                raise AssertionError("it is connected")
        assert house.lives == ["begun", "ended"]


async def test_mistakes_are_told_at_once() -> None:
    nobody: Any = 1000
    with pytest.raises(TypeError, match=r"caller= takes what seqrpc\.testing\.caller\(uid=\.\.\.\) returns, got 1000"):
        serve_in_memory(House(), caller=nobody)
    with pytest.raises(TypeError, match=r"an object of House was expected, got the class: write House\(\)"):
        memory_server(House)  # type: ignore[arg-type]
    serving: Any = serve_in_memory(House())
    with pytest.raises(TypeError, match=r"serve_in_memory\(\.\.\.\) is entered by 'async with'"), serving:
        raise AssertionError("it is entered")
    with pytest.warns(RuntimeWarning, match=r"^seqrpc\.testing\.serve_in_memory\(\.\.\.\) was never awaited"):
        del serving
    async with memory_server(House()) as server:
        with pytest.raises(TypeError, match="caller= takes"):
            server.connect(caller=nobody)
        with pytest.raises(TypeError, match="caller= takes"):
            server.open_socket(caller=nobody)
        with pytest.raises(seqrpc.WrongLoop, match="this server belongs to another event loop"):
            await asyncio.to_thread(server.open_socket)
        with pytest.raises(TypeError, match=r"an object of a seqrpc\.Interceptor was expected"):
            await server.connect(interceptors=[nobody])


async def test_a_connection_that_is_dropped_is_closed_with_a_warning() -> None:
    async with memory_server(House()) as server:
        connection = await server.connect(caller=ANN)
        with pytest.warns(ResourceWarning, match="unclosed <Connection open"):
            del connection
        await comes_true(lambda: not server.connections)


@pytest.mark.skipif(sys.platform != "linux", reason="credentials of packets are Linux's")
async def test_in_a_forked_child_the_server_is_the_parent_s() -> None:
    from support.processes import in_child

    async with memory_server(House()) as server, server.connect(caller=ANN) as connection:
        assert in_child(lambda: connection.closed)
        assert in_child(lambda: len(server.connections)) == 0
        assert await connection.proxy(House).who() == ANNS
