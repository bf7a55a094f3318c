"""Accepting connections on an event loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemons import exists
from support.descriptors import owned
from support.packets import receive, receive_to_the_end, send_with
from support.scarcity import table_full
from support.transport import Recorder
from support.waiting import comes_true, turns_of_the_loop

import seqrpc
from seqrpc import SeqpacketServer
from seqrpc.aio import listener
from seqrpc.aio.listener import _FIRST_DELAY, Listener
from seqrpc.aio.shares import TURN_SECONDS, share_of
from seqrpc.kernel.addresses import PathAddress
from seqrpc.kernel.listening import listen


class Site:
    """A server, and what its protocols remember."""

    def __init__(self) -> None:
        self.recorders: list[Recorder] = []
        self.news = asyncio.Event()
        self.make: Callable[[], Recorder] = Recorder

    def factory(self) -> Recorder:
        recorder = self.make()
        self.recorders.append(recorder)
        self.news.set()
        return recorder

    async def until_connections(self, number: int) -> None:
        await comes_true(lambda: len(self.recorders) >= number)

    async def end(self) -> None:
        for recorder in self.recorders:
            await recorder.end()


@contextmanager
def clients(path: Path, number: int) -> Iterator[list[socket.socket]]:
    """Return connected sockets, whether they were accepted or not."""
    socks = []
    try:
        for _ in range(number):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            socks.append(sock)
            sock.setblocking(False)
            sock.connect(os.fspath(path))
        yield socks
    finally:
        for sock in socks:
            sock.close()


async def serve(site: Site, path: Path, **options: Any) -> SeqpacketServer:
    return await seqrpc.create_server(site.factory, path, **options)


async def test_every_connection_gets_a_transport_and_a_protocol_of_its_own(socket_path: Path) -> None:
    site = Site()
    async with await serve(site, socket_path) as server:
        assert server.is_serving()
        assert server.get_loop() is asyncio.get_running_loop()
        assert [sock.getsockname() for sock in server.sockets] == [os.fspath(socket_path)]
        with clients(socket_path, 3) as socks:
            await site.until_connections(3)
            for number, sock in enumerate(socks):
                sock.send(b"%d" % number)
            for number, recorder in enumerate(site.recorders):
                await recorder.until_packets(1)
                assert recorder.packets == [b"%d" % number]
                recorder.transport.send_packet(b"to %d" % number)
            assert [await receive(sock) for sock in socks] == [b"to %d" % number for number in range(3)]
        await site.end()
    assert server.sockets == ()
    assert not server.is_serving()


@pytest.mark.parametrize("turn", [0.0, 60.0], ids=["one", "many"])
async def test_more_connections_at_once_than_are_accepted_at_one_wake_up(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, turn: float
) -> None:
    monkeypatch.setattr(listener, "TURN_SECONDS", turn)
    monkeypatch.setattr(listener, "_ALONE_SECONDS", turn)
    site = Site()
    async with await serve(site, socket_path):
        with clients(socket_path, 200) as socks:
            for sock in socks:
                sock.send(b"x")
            await site.until_connections(200)
            for recorder in site.recorders:
                await recorder.until_packets(1)
        await site.end()


async def test_while_some_wait_nobody_is_heard_at_length(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits may be another user than those who were accepted."""
    monkeypatch.setattr(listener, "_ALONE_SECONDS", 0.0)
    site = Site()
    async with await serve(site, socket_path) as server:
        door = server._listener
        with clients(socket_path, 3):
            await site.until_connections(1)
            assert share_of(os.getuid(), asyncio.get_running_loop()).turn_seconds == TURN_SECONDS
            await site.until_connections(3)
            await comes_true(lambda: door._waiting is None)
            assert share_of(os.getuid(), asyncio.get_running_loop()).turn_seconds > TURN_SECONDS
        with clients(socket_path, 3):
            await site.until_connections(4)
            door.pause_accepting()
            assert door._waiting is None
        await site.end()


async def test_nothing_is_accepted_before_start_serving(socket_path: Path) -> None:
    site = Site()
    server = await serve(site, socket_path, start_serving=False)
    assert not server.is_serving()
    with clients(socket_path, 1):
        await turns_of_the_loop()
        assert site.recorders == []
        await server.start_serving()
        await server.start_serving()
        await site.until_connections(1)
    await site.end()
    server.close()


async def test_a_peer_that_is_gone_before_it_is_accepted_is_heard_and_ended(socket_path: Path) -> None:
    site = Site()
    server = await serve(site, socket_path, start_serving=False)
    with clients(socket_path, 1) as (sock,):
        sock.send(b"last words")
    await server.start_serving()
    await site.until_connections(1)
    await site.recorders[0].until_told("lost")
    assert site.recorders[0].packets == [b"last words"]
    assert site.recorders[0].told == ["made", "eof", "lost"]
    server.close()


class Greeting(Recorder):
    """Writes as soon as it is connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.send_packet(b"hello")


async def test_a_greeting_to_a_peer_that_is_gone_is_no_error(socket_path: Path) -> None:
    site = Site()
    site.make = Greeting
    server = await serve(site, socket_path, start_serving=False)
    with clients(socket_path, 1):
        pass
    await server.start_serving()
    await site.until_connections(1)
    with clients(socket_path, 1) as (sock,):
        assert await receive(sock) == b"hello"
    await turns_of_the_loop()
    await site.recorders[1].end()
    server.close()


async def test_a_failing_factory_costs_that_connection_only(
    socket_path: Path, loop_errors: list[dict[str, Any]]
) -> None:
    def fail() -> Recorder:
        site.make = Recorder
        raise LookupError

    site = Site()
    site.make = fail
    async with await serve(site, socket_path):
        with clients(socket_path, 2) as (unlucky, lucky):
            assert await receive_to_the_end(unlucky) == []
            lucky.send(b"x")
            await site.until_connections(1)
            await site.recorders[0].until_packets(1)
        await site.end()
    assert [type(context["exception"]) for context in loop_errors] == [LookupError]
    loop_errors.clear()


async def test_a_failing_protocol_costs_that_connection_only(
    socket_path: Path, loop_errors: list[dict[str, Any]]
) -> None:
    class Failing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            site.make = Recorder
            raise LookupError

    site = Site()
    site.make = Failing
    async with await serve(site, socket_path):
        with clients(socket_path, 2) as (unlucky, lucky):
            assert await receive_to_the_end(unlucky) == []
            lucky.send(b"x")
            await site.until_connections(2)
            await site.recorders[1].until_packets(1)
        await site.recorders[1].end()
    assert [type(context["exception"]) for context in loop_errors] == [LookupError]
    loop_errors.clear()


async def test_out_of_descriptors_the_listener_looks_away_and_comes_back(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site()
    server = await serve(site, socket_path)
    with clients(socket_path, 2), caplog.at_level(logging.ERROR, "seqrpc.listener"):
        with table_full():
            await comes_true(lambda: not server.is_serving())
            assert server._listener._delay == _FIRST_DELAY
            await comes_true(lambda: server._listener._delay >= 4 * _FIRST_DELAY)  # it tries ever more rarely
        assert site.recorders == []
        await site.until_connections(2)
    assert [record.getMessage() for record in caplog.records] == [
        "! out of descriptors: [Errno 24] Too many open files; trying again until it works"
    ], "said once"
    assert server.is_serving()
    assert server._listener._delay == 0.0
    await site.end()
    server.close()


async def test_a_listener_that_looks_away_can_be_closed(socket_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    server = await serve(site, socket_path)
    with clients(socket_path, 1) as (sock,):
        with table_full():
            await comes_true(lambda: not server.is_serving())
        server.close()
        with pytest.raises(ConnectionResetError):
            await receive(sock)
    assert server._listener._retry is not None
    assert server._listener._retry.cancelled()
    assert "! out of descriptors" in caplog.text


async def test_a_listener_that_looks_away_stays_paused_until_it_is_told_to_go_on(socket_path: Path) -> None:
    site = Site()
    server = await serve(site, socket_path)
    door = server._listener
    with clients(socket_path, 2):
        with table_full():
            await comes_true(lambda: door._delay >= 4 * _FIRST_DELAY)
        door.pause_accepting()
        door.pause_accepting()
        await asyncio.sleep(4 * _FIRST_DELAY)
        assert site.recorders == []
        door.accept_connections()
        await site.until_connections(2)
    await site.end()
    server.close()


async def test_what_else_keeps_it_from_accepting_is_said_and_tried_again(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site()
    server = await serve(site, socket_path)
    server._listener._back_off(PermissionError(errno.EPERM, "no"))  # as a security module may say
    assert not server.is_serving()
    with clients(socket_path, 1):
        await site.until_connections(1)
    assert "cannot accept: [Errno 1] no" in caplog.text
    await site.end()
    server.close()


async def test_close_removes_the_file_and_leaves_connections_alone(socket_path: Path) -> None:
    site = Site()
    server = await serve(site, socket_path)
    with clients(socket_path, 1) as (sock,):
        await site.until_connections(1)
        closed = asyncio.create_task(server.wait_closed())
        await turns_of_the_loop()
        assert not closed.done()
        server.close()
        server.close()
        await closed
        await server.start_serving()
        assert not server.is_serving()
        assert not exists(socket_path)
        sock.send(b"still here")
        await site.recorders[0].until_packets(1)
    await site.end()


async def test_close_refuses_those_not_yet_accepted(socket_path: Path) -> None:
    site = Site()
    server = await serve(site, socket_path)
    with clients(socket_path, 1) as (sock,):
        server.close()
        with pytest.raises(ConnectionResetError):
            await receive(sock)
    assert site.recorders == []


async def test_what_waits_can_be_accepted_before_the_close(socket_path: Path) -> None:
    site = Site()
    site.make = Greeting
    server = await serve(site, socket_path, start_serving=False)
    with clients(socket_path, 100) as socks:
        server._listener.accept_waiting()
        server.close()
        assert len(site.recorders) == 100
        assert [await receive(sock) for sock in socks] == [b"hello"] * 100
    server._listener.accept_waiting()
    await site.end()


async def test_what_waits_is_accepted_as_far_as_there_are_descriptors(socket_path: Path) -> None:
    site = Site()
    server = await serve(site, socket_path, start_serving=False)
    with clients(socket_path, 1):
        with table_full():
            server._listener.accept_waiting()
        assert site.recorders == []
        assert server._listener._retry is None
        server.close()


async def test_the_backlog_of_an_inherited_socket_is_left_to_those_who_share_it(socket_path: Path) -> None:
    site = Site()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as shared:
        shared.bind(os.fspath(socket_path))
        shared.listen()
        server = await serve(site, f"fd:{os.dup(shared.fileno())}", start_serving=False)  # type: ignore[arg-type]
        with clients(socket_path, 1) as (sock,):
            sock.send(b"x")
            server._listener.accept_waiting()
            server.close()
            assert site.recorders == []
            accepted, _ = shared.accept()
            with accepted:
                assert accepted.recv(10) == b"x"


async def test_a_protocol_may_close_the_server_while_what_waits_is_accepted(socket_path: Path) -> None:
    class Last(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            server.close()

    site = Site()
    site.make = Last
    server = await serve(site, socket_path, start_serving=False)
    with clients(socket_path, 2):
        server._listener.accept_waiting()
        assert len(site.recorders) == 1
    await site.end()


async def test_a_protocol_may_close_the_server_as_it_is_made(socket_path: Path) -> None:
    class Last(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            server.close()

    site = Site()
    site.make = Last
    server = await serve(site, socket_path, start_serving=False)
    with clients(socket_path, 2) as (first, second):
        await server.start_serving()
        with pytest.raises(ConnectionResetError):
            await receive(second)
        first.send(b"x")
        await site.recorders[0].until_packets(1)
    assert len(site.recorders) == 1
    await site.end()


async def test_serve_forever_ends_when_the_server_is_closed(socket_path: Path) -> None:
    server = await serve(Site(), socket_path, start_serving=False)
    serving = asyncio.create_task(server.serve_forever())
    await comes_true(server.is_serving)
    server.close()
    await serving


async def test_serve_forever_that_is_cancelled_closes_the_server(socket_path: Path) -> None:
    server = await serve(Site(), socket_path)
    serving = asyncio.create_task(server.serve_forever())
    await turns_of_the_loop()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert server.sockets == ()
    assert not exists(socket_path)


async def test_a_server_may_have_the_kernel_refuse_descriptors(socket_path: Path) -> None:
    site = Site()
    async with await serve(site, socket_path, accept_descriptors=False):
        with clients(socket_path, 1) as (sock,), owned(1) as fds:
            with pytest.raises(PermissionError):
                send_with(sock, b"x", [fds[0].fileno()])
            await site.until_connections(1)
        await site.end()


async def test_what_waits_is_accepted_for_so_long_and_the_rest_is_reset(socket_path: Path) -> None:
    class Slow(Greeting):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            time.sleep(0.05)

    site = Site()
    site.make = Slow
    server = await serve(site, socket_path, start_serving=False, limits=seqrpc.Limits(close_timeout=0.12))
    with clients(socket_path, 20) as socks:
        server._listener.accept_waiting()
        server.close()
        number = len(site.recorders)
        assert 1 <= number <= 3
        assert [await receive(sock) for sock in socks[:number]] == [b"hello"] * number
        with pytest.raises(ConnectionResetError):
            await receive(socks[number])
    await site.end()


async def test_one_that_pauses_accepts_nobody_and_one_that_is_another_s_leaves_all_to_it(socket_path: Path) -> None:
    site = Site()
    listening = listen(PathAddress(os.fspath(socket_path)))
    listener = Listener(asyncio.get_running_loop(), listening, site.factory)
    listener.accept_connections()
    listener.pause_accepting()
    assert listener.listening is listening
    with clients(socket_path, 2):
        await turns_of_the_loop()
        assert site.recorders == []
        listener.accept_connections()
        await site.until_connections(2)
        listener.pause_accepting()
        listening.is_anothers = True
        with clients(socket_path, 1):
            listener.accept_waiting()
            assert len(site.recorders) == 2
        listener.close()
        listener.pause_accepting()
        assert exists(socket_path)
    await site.end()
