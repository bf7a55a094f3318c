"""Servers, as those who serve see them."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from support.daemons import exists
from support.waiting import PATIENCE
from support.work import Work

import seqrpc
from seqrpc import OwnedFd
from seqrpc.aio.server import hub_of


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
    server = await seqrpc.serve([Work(), TakesDescriptors()], socket_path, mode=0o660, group=os.getgid(), backlog=5)
    async with server as same:
        assert same is server
        assert mode_of(socket_path) == 0o660
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


@pytest.mark.parametrize("is_pair", [True, False])
async def test_a_mode_for_a_socket_that_others_made_is_refused_and_the_socket_left_alone(
    is_pair: bool, socket_path: Path
) -> None:
    first, second = seqrpc.socket_pair()
    with first, second, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(os.fspath(socket_path))
        listening.listen()
        sock = first if is_pair else listening
        with pytest.raises(seqrpc.AddressError, match=r"^sock=: mode= and group= cannot be given here: "):
            await seqrpc.serve(Work(), sock=sock, mode=0o600, group=0)
        with pytest.raises(seqrpc.AddressError, match=rf"^fd:{sock.fileno()}: mode= cannot be given here: "):
            await seqrpc.serve(Work(), f"fd:{sock.fileno()}", mode=0o660)
        assert sock.fileno() >= 0
        os.fstat(sock.fileno())


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


async def test_a_server_refuses_what_is_new_and_drains(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        assert repr(server) == f"<Server at {socket_path}>"
        assert hub_of(server).address == server.address
        assert await connection.call("Work.add", 1, 2) == 3
        server.refuse_new()
        with pytest.raises(seqrpc.Unavailable):
            await connection.call("Work.add", 1, 2)
        assert await server.drain(PATIENCE)
        assert server.connections == frozenset()
        server.refuse_new()
    assert not exists(socket_path)
