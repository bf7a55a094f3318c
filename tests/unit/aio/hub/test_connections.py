"""How many connections a server takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from pathlib import Path

import pytest
from support.daemons import raw_client
from support.processes import AS_ROOT, OTHER_UID, running_child
from support.waiting import PATIENCE, comes_true, turns_of_the_loop
from support.work import Work

import seqrpc
from seqrpc.aio import accounts
from seqrpc.aio.accounts import CONNECTIONS
from seqrpc.aio.connection import link_of
from seqrpc.aio.endpoints import open_transport
from seqrpc.aio.hub import Hub
from seqrpc.aio.interception import Interception
from seqrpc.aio.link import Link
from seqrpc.aio.registry import Registry
from seqrpc.aio.server import hub_of

USER_HAS = "user {} has {} connections here already, of {} that one user may have (max_connections)"
ONE_IS_ALL = USER_HAS.format(os.geteuid(), 1, 1)


class Giver(seqrpc.Service):
    @seqrpc.method
    async def give(self) -> Work:
        return Work()


async def test_connections_beyond_the_limit_are_told_so_and_closed(socket_path: Path) -> None:
    limits = seqrpc.Limits(max_connections=1)
    async with seqrpc.serve(Work(), socket_path, limits=limits) as server:
        async with seqrpc.connect(socket_path) as first:
            await first.call("rpc.ping")
            with raw_client(socket_path) as second:
                assert await second.receive() == [5, ONE_IS_ALL]
                assert await second.receive() is None
            async with seqrpc.connect(socket_path) as third:
                with pytest.raises((seqrpc.Unavailable, seqrpc.ConnectionLost), match="1 connections here already"):
                    await third.call("Work.add", 1, 2)
            assert await first.call("Work.add", 1, 2) == 3
        while server.connections:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        async with seqrpc.connect(socket_path) as fourth:
            assert await fourth.call("Work.add", 1, 2) == 3


@pytest.mark.skipif(not AS_ROOT, reason="needs to be another user")
@pytest.mark.parametrize("pass_credentials", [False, True])
async def test_one_user_s_connections_leave_room_for_others(socket_path: Path, pass_credentials: bool) -> None:
    def connect_as_another() -> socket.socket:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(str(socket_path))
        return peer

    socket_path.parent.chmod(0o755)
    limits = seqrpc.Limits(max_connections=128)
    async with seqrpc.serve(
        Work(), socket_path, limits=limits, mode=0o666, pass_credentials=pass_credentials
    ) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(112):
                stack.enter_context(raw_client(socket_path))
            while len(server.connections) < 112:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
            with raw_client(socket_path) as one_more:
                assert await one_more.receive() == [5, USER_HAS.format(os.geteuid(), 112, 112)]
                assert await one_more.receive() is None
            with running_child(connect_as_another, uid=OTHER_UID):
                async with asyncio.timeout(PATIENCE):
                    while OTHER_UID not in [link_of(one).uid for one in server.connections]:  # noqa: ASYNC110 - no event tells
                        await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert len(server.connections) == 113, "he is not refused"
        while server.connections:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        assert not hub_of(server).ledger.total[CONNECTIONS]


async def test_who_finds_no_descriptor_left_waits_until_a_connection_ends(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accounts, "free_descriptors", lambda _soft: 1)
    async with seqrpc.serve(Work(), socket_path) as server:
        for number in range(3):
            async with seqrpc.connect(socket_path) as first, seqrpc.connect(socket_path) as second:
                assert await first.call("Work.add", number, 2) == number + 2
                waiting = asyncio.ensure_future(second.call("Work.add", 1, 2))
                for _ in range(20):
                    assert await first.call("Work.add", 1, 2) == 3
                assert len(server.connections) == 1
                assert not waiting.done()
                await first.close()
                assert await waiting == 3
    assert caplog.text.count("are all that RLIMIT_NOFILE leaves room for") == 1, "said once"


async def test_a_full_server_that_stands_aside_leaves_those_who_come_then_to_another(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "free_descriptors", lambda _soft: 1)
    async with seqrpc.serve(Work(), socket_path) as server:
        hub = hub_of(server)
        async with seqrpc.connect(socket_path) as first, seqrpc.connect(socket_path) as second:
            assert await first.call("Work.add", 1, 2) == 3
            waiting = asyncio.ensure_future(second.call("Work.add", 1, 2))
            hub.stand_aside()
            await first.close()
            await comes_true(lambda: not server.connections)
            await turns_of_the_loop()
            assert not server.connections
            assert not waiting.done()
            hub.accept()
            assert await waiting == 3


async def test_who_waits_for_a_descriptor_is_told_when_the_server_stops(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "free_descriptors", lambda _soft: 1)
    async with seqrpc.serve(Work(), socket_path) as server, seqrpc.connect(socket_path) as first:
        assert await first.call("Work.add", 1, 2) == 3
        with raw_client(socket_path) as second:
            server.refuse_new()
            assert await second.receive() == [5, "the server is stopping"]
            await first.close()
            assert await second.receive() is None


async def test_without_a_bound_of_descriptors_the_limits_are_the_bound(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _what: unlimited)
    async with seqrpc.serve(Work(), socket_path), seqrpc.connect(socket_path) as connection:
        assert await connection.call("Work.add", 1, 2) == 3


async def test_a_connection_that_comes_while_the_server_stops_is_refused(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server:
        hub_of(server)._draining = True  # as in the turn of the loop in which it is accepted
        with raw_client(socket_path) as client:
            assert await client.receive() == [5, "the server is stopping"]
            assert await client.receive() is None


class NoDoor:
    """Lets nobody in, and remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.sockets: tuple[socket.socket, ...] = ()
        self.is_unclosed = False
        self.is_anothers = False

    failures = 0

    def accept_connections(self) -> None:
        self.told.append("accept")

    def pause_accepting(self) -> None:
        self.told.append("pause")

    def accept_waiting(self) -> None:
        self.told.append("accept waiting")

    def close(self) -> None:
        self.told.append("close")

    def abandon(self) -> None:
        self.told.append("abandon")


async def test_connections_may_come_from_elsewhere_each_with_what_surrounds_its_calls() -> None:
    class Audit(seqrpc.Interceptor):
        def __init__(self) -> None:
            self.methods: list[str] = []

        def ended(self, record: seqrpc.CallRecord) -> None:
            self.methods.append(record.method or "")

    hub = Hub(Registry([Work()]), None, seqrpc.Limits(), Interception())
    door, audit = NoDoor(), Audit()
    hub.listen_with(door)
    for calls in (None, Interception([audit])):
        ours, theirs = seqrpc.socket_pair()
        open_transport(theirs, hub.new_link(calls), seqrpc.Limits())
        async with seqrpc.connect(sock=ours) as connection:
            assert await connection.call("Work.add", 1, 2) == 3
    assert audit.methods == ["Work.add"]
    while hub.connections:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)
    assert door.told == ["accept"], "it goes on without connections"
    await hub.close()
    assert door.told == ["accept", "accept waiting", "close"]


async def test_objects_are_served_over_transports_that_an_interception_opens() -> None:
    opened = []

    class Giver(seqrpc.Service):
        @seqrpc.method
        async def give(self) -> Work:
            return Work()

    def opens(sock: socket.socket, link: Link, limits: seqrpc.Limits) -> None:
        opened.append(sock)
        open_transport(sock, link, limits)

    hub = Hub(Registry([Giver()]), None, seqrpc.Limits(), Interception((), opens))
    ours, theirs = seqrpc.socket_pair()
    open_transport(theirs, hub.new_link(), seqrpc.Limits())
    async with seqrpc.connect(sock=ours) as connection:
        work = await connection.proxy(Giver).give()
        assert await work.add(1, 2) == 3
    assert len(opened) == 1
    await hub.close()


async def test_all_that_runs_is_watched_on_connections_and_on_objects(socket_path: Path) -> None:
    async with seqrpc.serve([Work(), Giver()], socket_path) as server, seqrpc.connect(socket_path) as connection:
        watches = hub_of(server).watches
        async with await connection.proxy(Giver).give() as given:
            watch = watches.begin((), None)
            await given.add(1, 2)
            await connection.call("Work.add", 1, 2)
            events = [await watch.next() for _ in range(2)]
            assert [event.method for event in events if event is not None] == ["Work.add", "Work.add"]
            watch.close()
