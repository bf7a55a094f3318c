"""When a server enters the lifespans of its services, and what is left if that fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.daemons import raw_client
from support.lifespans import Annex, Broken, Stuck, Vault
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc


async def test_it_surrounds_the_time_in_which_a_service_can_be_reached(socket_path: Path) -> None:
    told: list[str] = []
    vault, annex = Vault(told, socket_path), Annex(told, socket_path)
    async with seqrpc.serve((each for each in (vault, annex)), socket_path) as server:
        assert told == ["Vault begins", "Annex begins"]
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call("Vault.where") == "nowhere", "the context is the lifespan's own"
        assert told == ["Vault begins", "Annex begins"]
    assert told == ["Vault begins", "Annex begins", "Annex ends", "Vault ends"]
    await server.wait_closed()
    assert len(set(vault.tasks)) == len(set(annex.tasks)) == 1, "it is left in the task that entered it"


async def test_what_it_raises_at_the_start_is_raised_by_who_serves(socket_path: Path) -> None:
    told: list[str] = []
    broken = Broken(told)
    broken.at = "the start"
    with pytest.raises(OSError, match="the disk is full"):
        async with seqrpc.serve([Vault(told), Annex(told), broken, Stuck(told)], socket_path):
            pass
    assert told == ["Vault begins", "Annex begins", "Annex ends", "Vault ends"]
    assert os.listdir(socket_path.parent) == []
    ours, theirs = seqrpc.socket_pair()
    with ours:
        with pytest.raises(OSError, match="the disk is full"):
            await seqrpc.serve(broken, sock=theirs)
        assert ours.recv(10) == b"", "the other side sees the end"


async def test_of_two_servers_only_one_begins(socket_path: Path) -> None:
    second = Vault()
    async with seqrpc.serve(Vault(), socket_path):
        with pytest.raises(seqrpc.AddressInUse):
            await seqrpc.serve(second, socket_path)
    assert second.told == []


async def test_what_cannot_be_listened_on_after_all_ends_it(socket_path: Path) -> None:
    class Thief(Vault):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            async with super().lifespan():
                socket_path.mkdir()  # noqa: ASYNC240 - it takes no time
                yield

    thief = Thief()
    with pytest.raises(seqrpc.AddressInUse):
        await seqrpc.serve(thief, socket_path)
    assert thief.told == ["Thief begins", "Thief ends"]
    assert os.listdir(socket_path.parent) == ["test.sock"]


async def test_on_a_pair_it_ends_with_the_other_side() -> None:
    ours, theirs = seqrpc.socket_pair()
    broken = Broken()
    server = await seqrpc.serve(broken, sock=theirs)
    async with seqrpc.connect(sock=ours) as connection:
        assert await connection.call("Broken.where") == "nowhere"
        numbers = connection.proxy(Broken).count()
        assert await anext(numbers) == 1
    with pytest.raises(OSError, match="the disk is full"):
        await server.wait_closed()
    assert broken.told == ["Broken begins", "Broken counts no more", "Broken ends"]
    with pytest.raises(OSError, match="the disk is full"):
        await server.close()
    await numbers.aclose()


async def test_where_the_socket_is_not_connected_it_ends_too() -> None:
    vault = Vault()
    with pytest.raises(seqrpc.AddressError, match="the socket is not connected"):
        await seqrpc.serve(vault, sock=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    assert vault.told == ["Vault begins", "Vault ends"]


@pytest.mark.parametrize("how", ["at_an_address", "on_a_pair"])
async def test_it_ends_after_handlers_whose_connection_ended_before(how: str, socket_path: Path) -> None:
    class Tidy(Vault):
        @seqrpc.method
        async def work(self) -> None:
            self.stage.reach("works")
            try:
                await asyncio.Event().wait()
            finally:
                await self.stage.wait("may end")
                self.tell("tidied up")

    tidy = Tidy()
    ours, theirs = seqrpc.socket_pair()
    with ours, theirs:
        if how == "on_a_pair":
            server = await seqrpc.serve(tidy, sock=theirs)
        else:
            server = await seqrpc.serve(tidy, socket_path)
        with raw_client(ours if how == "on_a_pair" else socket_path) as client:
            await client.send(0, 1, "Tidy.work", [])
            await tidy.stage.wait("works")
        await comes_true(lambda: not server.connections)
        closing = asyncio.ensure_future(server.close())
        await turns_of_the_loop()
        assert not closing.done()
        assert tidy.told == ["Tidy begins"]
        tidy.stage.reach("may end")
        await asyncio.wait_for(closing, PATIENCE)
        assert tidy.told == ["Tidy begins", "Tidy tidied up", "Tidy ends"]
