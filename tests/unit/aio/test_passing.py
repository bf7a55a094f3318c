"""Connections that a server hands to another: within one process, where the test is the successor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.daemons import Stage, raw_client
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio import passing
from seqrpc.aio.conversation import Conversation
from seqrpc.aio.hub import Hub
from seqrpc.aio.passing import Passing
from seqrpc.aio.server import hub_of
from seqrpc.kernel.descriptors import close_all
from seqrpc.kernel.handover import Talk, Word
from seqrpc.kernel.sockets import socket_pair


class Work(seqrpc.Service):
    def __init__(self, name: str) -> None:
        self.name = name
        self.stage = Stage()
        self.connections: list[seqrpc.Connection] = []

    @seqrpc.method
    async def who(self) -> str:
        return self.name

    @seqrpc.method
    async def wait(self) -> str:
        self.stage.reach("waits")
        await self.stage.wait("go on")
        return self.name

    @seqrpc.method
    async def let_go(self) -> None:
        self.stage.reach("go on")

    @seqrpc.method
    async def look(self, *, keep: bool) -> None:
        connection = seqrpc.current_call().connection
        if keep:
            self.connections.append(connection)

    @seqrpc.method
    async def ask_back(self) -> Any:
        return await seqrpc.current_call().connection.call("Screen.show")

    @seqrpc.method
    async def garbage(self) -> None:
        circle: list[Any] = [seqrpc.current_call().connection]
        circle.append(circle)


class Screen(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def show(self) -> str:
        self.stage.reach("shows")
        await self.stage.wait("go on")
        return "shown"


class Stand:
    """A server, another one to which connections are handed, and what is between them."""

    def __init__(self, first: seqrpc.Server, second: seqrpc.Server, work: Work, path: Path) -> None:
        self.hub, self.other = hub_of(first), hub_of(second)
        self.work = work
        self.path = path
        self.ours, self.theirs = (Conversation(Talk(sock, os.getpid())) for sock in socket_pair())
        self.passing = Passing(self.hub, self.ours)
        self.running: asyncio.Future[bool] | None = None

    def begin(self) -> asyncio.Future[bool]:
        self.running = asyncio.ensure_future(self.passing.run())
        return self.running

    async def take(self, hub: Hub | None, answer: Word = Word.TAKEN) -> None:
        """Take one connection, as a successor does."""
        async with asyncio.timeout(PATIENCE):
            heard = await self.theirs.hear()
        assert heard is not None
        assert heard.word is Word.CONNECTION
        self.theirs.say(answer)
        if hub is not None:
            hub.adopt(socket.socket(fileno=heard.fds.pop().detach()))
        close_all(heard.fds)


@contextlib.asynccontextmanager
async def stand(path: Path) -> AsyncIterator[Stand]:
    work = Work("first")
    async with (
        seqrpc.serve(work, path) as first,
        seqrpc.serve(Work("second"), f"{path}2") as second,
        asyncio.timeout(PATIENCE),
    ):
        stage = Stand(first, second, work, path)
        try:
            yield stage
        finally:
            if stage.running is not None:
                stage.running.cancel()
                await asyncio.wait([stage.running])
            stage.passing.let_go(take_back=False)
            stage.ours.close()
            stage.theirs.close()


async def test_idle_connections_are_handed_over_and_calls_go_on(socket_path: Path) -> None:
    async with stand(socket_path) as s, seqrpc.connect(socket_path) as one, seqrpc.connect(socket_path) as two:
        for connection in (one, two):
            assert await connection.call("Work.who") == "first"
        running = s.begin()
        for _ in range(2):
            await s.take(s.other)
        assert await running
        assert s.hub.connections == frozenset()
        assert len(s.other.connections) == 2
        for connection in (one, two):
            assert await connection.call("Work.who") == "second"


async def test_a_busy_one_is_handed_over_once_its_call_has_ended(socket_path: Path) -> None:
    async with stand(socket_path) as s, seqrpc.connect(socket_path) as client:
        call = asyncio.ensure_future(client.call("Work.wait"))
        await s.work.stage.wait("waits")
        s.begin()
        await turns_of_the_loop()
        assert s.theirs.hear_now() is None
        # It is not read for a while, but then it is again: what runs may wait for what comes.
        assert await client.call("Work.let_go") is None
        assert await call == "first"
        await s.take(s.other)
        assert await client.call("Work.who") == "second"


async def test_what_was_sent_and_not_read_is_served_by_the_other(socket_path: Path) -> None:
    async with stand(socket_path) as s, seqrpc.connect(socket_path) as client:
        await client.call("rpc.ping")
        s.begin()
        async with asyncio.timeout(PATIENCE):
            heard = await s.theirs.hear()
        assert heard is not None
        calls = [asyncio.ensure_future(client.call("Work.who")) for _ in range(3)]
        await turns_of_the_loop()
        s.theirs.say(Word.TAKEN)
        s.other.adopt(socket.socket(fileno=heard.fds.pop().detach()))
        assert await asyncio.gather(*calls) == ["second"] * 3


async def test_one_that_asks_its_client_is_read_meanwhile(socket_path: Path) -> None:
    screen = Screen()
    async with stand(socket_path) as s, seqrpc.connect(socket_path, services=screen) as client:
        call = asyncio.ensure_future(client.call("Work.ask_back"))
        await screen.stage.wait("shows")
        s.begin()
        await turns_of_the_loop()
        screen.stage.reach("go on")
        assert await call == "shown"
        await s.take(s.other)
        assert await client.call("Work.who") == "second"


async def test_one_that_the_application_keeps_stays(socket_path: Path) -> None:
    async with (
        stand(socket_path) as s,
        seqrpc.connect(socket_path) as kept,
        seqrpc.connect(socket_path) as looked,
        seqrpc.connect(socket_path) as garbage,
    ):
        await kept.call("Work.look", keep=True)
        await looked.call("Work.look", keep=False)
        await garbage.call("Work.garbage")
        running = s.begin()
        for _ in range(2):
            await s.take(s.other)
        assert await running
        assert await kept.call("Work.who") == "first"
        assert await looked.call("Work.who") == "second"
        assert await garbage.call("Work.who") == "second"
        assert s.hub.connections == frozenset(s.work.connections)


async def test_one_that_could_not_be_taken_stays(socket_path: Path) -> None:
    async with stand(socket_path) as s, seqrpc.connect(socket_path) as client:
        await client.call("rpc.ping")
        running = s.begin()
        await s.take(None, Word.LOST)
        assert await running
        assert await client.call("Work.who") == "first"


async def test_one_that_cannot_be_sent_stays(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError("too many references")

    async with stand(socket_path) as s, seqrpc.connect(socket_path) as client:
        await client.call("rpc.ping")
        monkeypatch.setattr(s.ours, "say", refuse)
        assert await s.begin()
        assert await client.call("Work.who") == "first"


async def test_a_client_that_takes_no_more_calls_is_left_alone(socket_path: Path) -> None:
    async with stand(socket_path) as s:
        with raw_client(socket_path) as raw:
            await raw.send(5, "I stop")
            await raw.send(0, 1, "rpc.ping", [])
            assert await raw.receive() == [1, 1, None, None]
            assert await s.begin()


async def test_no_more_are_on_the_way_than_may_be(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "_MOST_ON_THE_WAY", 1)
    async with stand(socket_path) as s, seqrpc.connect(socket_path) as one, seqrpc.connect(socket_path) as two:
        for connection in (one, two):
            await connection.call("rpc.ping")
        running = s.begin()
        await turns_of_the_loop()
        assert len(s.hub.dispatchers) == 1
        for _ in range(2):
            await s.take(s.other)
        assert await running


async def test_those_that_nobody_took_are_served_again(socket_path: Path) -> None:
    async with stand(socket_path) as s, seqrpc.connect(socket_path) as client:
        await client.call("rpc.ping")
        running = s.begin()
        await comes_true(lambda: not s.hub.dispatchers)
        s.theirs.close()
        assert not await running
        s.passing.let_go(take_back=True)
        assert await client.call("Work.who") == "first"


async def test_a_successor_that_stops_is_no_failure(socket_path: Path) -> None:
    async with stand(socket_path) as s, seqrpc.connect(socket_path) as client:
        await client.call("rpc.ping")
        running = s.begin()
        s.theirs.say(Word.STOPPING)
        s.theirs.say(Word.ASK)
        s.theirs.close()
        assert await running
        assert s.passing.successor_stops
