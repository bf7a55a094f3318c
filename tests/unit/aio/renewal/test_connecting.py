"""Making a connection, and making it anew: whom it is made to, and what stands in the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from support.daemons import needs_root
from support.processes import OTHER_UID
from support.reconnecting import IMPATIENT, QUICK, Journal, ended, impostor, raised_by, renewal_of, soon, stays
from support.scarcity import no_descriptors
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Reconnect, policy
from seqrpc.interface.policy import Policy


async def test_connect_waits_for_a_daemon_that_is_not_there_yet(socket_path: Path) -> None:
    connecting = soon(seqrpc.connect(socket_path, reconnect=QUICK))
    await turns_of_the_loop()
    assert not connecting.done()
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connecting
        assert await connection.call("Journal.add", "a") == "a"
        await connection.close()


async def test_a_file_that_is_no_socket_is_told_at_once_by_connect(socket_path: Path) -> None:
    os.close(os.open(socket_path, os.O_CREAT))
    await raised_by(seqrpc.WrongSocketType, seqrpc.connect(socket_path, reconnect=True))


@needs_root
async def test_a_squatter_between_two_lives_of_a_daemon_is_sent_nothing(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK, server=policy.same_user) as connection:
        await server.close()
        await ended(connection)
        os.chmod(socket_path.parent, 0o777)
        os.seteuid(OTHER_UID)
        try:
            squatting = impostor(socket_path, stays)
            other = squatting.__enter__()
        finally:
            os.seteuid(0)
        try:
            os.chmod(socket_path, 0o777)
            call = soon(connection.call("Journal.add", "secret"))
            await raised_by(seqrpc.UntrustedServer, call, "does not admit who listens there")
            await comes_true(lambda: other.kept)
            assert all(kept.recv(1000) == b"" for kept in other.kept)
        finally:
            squatting.__exit__(None, None, None)
        os.unlink(socket_path)
        async with seqrpc.serve(Journal(), socket_path):
            await comes_true(lambda: renewal_of(connection).caller)
            assert await connection.call("Journal.add", "b") == "b"


async def test_a_policy_that_fails_admits_nobody_and_is_asked_again(socket_path: Path) -> None:
    asked = 0

    class Odd(Policy):
        def admits(self, caller: Any) -> bool:
            nonlocal asked
            asked += 1
            if asked == 2:
                raise ZeroDivisionError("odd")
            return True

    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK, server=Odd()) as connection:
        await server.close()
        await ended(connection)
        call = soon(connection.call("Journal.add", "a"))
        await turns_of_the_loop()
        async with seqrpc.serve(Journal(), socket_path):
            await raised_by(seqrpc.ConnectError, call, "odd")
            await connection.wait_for_ready()
            assert asked == 3


async def test_a_policy_that_asks_what_was_cancelled_is_asked_again(socket_path: Path) -> None:
    asked = 0

    def odd(_caller: Any) -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise asyncio.CancelledError
        return True

    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK, server=odd) as connection:
        await server.close()
        await ended(connection)
        call = soon(connection.call("Journal.add", "a"))
        await turns_of_the_loop()
        async with seqrpc.serve(Journal(), socket_path):
            await raised_by(seqrpc.ConnectError, call, "does not admit who listens there")
            await asyncio.wait_for(connection.wait_for_ready(), PATIENCE)
            assert asked == 3


async def test_a_process_without_a_free_descriptor_waits_for_one(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        await server.close()
        await ended(connection)
        with no_descriptors():
            await comes_true(lambda: type(renewal_of(connection).trouble) is seqrpc.ConnectError)
            call = soon(connection.call("Journal.add", "a"))
            await turns_of_the_loop()
        async with seqrpc.serve(Journal(), socket_path):
            assert await call == "a"


async def test_a_full_backlog_is_waited_out(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        await server.close()
        await ended(connection)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first,
        ):
            deaf.bind(os.fspath(socket_path))
            deaf.listen(0)
            first.connect(os.fspath(socket_path))
            await comes_true(lambda: isinstance(renewal_of(connection).trouble, seqrpc.ServerBusy))
            call = soon(connection.call("Journal.add", "a"))
            await turns_of_the_loop()
        os.unlink(socket_path)
        async with seqrpc.serve(Journal(), socket_path):
            assert await call == "a"


async def test_a_lifespan_that_fails_or_ends_early_leaves_no_connection(socket_path: Path) -> None:
    class Odd(seqrpc.Service):
        def __init__(self, how: str) -> None:
            self.how = how

        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            if self.how == "fails":
                raise ZeroDivisionError
            yield

    async with seqrpc.serve(Journal(), socket_path) as server:
        with pytest.raises(ZeroDivisionError):
            await seqrpc.connect(socket_path, reconnect=QUICK, services=Odd("fails"))
        await comes_true(lambda: not server.connections)
        connection = await seqrpc.connect(socket_path, reconnect=QUICK, services=Odd("lives"))
        renewal_of(connection).abandon()
        await connection.wait_closed()
        await connection.close()


async def test_a_hook_that_fails_is_logged(socket_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def hook(_connection: object) -> None:
        raise ZeroDivisionError

    server = await seqrpc.serve(Journal(), socket_path)
    policy = Reconnect(first_delay=0.001, longest_delay=0.01, on_reconnect=hook)
    async with seqrpc.connect(socket_path, reconnect=policy) as connection:
        await server.close()
        await ended(connection)
        call = soon(connection.call("Journal.add", "a"))
        async with seqrpc.serve(Journal(), socket_path):
            assert await call == "a"
    assert "on_reconnect failed" in caplog.text


async def test_connecting_gives_up_after_a_while(socket_path: Path) -> None:
    await raised_by(seqrpc.NobodyListens, seqrpc.connect(socket_path, reconnect=IMPATIENT), "ready_timeout")


async def test_one_that_is_dropped_by_another_thread_is_closed_by_its_loop(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await seqrpc.connect(socket_path, reconnect=QUICK)
        renewal = renewal_of(connection)
        assert connection.closing_reason is None
        await asyncio.to_thread(renewal.abandon)
        await connection.wait_closed()
        assert connection.closing_reason is None
