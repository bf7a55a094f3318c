"""The lifespans of services that a client brings."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.lifespans import Annex, Broken, Group, Stuck, Vault
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio.connection import link_of


class Host(seqrpc.Service):
    """Calls back whoever connects."""

    @seqrpc.method
    async def call_back(self, method: str) -> str:
        result: str = await seqrpc.current_call().connection.call(method)
        return result

    @seqrpc.method
    async def surroundings(self) -> list[str]:
        call = seqrpc.current_call()
        return [str(call.deadline), str(dict(call.meta))]

    @seqrpc.method
    async def hang_up(self) -> None:
        connection = seqrpc.current_call().connection
        asyncio.get_running_loop().call_soon(link_of(connection).abandon)


async def test_services_of_a_client_live_as_long_as_its_connection(socket_path: Path) -> None:
    told: list[str] = []
    services = [Vault(told), Annex(told)]
    with pytest.raises(seqrpc.ConnectError):
        await seqrpc.connect(socket_path, services=services)
    assert told == []
    async with seqrpc.serve(Host(), socket_path):
        async with seqrpc.connect(socket_path, services=services) as connection:
            assert told == ["Vault begins", "Annex begins"]
            assert await connection.call("Host.call_back", "Vault.where") == "nowhere"
            working = asyncio.ensure_future(connection.call("Host.call_back", "Vault.work"))
            await services[0].stage.wait("works")
        assert told[2:] == ["Vault works", "Vault was cancelled", "Annex ends", "Vault ends"]
        with pytest.raises(seqrpc.ConnectionLost):
            await working


async def test_services_of_a_client_end_when_the_other_side_goes(socket_path: Path) -> None:
    broken = Broken()
    async with seqrpc.serve(Host(), socket_path):
        connection = await seqrpc.connect(socket_path, services=broken)
        await connection.notify("Host.hang_up")
        for use in (connection.wait_closed, connection.close):
            with pytest.raises(OSError, match="the disk is full"):
                await use()
        assert broken.told == ["Broken begins", "Broken ends"]


async def test_a_client_whose_service_cannot_begin_is_not_connected() -> None:
    ours, theirs = seqrpc.socket_pair()
    broken = Broken()
    broken.at = "the start"
    with theirs:
        with pytest.raises(OSError, match="the disk is full"):
            await seqrpc.connect(sock=ours, services=broken)
        assert theirs.recv(10) == b""


async def test_a_client_whose_service_ends_by_itself_is_closed(socket_path: Path) -> None:
    group = Group()
    async with seqrpc.serve(Host(), socket_path):
        connection = await seqrpc.connect(socket_path, services=group)
        group.stage.reach("fails")
        with pytest.raises(ExceptionGroup):
            await connection.wait_closed()
        assert connection.closed


async def test_a_client_s_handlers_that_go_on_are_waited_for_so_long_and_no_longer(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(Vault):
        @seqrpc.method
        async def work(self) -> None:
            self.stage.reach("works")
            try:
                await asyncio.Event().wait()
            finally:
                await self.stage.wait("may end")

    stubborn = Stubborn()
    limits = seqrpc.Limits(close_timeout=0.05)
    async with seqrpc.serve(Host(), socket_path):
        async with seqrpc.connect(socket_path, services=stubborn, limits=limits) as connection:
            working = asyncio.ensure_future(connection.call("Host.call_back", "Stubborn.work"))
            await stubborn.stage.wait("works")
        assert stubborn.told == ["Stubborn begins", "Stubborn ends"]
        assert "handlers are still running that were cancelled with their connection" in caplog.text
        with pytest.raises(seqrpc.ConnectionLost):
            await working
        stubborn.stage.reach("may end")


async def test_services_of_a_client_whose_socket_is_not_connected_are_let_go() -> None:
    vault = Vault()
    with pytest.raises(seqrpc.AddressError, match="the socket is not connected"):
        await seqrpc.connect(sock=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), services=vault)
    assert vault.told == ["Vault begins", "Vault ends"]


async def test_a_call_that_finds_the_connection_broken_does_not_wait_for_lifespans() -> None:
    ours, theirs = seqrpc.socket_pair()
    stuck = Stuck()
    with theirs:
        async with seqrpc.connect(sock=ours, services=stuck) as connection:
            theirs.shutdown(socket.SHUT_RD)
            with pytest.raises(seqrpc.ConnectionLost):
                await asyncio.wait_for(connection.call("Peer.hear"), PATIENCE)
            assert stuck.told == ["Stuck begins"]
            stuck.stage.reach("may go on")
        assert stuck.told == ["Stuck begins", "Stuck ends"]


async def test_a_time_out_and_metadata_that_surround_the_connecting_are_not_the_lifespan_s(socket_path: Path) -> None:
    class Later(Vault):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            async with super().lifespan(), asyncio.TaskGroup() as group:
                group.create_task(self.look())
                yield
                await self.stage.wait("looked")

        async def look(self) -> None:
            await self.stage.wait("looks")
            self.told += await host.call("Host.surroundings")
            self.stage.reach("looked")

    later = Later()
    async with seqrpc.serve(Host(), socket_path), seqrpc.connect(socket_path) as host:
        async with seqrpc.timeout(60):
            with seqrpc.metadata(a="b"):
                connection = await seqrpc.connect(socket_path, services=later)
        later.stage.reach("looks")
        await later.stage.wait("looked")
        await connection.close()
    assert later.told == ["Later begins", "None", "{}", "Later ends"]


async def test_they_end_after_calls_that_want_no_answer_and_outlive_the_connection() -> None:
    class Teller(Vault):
        @seqrpc.method(oneway=True)
        async def hear(self) -> None:
            self.stage.reach("hears")
            await self.stage.wait("may end")
            self.tell("heard")

    teller = Teller()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve((), sock=theirs) as server:
        connection = await seqrpc.connect(sock=ours, services=teller)
        await connection.call("rpc.ping")
        (other,) = server.connections
        await other.notify("Teller.hear")
        await teller.stage.wait("hears")
        closing = asyncio.ensure_future(connection.close())
        await comes_true(lambda: connection.closed)
        await turns_of_the_loop()
        assert not closing.done()
        teller.stage.reach("may end")
        await closing
    assert teller.told == ["Teller begins", "Teller heard", "Teller ends"]
