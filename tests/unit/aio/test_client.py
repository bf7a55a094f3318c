from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import weakref
from pathlib import Path

import pytest
from support.daemons import needs_root, on_a_pair, raw_client
from support.descriptors import open_count
from support.processes import OTHER_UID, running_child
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc import policy


class Adder(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    def thread_name(self) -> str:
        THREADS.append(threading.current_thread())
        return THREADS[-1].name


THREADS: list[threading.Thread] = []


async def test_connecting_in_a_block_and_by_awaiting(socket_path: Path) -> None:
    async with seqrpc.serve(Adder(), socket_path):
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call("Adder.add", 1, 2) == 3
        assert connection.closed
        another = await seqrpc.connect(socket_path)
        assert await another.call("Adder.add", 1, 2) == 3
        await another.close()
        assert another.closed
        with pytest.raises(seqrpc.ConnectionLost, match="closed on this side"):
            await another.call("Adder.add", 1, 2)


async def test_leaving_the_block_gives_up_the_calls_in_it(socket_path: Path) -> None:
    ours, theirs = seqrpc.socket_pair()
    with raw_client(theirs) as peer:
        async with seqrpc.connect(sock=ours) as connection:
            call = asyncio.ensure_future(connection.call("Deaf.wait"))
            await peer.receive()
        with pytest.raises(seqrpc.ConnectionLost, match="closed on this side"):
            await call


async def test_nobody_to_connect_to_is_a_connect_error_that_says_why(socket_path: Path) -> None:
    with pytest.raises(seqrpc.ConnectError, match="there is no such file"):
        await seqrpc.connect(socket_path)
    with pytest.raises(seqrpc.ConnectError, match="nobody listens there"):
        async with seqrpc.connect("@a-name-that-nobody-has"):
            pass


async def test_an_address_or_a_socket_is_wanted_and_not_both(socket_path: Path) -> None:
    with pytest.raises(ValueError, match="pass an address, or sock="):
        await seqrpc.connect()
    with pytest.raises(seqrpc.AddressError):
        await seqrpc.connect("fd:x")
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with stream, pytest.raises(seqrpc.AddressError, match="SOCK_SEQPACKET was expected"):
        await seqrpc.connect(sock=stream)


@pytest.mark.parametrize("how", ["sock", "fd"])
async def test_an_inherited_socket_is_a_connection(how: str) -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Adder(), sock=theirs):
        connecting = seqrpc.connect(sock=ours) if how == "sock" else seqrpc.connect(f"fd:{ours.detach()}")
        async with connecting as connection:
            assert await connection.call("Adder.add", 1, 2) == 3


async def test_a_socket_that_was_connected_elsewhere_is_a_connection(socket_path: Path) -> None:
    async with seqrpc.serve(Adder(), socket_path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(os.fspath(socket_path))
        async with seqrpc.connect(sock=sock) as connection:
            assert await connection.call("Adder.add", 1, 2) == 3


async def test_a_server_that_is_trusted_is_called(socket_path: Path) -> None:
    async with seqrpc.serve(Adder(), socket_path):
        for rule in (policy.same_user, policy.uid(os.geteuid()), lambda who: who.pid == os.getpid()):
            async with seqrpc.connect(socket_path, server=rule) as connection:
                assert await connection.call("Adder.add", 1, 2) == 3


async def test_a_server_that_is_not_trusted_gets_not_one_byte(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(socket_path))
        listener.listen()
        with pytest.raises(
            seqrpc.UntrustedServer, match=r"server=uid\(4242\) does not admit who listens there"
        ) as caught:
            await seqrpc.connect(socket_path, server=policy.uid(4242))
        assert str(socket_path) in str(caught.value)
        accepted, _address = listener.accept()
        with accepted:
            assert accepted.recv(100) == b""


async def test_the_maker_of_a_pair_can_be_asked_for_too() -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        with pytest.raises(seqrpc.UntrustedServer, match="sock=: server=uid"):
            await seqrpc.connect(sock=ours, server=policy.uid(4242))
        assert theirs.recv(100) == b""


async def test_what_is_no_policy_is_a_type_error_before_anything_is_opened(socket_path: Path) -> None:
    with pytest.raises(TypeError, match="a policy"):
        await seqrpc.connect(socket_path, server="root")  # type: ignore[arg-type]


@needs_root
async def test_a_server_of_another_user_is_seen_as_that_user(socket_path: Path) -> None:
    socket_path.parent.chmod(0o777)

    def listen() -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(os.fspath(socket_path))
        listener.listen()
        return listener

    with running_child(listen, uid=OTHER_UID):
        with pytest.raises(seqrpc.UntrustedServer):
            await seqrpc.connect(socket_path, server=policy.same_user)
        async with seqrpc.connect(socket_path, server=policy.uid(OTHER_UID)) as connection:
            assert connection.peer is not None
            assert connection.peer.uid == OTHER_UID


async def test_a_client_serves_too_with_threads_of_its_own_that_go_with_it() -> None:
    THREADS.clear()
    ours, theirs = seqrpc.socket_pair()
    with raw_client(theirs) as peer:
        async with seqrpc.connect(sock=ours, services=Adder()) as connection:
            await peer.send(0, 1, "Adder.add", [1, 2])
            assert await peer.receive() == [1, 1, None, 3]
            await peer.send(0, 2, "Adder.thread_name", [])
            assert (await peer.receive())[3].startswith("seqrpc")
        await connection.wait_closed()
    await asyncio.to_thread(THREADS[0].join, PATIENCE)
    assert not THREADS[0].is_alive()


async def test_a_client_admits_whom_it_is_told_to() -> None:
    ours, theirs = seqrpc.socket_pair()
    with raw_client(theirs) as peer:
        async with seqrpc.connect(sock=ours, services=[Adder()], allow=~policy.anyone):
            await peer.send(0, 1, "Adder.add", [1, 2])
            assert (await peer.receive())[2][0] == "rpc.PermissionDenied"


async def test_calls_beyond_the_limit_wait_their_turn() -> None:
    limits = seqrpc.Limits(max_calls_in_flight=2)
    ours, theirs = seqrpc.socket_pair()
    async with (
        seqrpc.serve(Adder(), sock=theirs, limits=limits),
        seqrpc.connect(sock=ours, limits=limits) as connection,
    ):
        results = await asyncio.gather(*(connection.call("Adder.add", i, i) for i in range(50)))
        assert results == [2 * i for i in range(50)]


async def test_a_policy_about_the_server_that_raises_leaves_nothing_open(socket_path: Path) -> None:
    class Failing(policy.Policy):
        def admits(self, caller: seqrpc.Credentials | None) -> bool:
            raise LookupError("nobody is known here")

    async with seqrpc.serve(Adder(), socket_path):
        before = open_count()
        with pytest.raises(LookupError):
            await seqrpc.connect(socket_path, server=Failing())
        assert open_count() == before


class Middle(seqrpc.Service):
    """Begins something for a caller, and keeps it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: seqrpc.Connection | seqrpc.Server
        self.called_on: weakref.ref[seqrpc.Connection]
        self.other_ends: list[socket.socket] = []

    @seqrpc.method
    async def begin(self, what: str) -> None:
        self.called_on = weakref.ref(seqrpc.current_call().connection)
        if what == "a connection":
            self.kept = await seqrpc.connect(self.path)
            assert await self.kept.call("Adder.add", 1, 2) == 3
        elif what == "a server":
            self.kept = await seqrpc.serve(Adder(), self.path.with_name("another.sock"))
        else:
            ours, theirs = seqrpc.socket_pair()
            self.other_ends.append(ours)
            self.kept = await seqrpc.serve(Adder(), sock=theirs)


@pytest.mark.parametrize("what", ["a connection", "a server", "a server on a pair"])
async def test_what_a_handler_makes_keeps_neither_its_call_nor_who_called(what: str, socket_path: Path) -> None:
    async with seqrpc.serve(Adder(), socket_path):
        middle = Middle(socket_path)
        async with on_a_pair(middle) as connection:
            await connection.call("Middle.begin", what)
        gc.collect()
        assert middle.called_on() is None
        await middle.kept.close()
        for end in middle.other_ends:
            end.close()


async def test_what_the_other_side_says_before_it_closes_is_kept() -> None:
    ours, theirs = seqrpc.socket_pair()
    with raw_client(theirs) as peer:
        async with seqrpc.connect(sock=ours) as connection:
            await peer.send(5, "upgrade")
            await comes_true(lambda: connection.closing_reason)
            assert connection.closing_reason == "upgrade"
            with pytest.raises(seqrpc.Unavailable, match="upgrade"):
                await connection.call("Adder.add", 1, 2)
