"""A server in a thread, for tests without an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import AsyncGenerator
from typing import Any

import msgpack
import pytest

import seqrpc
from seqrpc import policy
from seqrpc.testing import assert_no_leaks, caller, faulty_pair, serve_in_thread


class Who(seqrpc.Service, allow=policy.anyone):
    def __init__(self, *, ends_badly: bool = False, begins_badly: bool = False) -> None:
        self.lives: list[str] = []
        self.ends_badly = ends_badly
        self.begins_badly = begins_badly

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        if self.begins_badly:
            raise LookupError("no beginning")
        self.lives.append(threading.current_thread().name)
        yield
        self.lives.append("ended")
        if self.ends_badly:
            raise LookupError("no end")

    @seqrpc.method
    async def am_i(self) -> int | None:
        return seqrpc.current_call().caller.uid

    @seqrpc.method(allow=policy.uid(1001))
    async def of_ann(self) -> str:
        return "Ann's"


class Files(seqrpc.Service, allow=policy.anyone):
    @seqrpc.method
    async def count(self, files: list[seqrpc.OwnedFd]) -> int:
        return len(files)

    @seqrpc.method
    async def null(self) -> seqrpc.OwnedFd:
        return seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def ask(sock: socket.socket, method: str) -> Any:
    sock.settimeout(30)
    sock.send(msgpack.packb([0, 1, method, []]))
    return msgpack.unpackb(sock.recv(65_536))


def test_a_client_without_a_loop_calls_as_whom_it_likes() -> None:
    who = Who()
    with (
        assert_no_leaks(),
        serve_in_thread(who) as server,
        server.open_socket(caller=caller(uid=1001)) as ann,
        server.open_socket(caller=caller(uid=2)) as bob,
    ):
        assert ask(ann, "Who.am_i") == [1, 1, None, 1001]
        assert ask(ann, "Who.of_ann") == [1, 1, None, "Ann's"]
        assert ask(bob, "Who.am_i") == [1, 1, None, 2]
        assert ask(bob, "Who.of_ann")[2][0] == "rpc.PermissionDenied"
    assert who.lives == ["seqrpc-testing", "ended"]


def test_faults_are_entered_on_the_server_s_loop() -> None:
    with assert_no_leaks(), serve_in_thread(Who()) as server:
        pair = server.enter(faulty_pair())
        lost = pair.to_server.drop("Who.of_ann")
        with server.open_socket(pair=pair, caller=caller(uid=1001)) as sock:
            sock.send(msgpack.packb([0, 7, "Who.of_ann", []]))
            server.run(lost.happened())
            assert ask(sock, "Who.am_i") == [1, 1, None, 1001]


async def test_a_client_with_a_loop_may_have_the_socket_too() -> None:
    with serve_in_thread(Who()) as server:
        sock = await asyncio.to_thread(server.open_socket, caller=caller(uid=5))
        async with seqrpc.connect(sock=sock) as connection:
            assert await connection.proxy(Who).am_i() == 5


def enter(service: Who) -> None:
    with serve_in_thread(service):
        pass


def test_what_lifespans_raise_comes_out() -> None:
    with assert_no_leaks():
        with pytest.raises(LookupError, match="no beginning"):
            enter(Who(begins_badly=True))
        with pytest.raises(LookupError, match="no end"):
            enter(Who(ends_badly=True))
    with pytest.raises(TypeError, match=r"an object of a seqrpc\.Service was expected"):
        serve_in_thread(5)  # type: ignore[arg-type]


def test_a_blocking_client_calls_as_whom_it_likes() -> None:
    with (
        assert_no_leaks(),
        serve_in_thread(Who()) as server,
        server.connect(caller=caller(uid=1001)) as ann,
        server.connect(caller=caller(uid=2)) as bob,
    ):
        assert ann.call("Who.am_i") == 1001
        assert ann.call("Who.of_ann") == "Ann's"
        with pytest.raises(seqrpc.PermissionDenied):
            bob.call("Who.of_ann")


def test_a_blocking_client_has_faults_too() -> None:
    with assert_no_leaks(), serve_in_thread(Files()) as server:
        pair = server.enter(faulty_pair())
        with server.connect(pair=pair) as connection, open("/dev/null") as file:
            failed = pair.to_server.fail(errno.EAGAIN)
            assert connection.call("Files.count", [file, file]) == 2
            pair.to_server.cut_control()
            with pytest.raises(seqrpc.DescriptorsLost):
                connection.call("Files.count", [file])
            pair.to_client.cut_control()
            with pytest.raises(seqrpc.DescriptorsLost):
                connection.call("Files.null")
            refused = pair.to_server.refuse_descriptors()
            with pytest.raises(seqrpc.PermissionDenied):
                connection.call("Files.count", [file])
            assert connection.call("Files.count", []) == 0
            assert [failed.count, refused.count] == [1, 1]
            pair.to_client.disconnect()
            with pytest.raises(seqrpc.ConnectionLost):
                connection.call("Files.count", [])
        pair = server.enter(faulty_pair())
        with server.connect(pair=pair) as connection:
            pair.to_server.reset()
            with pytest.raises(seqrpc.ConnectionLost):
                connection.call("Files.count", [])


def test_mistakes_in_connecting_leave_nothing() -> None:
    wrong: Any = 5
    with assert_no_leaks(), serve_in_thread(Who()) as server:
        with pytest.raises(TypeError, match="caller= takes"):
            server.connect(caller=wrong)
        with pytest.raises(TypeError, match=r"an object of a seqrpc\.Service was expected"):
            server.connect(services=wrong)
