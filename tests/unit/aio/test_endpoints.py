"""From an address to a transport or a listening server."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from pathlib import Path

import pytest
from support.daemons import exists
from support.packets import raw_pair, receive
from support.transport import Recorder
from support.waiting import turns_of_the_loop

import seqrpc
from seqrpc import AddressError, AddressInUse, Limits, NobodyListens, ServerBusy, UntrustedServer, policy
from seqrpc.aio.endpoints import check_server
from seqrpc.interface.policy import Policy


class Unmade(Recorder):
    """Fails as it is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raise LookupError("unmade")


def unmakeable() -> Recorder:
    raise LookupError("unmakeable")


async def test_both_ends_are_connected_by_an_address(socket_path: Path) -> None:
    accepted: list[Recorder] = []

    def accept() -> Recorder:
        accepted.append(Recorder())
        return accepted[0]

    async with await seqrpc.create_server(accept, socket_path, mode=0o640) as server:
        assert server.is_serving()
        assert stat.S_IMODE(os.stat(socket_path).st_mode) == 0o640
        transport, client = await seqrpc.create_connection(Recorder, str(socket_path))
        assert client.transport is transport
        transport.send_packet(b"question")
        await asyncio.wait_for(_accepted(accepted), 10)
        await accepted[0].until_packets(1)
        accepted[0].transport.send_packet(b"answer")
        await client.until_packets(1)
        assert client.packets == [b"answer"]
        await client.end()
        await accepted[0].until_told("lost")


async def _accepted(accepted: list[Recorder]) -> None:
    while not accepted:
        await turns_of_the_loop(1)


async def test_a_server_may_wait_to_be_started(socket_path: Path) -> None:
    server = await seqrpc.create_server(Recorder, socket_path, start_serving=False)
    assert not server.is_serving()
    assert exists(socket_path)
    server.close()


async def test_two_servers_cannot_have_one_address(socket_path: Path) -> None:
    async with await seqrpc.create_server(Recorder, socket_path):
        with pytest.raises(AddressInUse):
            await seqrpc.create_server(Recorder, socket_path)


async def test_a_connected_socket_may_be_given() -> None:
    ours, theirs = raw_pair()
    transport, recorder = await seqrpc.create_connection(Recorder, sock=ours)
    assert transport.get_extra_info("socket") is ours
    transport.send_packet(b"x")
    assert await receive(theirs) == b"x"
    await recorder.end()
    theirs.close()


async def test_an_inherited_socket_may_be_named() -> None:
    ours, theirs = raw_pair()
    _transport, recorder = await seqrpc.create_connection(Recorder, f"fd:{ours.detach()}")
    theirs.send(b"x")
    await recorder.until_packets(1)
    await recorder.end()
    theirs.close()


async def test_an_address_or_a_socket_is_given_not_both_and_not_neither() -> None:
    ours, theirs = raw_pair()
    for given in ({"address": "/nowhere", "sock": ours}, {}):
        with pytest.raises(ValueError, match="pass an address, or sock=, and not both"):
            await seqrpc.create_connection(Recorder, **given)  # type: ignore[arg-type]
    theirs.send(b"x")
    assert ours.recv(1) == b"x", "it is still its owner's"
    ours.close()
    theirs.close()


async def test_a_socket_of_another_kind_is_refused_and_stays_its_owners() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        with pytest.raises(AddressError, match="sock=: a Unix socket of type SOCK_SEQPACKET was expected"):
            await seqrpc.create_connection(Recorder, sock=stream)
        assert stream.fileno() >= 0


async def test_a_socket_that_is_not_connected_is_refused_and_closed() -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with pytest.raises(AddressError, match="not connected"):
        await seqrpc.create_connection(Recorder, sock=sock)
    assert sock.fileno() == -1


@pytest.mark.parametrize("factory", [unmakeable, Unmade], ids=["factory", "connection_made"])
async def test_a_protocol_that_cannot_be_made_leaves_no_socket_open(factory: type[Recorder]) -> None:
    ours, theirs = raw_pair()
    with pytest.raises(LookupError):
        await seqrpc.create_connection(factory, sock=ours)
    assert ours.fileno() == -1
    assert await receive(theirs) == b""
    theirs.close()


async def test_nobody_at_an_address_is_a_clear_error(socket_path: Path) -> None:
    with pytest.raises(NobodyListens, match="there is no such file") as caught:
        await seqrpc.create_connection(Recorder, socket_path)
    assert caught.value.errno == errno.ENOENT


class Busy:
    """A listener whose backlog is full until somebody accepts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(os.fspath(path))
        self.listener.listen(0)
        self.waiting: list[socket.socket] = []
        self.listener.setblocking(False)

    def fill(self) -> None:
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.waiting.append(sock)
            sock.setblocking(False)
            try:
                sock.connect(os.fspath(self.path))
            except BlockingIOError:
                return

    def accept(self) -> None:
        sock, _ = self.listener.accept()
        self.waiting.append(sock)

    def close(self) -> None:
        self.listener.close()
        for sock in self.waiting:
            sock.close()


async def test_a_full_backlog_is_tried_again_until_there_is_room(socket_path: Path) -> None:
    busy = Busy(socket_path)
    busy.fill()
    connecting = asyncio.create_task(seqrpc.create_connection(Recorder, socket_path))
    await turns_of_the_loop()
    assert not connecting.done()
    busy.accept()
    _transport, recorder = await connecting
    await recorder.end()
    busy.close()


async def test_a_backlog_that_stays_full_is_an_error_after_the_time_given(socket_path: Path) -> None:
    busy = Busy(socket_path)
    busy.fill()
    with pytest.raises(ServerBusy, match=r"its backlog was full for 0\.02 s") as caught:
        await seqrpc.create_connection(Recorder, socket_path, limits=Limits(connect_timeout=0.02))
    assert caught.value.errno == errno.EAGAIN
    assert caught.value.__suppress_context__
    busy.close()


async def test_connecting_that_is_cancelled_leaves_nothing_open(socket_path: Path) -> None:
    busy = Busy(socket_path)
    busy.fill()
    connecting = asyncio.create_task(seqrpc.create_connection(Recorder, socket_path))
    await turns_of_the_loop()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    busy.close()


async def test_a_name_of_five_hexadecimal_digits_is_a_name(socket_path: Path) -> None:
    """Such names are what the kernel gives to the ends of pairs, but this one was chosen."""
    accepted: list[Recorder] = []

    def accept() -> Recorder:
        accepted.append(Recorder())
        return accepted[0]

    name = f"@{os.getpid() % 0x100000:05x}"
    async with await seqrpc.create_server(accept, name):
        transport, _protocol = await seqrpc.create_connection(Recorder, name)
        while not accepted:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)

        for end in (transport, accepted[0].transport):
            credentials = end.get_extra_info("credentials")
            assert credentials.pid == os.getpid()
            assert credentials.groups is not None
        transport.close()
        await accepted[0].until_told("lost")


def test_who_listens_is_looked_at_before_anything_is_sent() -> None:
    class Failing(Policy):
        def admits(self, caller: object) -> bool:
            raise LookupError

    for server, raised in (
        (policy.anyone, None),
        (None, None),
        (~policy.anyone, UntrustedServer),
        (Failing(), LookupError),
    ):
        ours, theirs = raw_pair()
        with ours, theirs:
            if raised is None:
                check_server(ours, server, "here")
                assert ours.fileno() >= 0
                continue
            with pytest.raises(raised):
                check_server(ours, server, "here")
            assert ours.fileno() == -1
            assert theirs.recv(1) == b""
