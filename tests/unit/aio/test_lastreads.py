from __future__ import annotations

import asyncio
import errno
import logging
import os
import selectors
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import RawClient, raw_client
from support.descriptors import open_fds
from support.packets import send_with
from support.processes import in_child
from support.scarcity import no_room, short_table, stalled
from support.waiting import PATIENCE, loop_rests

import seqrpc
from seqrpc.aio.connection import link_of
from seqrpc.aio.lastreads import _MOST_READS, LastReads, _Reading
from seqrpc.aio.link import Link

ENDLESS = 600.0

PING = msgpack.packb([0, 1, "rpc.ping", []])
TAKE = msgpack.packb([0, 1, "Quiet.take", [msgpack.ExtType(1, b"\0")]])
PING_ONEWAY = msgpack.packb([2, "rpc.ping", []])


class Quiet(seqrpc.Service):
    """Has something to wait for."""

    @seqrpc.method
    async def wait(self) -> None:
        await asyncio.sleep(ENDLESS)

    @seqrpc.method
    async def take(self, file: seqrpc.OwnedFd) -> None:
        pass


class Held:
    """Connections of a server that are held back, in the order of their clients."""

    def __init__(self, clients: list[RawClient], connections: list[Link], seconds: float) -> None:
        self.clients = clients
        self.connections = connections
        self.reads = LastReads(seconds)
        self.readings: list[_Reading] = []

    def hold(self) -> None:
        again = bool(self.readings)
        self.reads.hold(self.connections)
        if not again:
            self.readings = [self.reads._held[link] for link in self.connections if link in self.reads._held]

    def reading(self) -> list[bool]:
        return [connection.transport.is_reading() for connection in self.connections]


@asynccontextmanager
async def connected(path: Path, number: int = 1, seconds: float = ENDLESS) -> AsyncIterator[Held]:
    with ExitStack() as stack:
        async with seqrpc.serve(Quiet(), path) as server:
            clients: list[RawClient] = []
            connections: list[Link] = []
            for _ in range(number):
                client = stack.enter_context(raw_client(path))
                await ping(client)
                (new,) = {link_of(connection) for connection in server.connections} - set(connections)
                clients.append(client)
                connections.append(new)
            held = Held(clients, connections, seconds)
            try:
                yield held
            finally:
                held.reads.close()


async def ping(client: RawClient) -> None:
    await client.send(0, 1, "rpc.ping", [])
    assert await client.receive() == [1, 1, None, None]


async def turns(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)


@pytest.mark.parametrize("number", [1, 5, 150])
async def test_what_is_unread_is_read_and_answered(number: int, socket_path: Path) -> None:
    async with connected(socket_path, 3) as held:
        for client in held.clients[:2]:
            for call_id in range(number):
                client.sock.send(msgpack.packb([0, call_id, "rpc.ping", []]))
        held.hold()
        held.hold()
        await held.reads.finish()
        for client in held.clients[:2]:
            for call_id in range(number):
                assert msgpack.unpackb(client.sock.recv(100)) == [1, call_id, None, None]
        assert held.reading() == [False] * 3
        assert held.readings[2].reads == 0


async def test_what_comes_later_is_read_too_until_the_end(socket_path: Path) -> None:
    async with connected(socket_path, 2) as held:
        held.hold()
        await held.reads.finish()
        for _ in range(3):
            for client in held.clients:
                await ping(client)
        held.reads.close()
        held.reads.close()
        await held.reads.finish()
        held.clients[0].sock.send(PING)
        for _ in range(10):
            await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            held.clients[0].sock.recv(100)


async def test_closing_ends_who_waits_for_the_end_of_reading(socket_path: Path) -> None:
    async with connected(socket_path) as held:
        held.hold()
        held.clients[0].sock.send(PING)
        finishing = asyncio.ensure_future(held.reads.finish())
        await asyncio.sleep(0)
        held.reads.close()
        async with asyncio.timeout(PATIENCE):
            await finishing


class Flood:
    """A client that sends on and on, as fast as its connection is read."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.loop = asyncio.get_running_loop()
        self.sending = True
        self.send()

    def send(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self.client.sock.send(PING_ONEWAY)
        if self.sending:
            self.loop.call_soon(self.send)


async def test_who_sends_on_and_on_is_read_so_many_times_and_others_first(socket_path: Path) -> None:
    async with connected(socket_path, 3) as held:
        floods = [Flood(client) for client in held.clients[:2]]
        held.hold()
        for _ in range(5):
            await ping(held.clients[2])
        finishing = asyncio.ensure_future(held.reads.finish())
        assert max(reading.reads for reading in held.readings) < _MOST_READS
        async with asyncio.timeout(PATIENCE):
            await finishing
        assert [reading.reads for reading in held.readings[:2]] == [_MOST_READS] * 2
        await ping(held.clients[2])
        for flood in floods:
            flood.sending = False


async def test_who_sends_on_and_on_is_waited_for_so_long(socket_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seqrpc")
    async with connected(socket_path, 1, 0.01) as held:
        flood = Flood(held.clients[0])
        held.hold()
        async with asyncio.timeout(PATIENCE):
            await held.reads.finish()
        flood.sending = False
        assert "who still sends after 0.01 s is not read any more" in caplog.text


async def test_who_has_a_call_under_way_is_read_on_and_on(socket_path: Path) -> None:
    async with connected(socket_path) as held:
        (client,), (connection,) = held.clients, held.connections
        call = asyncio.ensure_future(connection.caller.request("Peer.answer", ()))
        assert await client.receive() == [0, 0, "Peer.answer", []]
        held.hold()
        (reading,) = held.readings
        assert reading.is_waited_on
        reading.reads = _MOST_READS
        for _ in range(3):
            await ping(client)
        await client.send(0, 7, "Quiet.wait", [])
        await client.send(1, 0, None, 5)
        assert await call == 5
        assert reading.is_waited_on
        await client.send(3, 7)
        assert (await client.receive())[:2] == [1, 7]
        assert not reading.is_waited_on
        client.sock.send(PING_ONEWAY)
        await turns(lambda: connection not in held.reads._held)  # it was read often enough


async def test_a_connection_that_is_held_back_stays_so_when_its_peer_reads_again(socket_path: Path) -> None:
    async with connected(socket_path) as held:
        (client,), (connection,) = held.clients, held.connections
        held.hold()
        sent = 0
        while not connection.writing_paused:
            await connection.caller.send_notify("Peer.hear", (b"x" * 30_000,))
            sent += 1
        for _ in range(sent):
            message = await client.receive()
            assert message[:2] == [2, "Peer.hear"]
        await turns(lambda: not connection.writing_paused)
        assert held.reading() == [False]
        await ping(client)


async def test_a_connection_that_ends_is_noticed_and_one_that_has_ended_is_not_read(socket_path: Path) -> None:
    async with connected(socket_path, 2) as held:
        held.connections[0].abandon()
        held.hold()
        assert not held.connections[0].is_held
        held.clients[1].sock.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(PATIENCE):
            for connection in held.connections:
                await connection.wait_closed()
        for connection in held.connections:
            held.reads.forget(connection)  # as the server does
        held.reads.forget(held.connections[1])
        await held.reads.finish()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["no room", "short table"])
async def test_who_brings_what_there_is_no_room_for_waits_quietly_and_is_read_then(
    socket_path: Path, pipe: tuple[int, int], elsewhere: bool
) -> None:
    async with connected(socket_path, 2) as held:
        client = held.clients[0]
        with ExitStack() as stack:
            if elsewhere:
                stack.enter_context(short_table())
            lifted = stack.enter_context((stalled if elsewhere else no_room)(os.getuid()))
            send_with(client.sock, TAKE, pipe[:1])
            held.hold()
            (reading, _other) = held.readings
            await turns(lambda: reading in held.reads._shut)
            finishing = asyncio.ensure_future(held.reads.finish())
            assert await loop_rests()
            assert not finishing.done()
            await ping(held.clients[1])
            lifted.set()
            async with asyncio.timeout(PATIENCE):
                await finishing
            assert await client.receive() == [1, 1, None, None]
        assert reading.reads <= 3


async def test_who_waits_for_room_and_ends_is_not_waited_for(socket_path: Path, pipe: tuple[int, int]) -> None:
    async with connected(socket_path, 2) as held:
        with no_room(os.getuid()):
            for client in held.clients:
                send_with(client.sock, TAKE, pipe[:1])
            held.hold()
            await turns(lambda: len(held.reads._shut) == 2)
            finishing = asyncio.ensure_future(held.reads.finish())
            for connection in held.connections:
                assert not finishing.done()
                connection.abandon()
                held.reads.forget(connection)  # as the server does
                await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE):
                await finishing


async def test_nobody_is_looked_at_again_after_the_end(socket_path: Path, pipe: tuple[int, int]) -> None:
    async with connected(socket_path) as held:
        with no_room(os.getuid()):
            send_with(held.clients[0].sock, TAKE, pipe[:1])
            held.hold()
            await turns(lambda: held.reads._shut)
            (timer,) = held.reads._shut.values()
            held.reads.close()
            assert timer.cancelled()


async def test_who_is_closing_is_not_read(socket_path: Path) -> None:
    async with connected(socket_path) as held:
        (client,), (connection,) = held.clients, held.connections
        held.hold()
        while not connection.writing_paused:
            await connection.caller.send_notify("Peer.hear", (b"x" * 30_000,))
        connection.transport.close()  # and it stays until its peer has read
        client.sock.send(PING)
        await turns(lambda: connection not in held.reads._held)
        assert await loop_rests()
        connection.abandon()


async def test_without_a_descriptor_to_spare_the_loop_reads_on(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    async with connected(socket_path) as held:
        with monkeypatch.context() as patch:
            patch.setattr(selectors, "DefaultSelector", fail)
            held.hold()
        assert "the connections are read as before while the server stops" in caplog.text
        await held.reads.finish()
        assert held.reading() == [True]
        await ping(held.clients[0])


async def test_a_child_that_is_forked_meanwhile_has_no_copy_of_what_watches_the_connections(socket_path: Path) -> None:
    async with connected(socket_path) as held:

        def watchers() -> int:
            return [os.readlink(f"/proc/self/fd/{fd}") for fd in open_fds()].count("anon_inode:[eventpoll]")

        before, before_in_child = watchers(), in_child(watchers)
        held.hold()
        assert watchers() == before + 1
        assert in_child(watchers) == before_in_child
        await ping(held.clients[0])
