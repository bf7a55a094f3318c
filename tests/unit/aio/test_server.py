from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import Stage, exists, on_a_pair, raw_client, said_closing
from support.processes import AS_ROOT, OTHER_UID, running_child
from support.waiting import PATIENCE

import seqrpc
from seqrpc import OwnedFd
from seqrpc.aio.connection import link_of
from seqrpc.aio.server import hub_of
from seqrpc.limits import RESERVED_DESCRIPTORS


class Work(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()
        self.server: seqrpc.Server | None = None

    @seqrpc.method
    async def work(self) -> str:
        self.stage.reach("began")
        try:
            await self.stage.wait("may go on")
        except asyncio.CancelledError:
            self.stage.reach("cancelled")
            raise
        return "done"

    @seqrpc.method
    async def go_on(self) -> None:
        self.stage.reach("began")
        try:
            await asyncio.Event().wait()
        finally:
            self.stage.reach("cancelled")
            await self.stage.wait("may end")

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def stop(self) -> None:
        assert self.server is not None
        await self.server.close()


class Sums(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b


class TakesText(seqrpc.Service):
    @seqrpc.method
    async def take(self, text: str) -> None:
        pass


class TakesDescriptors(seqrpc.Service):
    @seqrpc.method
    async def take(self, fd: OwnedFd) -> None:
        pass


@contextmanager
def descriptors_limited(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_serving_begins_and_ends_with_the_block(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        assert str(server.address) == str(socket_path)
        assert [sock.getsockname() for sock in server.sockets] == [str(socket_path)]
        assert mode_of(socket_path) == 0o600
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call("Work.add", 1, 2) == 3
            assert len(server.connections) == 1
        while server.connections:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
    assert not exists(socket_path)
    assert server.sockets == ()
    await server.wait_closed()


async def test_serving_can_be_awaited(socket_path: Path) -> None:
    server = await seqrpc.serve([Work(), TakesDescriptors()], socket_path, mode=0o640, group=os.getgid(), backlog=5)
    async with server as same:
        assert same is server
        assert mode_of(socket_path) == 0o640
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call("Work.add", 1, 2) == 3
    await server.close()
    assert not exists(socket_path)


async def test_what_cannot_be_served_is_told_at_once(socket_path: Path, pipe: tuple[int, int]) -> None:
    class Wrong(seqrpc.Service):
        @seqrpc.method
        async def take(self, where: socket.socket) -> None:
            pass

    with pytest.raises(TypeError, match=r"Wrong\.take: where"):
        await seqrpc.serve(Wrong(), socket_path)
    for arguments in ({}, {"address": socket_path, "sock": socket.socket.__new__(socket.socket)}):
        with pytest.raises(ValueError, match="pass an address, or sock="):
            await seqrpc.serve(Work(), **arguments)  # type: ignore[arg-type]
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with stream, pytest.raises(seqrpc.AddressError, match="SOCK_SEQPACKET was expected"):
        await seqrpc.serve(Work(), sock=stream)
    with pytest.raises(seqrpc.AddressError, match="is not a socket"):
        await seqrpc.serve(Work(), f"fd:{pipe[0]}")  # it does not fit, so it is not taken
    with pytest.raises(seqrpc.AddressError, match="not connected"):
        await seqrpc.serve(Work(), sock=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    assert not exists(socket_path)


async def test_a_second_server_is_told_that_the_address_is_in_use(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path):
        with pytest.raises(seqrpc.AddressInUse):
            await seqrpc.serve(Work(), socket_path)
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call("Work.add", 1, 2) == 3


@pytest.mark.parametrize("how", ["sock", "fd"])
async def test_a_socket_that_listens_already_is_served(how: str, socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(socket_path))
        listener.listen()
        sock = listener.dup()
    serving = seqrpc.serve(Work(), sock=sock) if how == "sock" else seqrpc.serve(Work(), f"fd:{sock.detach()}")
    async with serving, seqrpc.connect(socket_path) as connection:
        assert await connection.call("Work.add", 1, 2) == 3
    assert exists(socket_path), "the file is whoever's who bound it"


@pytest.mark.parametrize("how", ["sock", "fd"])
async def test_a_server_on_a_pair_ends_with_the_other_side(how: str) -> None:
    ours, theirs = seqrpc.socket_pair()
    serving = seqrpc.serve(Work(), sock=theirs) if how == "sock" else seqrpc.serve(Work(), f"fd:{theirs.detach()}")
    server = await serving
    assert server.sockets == ()
    async with seqrpc.connect(sock=ours) as connection:
        assert await connection.call("Work.add", 1, 2) == 3
        assert len(server.connections) == 1
    async with asyncio.timeout(PATIENCE):
        await server.wait_closed()
    assert server.connections == frozenset()


@pytest.mark.parametrize("accept, service, accepted", [
    (None, Sums, False), (None, TakesText, True), (None, TakesDescriptors, True), (True, Sums, True),
    (False, TakesDescriptors, False),
])  # fmt: skip
async def test_descriptors_are_accepted_where_any_argument_takes_one_or_may_be_large(
    accept: bool | None, service: type[seqrpc.Service], accepted: bool, socket_path: Path, pipe: tuple[int, int]
) -> None:
    async with (
        seqrpc.serve(service(), socket_path, accept_descriptors=accept) as server,
        seqrpc.connect(socket_path) as connection,
    ):
        passes_rights = server.sockets[0].getsockopt(socket.SOL_SOCKET, 83)  # SO_PASSRIGHTS, Linux 6.16
        assert bool(passes_rights) is accepted
        with OwnedFd.dup(pipe[0]) as fd, pytest.raises(seqrpc.RpcError) as caught:
            await connection.call("Nobody.takes", fd)
        assert type(caught.value) is (seqrpc.MethodNotFound if accepted else seqrpc.PermissionDenied)


async def test_draining_finishes_what_runs_and_refuses_what_comes(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server:
        with raw_client(socket_path) as client:
            await client.send(0, 1, "Work.work", [])
            await service.stage.wait("began")
            draining = asyncio.ensure_future(server.drain())
            assert await client.receive() == [5, "the server is stopping"]
            assert not exists(socket_path)
            with pytest.raises(seqrpc.ConnectError):
                await seqrpc.connect(socket_path)
            await client.send(0, 2, "Work.add", [1, 2])
            assert await client.receive() == [1, 2, ["rpc.Unavailable", "this side takes no new requests", None], None]
            assert not draining.done()
            service.stage.reach("may go on")
            assert await client.receive() == [1, 1, None, "done"]
            assert await client.receive() is None
            assert await draining is True
    assert service.stage.reached == ["began", "may go on"]


async def test_clients_of_a_draining_server_are_told_without_asking_it(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.work"))
        await service.stage.wait("began")
        draining = asyncio.ensure_future(server.drain())
        await said_closing(connection)
        with pytest.raises(seqrpc.Unavailable, match="the server is stopping"):
            await connection.call("Work.add", 1, 2)
        service.stage.reach("may go on")
        assert await call == "done"
        assert await draining is True


@pytest.mark.parametrize("own_limit", [True, False])
async def test_draining_has_a_bound(own_limit: bool, socket_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = Work()
    limits = seqrpc.Limits(drain_timeout=0.02 if not own_limit else 60)
    async with seqrpc.serve(service, socket_path, limits=limits) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.work"))
        await service.stage.wait("began")
        assert await server.drain(0.02 if own_limit else None) is False
        assert service.stage.reached == ["began", "cancelled"]
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await call
    assert "handlers were still running after the drain timeout" in caplog.text


async def test_draining_what_is_idle_ends_at_once(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        await connection.call("rpc.ping")
        assert await server.drain(60) is True
        await connection.wait_closed()


async def test_draining_and_closing_at_once_both_end(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.work"))
        await service.stage.wait("began")
        draining = [asyncio.ensure_future(server.drain(PATIENCE)) for _ in range(2)]
        await asyncio.sleep(0)
        await server.close()
        assert await asyncio.gather(*draining) == [True, True]
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await call


async def test_closing_cancels_handlers_and_waits_for_them(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.work"))
        await service.stage.wait("began")
        await server.close()
        assert service.stage.reached == ["began", "cancelled"]
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await call
        assert server.connections == frozenset()


@pytest.mark.parametrize("how", ["drain", "close"])
async def test_handlers_that_go_on_are_waited_for_so_long_and_no_longer(
    how: str, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Work()
    limits = seqrpc.Limits(drain_timeout=0.02, close_timeout=0.05)
    async with seqrpc.serve(service, socket_path, limits=limits) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.go_on"))
        await service.stage.wait("began")
        async with asyncio.timeout(PATIENCE / 4):  # the stage would let it go on for longer
            await getattr(server, how)()
            await server.wait_closed()
        assert service.stage.reached == ["began", "cancelled"]
        assert "handlers are still running 0.05 s after they were cancelled" in caplog.text
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await call
    others = asyncio.all_tasks() - {asyncio.current_task()}
    service.stage.reach("may end")
    await asyncio.gather(*others, return_exceptions=True)


async def test_a_drain_that_is_cancelled_closes(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.work"))
        await service.stage.wait("began")
        draining = asyncio.ensure_future(server.drain())
        await asyncio.sleep(0)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        assert service.stage.reached == ["began", "cancelled"]
        assert server.connections == frozenset()
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await call
    described = seqrpc.Server.drain.__doc__
    assert described is not None
    assert "the server is closed" in described.partition("Cancel:")[2]


@pytest.mark.parametrize("number", [1, 5, 150])
async def test_what_was_sent_before_a_drain_is_answered(number: int, socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        with raw_client(socket_path) as client:
            await client.send(0, 0, "rpc.ping", [])
            assert await client.receive() == [1, 0, None, None]
            for call_id in range(number):
                client.sock.send(msgpack.packb([0, call_id, "Work.add", [1, 2]]))
            assert await server.drain() is True
            assert await client.receive() == [5, "the server is stopping"]
            refusal = ["rpc.Unavailable", "this side takes no new requests", None]
            for call_id in range(number):
                assert await client.receive() == [1, call_id, refusal, None]
            assert await client.receive() is None


async def test_who_sends_on_and_on_does_not_keep_a_drain_from_ending(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        with raw_client(socket_path) as client:
            await client.send(0, 0, "rpc.ping", [])
            assert await client.receive() == [1, 0, None, None]

            def send_on() -> None:
                try:
                    client.sock.send(msgpack.packb([2, "Work.add", [1, 2]]))
                except BlockingIOError:
                    pass
                except OSError:
                    return
                asyncio.get_running_loop().call_soon(send_on)

            send_on()
            async with asyncio.timeout(PATIENCE):
                assert await server.drain() is True


@pytest.mark.parametrize("how", ["drain", "close"])
async def test_who_waits_to_be_accepted_is_told_why_that_will_not_be(how: str, socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path, limits=seqrpc.Limits(max_connections=2)) as server:
        with raw_client(socket_path) as first, raw_client(socket_path) as second, raw_client(socket_path) as third:
            for client in (first, second, third):
                client.sock.send(msgpack.packb([0, 1, "Work.add", [1, 2]]))
            await getattr(server, how)()
            for client in (first, second, third):
                assert await client.receive() == [5, "the server is stopping"]
                assert await client.receive() is None


async def test_a_handler_may_close_its_own_server(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        service.server = server
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await connection.call("Work.stop")
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
    assert not exists(socket_path)


async def test_connections_beyond_the_limit_are_told_so_and_closed(socket_path: Path) -> None:
    limits = seqrpc.Limits(max_connections=1)
    async with seqrpc.serve(Work(), socket_path, limits=limits) as server:
        async with seqrpc.connect(socket_path) as first:
            await first.call("rpc.ping")
            with raw_client(socket_path) as second:
                assert await second.receive() == [5, "the server has 1 connections already"]
                assert await second.receive() is None
            async with seqrpc.connect(socket_path) as third:
                with pytest.raises((seqrpc.Unavailable, seqrpc.ConnectionLost), match="1 connections already"):
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
            for _ in range(126):
                stack.enter_context(raw_client(socket_path))
            while len(server.connections) < 126:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
            with raw_client(socket_path) as one_more:
                assert await one_more.receive() == [5, "the server has 126 connections of this user already"]
                assert await one_more.receive() is None
            with running_child(connect_as_another, uid=OTHER_UID):
                async with asyncio.timeout(PATIENCE):
                    while OTHER_UID not in [link_of(one).uid for one in server.connections]:  # noqa: ASYNC110 - no event tells
                        await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert len(server.connections) == 127, "he is not refused"
        while server.connections:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        assert not hub_of(server)._connections_of


async def test_connections_leave_some_descriptors_free(socket_path: Path) -> None:
    with descriptors_limited(RESERVED_DESCRIPTORS + 1):
        async with seqrpc.serve(Work(), socket_path), seqrpc.connect(socket_path) as first:
            await first.call("rpc.ping")
            with raw_client(socket_path) as second:
                assert await second.receive() == [5, "the server has 1 connections already"]
                assert await second.receive() is None
            assert await first.call("Work.add", 1, 2) == 3


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


async def test_threads_of_a_server_go_with_it(socket_path: Path) -> None:
    class Plain(seqrpc.Service):
        def __init__(self) -> None:
            self.thread: Any = None

        @seqrpc.method
        def remember(self) -> None:
            import threading

            self.thread = threading.current_thread()

    service = Plain()
    async with on_a_pair(service) as connection:
        await connection.call("Plain.remember")
    await asyncio.to_thread(service.thread.join, PATIENCE)
    assert not service.thread.is_alive()
