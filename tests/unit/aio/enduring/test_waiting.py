"""Waiting for a connection: for how long, in what order, and what those are told who wait in vain."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from support.daemons import needs_root
from support.processes import OTHER_UID
from support.reconnecting import IMPATIENT, QUICK, Journal, ended, impostor, raised_by, renewal_of, soon, stays
from support.scarcity import no_descriptors
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Execution, Limits, Reconnect, policy
from seqrpc.interface.policy import Policy


async def test_connect_waits_for_a_daemon_that_is_not_there_yet(socket_path: Path) -> None:
    connecting = soon(seqrpc.connect(socket_path, reconnect=QUICK))
    await turns_of_the_loop()
    assert not connecting.done()
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connecting
        assert await connection.call("Journal.add", "a") == "a"
        await connection.close()


async def test_connect_waits_for_so_long_and_then_says_what_the_last_attempt_met(socket_path: Path) -> None:
    error = await raised_by(
        seqrpc.NobodyListens,
        seqrpc.connect(socket_path, reconnect=IMPATIENT),
        r"for 0\.05 s: ready_timeout",
    )
    assert error.execution is Execution.DID_NOT_RUN


async def test_who_does_not_wait_is_told_at_once(socket_path: Path) -> None:
    at_once = Reconnect(first_delay=0.001, longest_delay=0.01, wait_for_ready=False)
    await raised_by(seqrpc.NobodyListens, seqrpc.connect(socket_path, reconnect=at_once))
    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=at_once) as connection:
        await server.close()
        await ended(connection)
        errors = [await raised_by(seqrpc.SeqrpcError, connection.call("Journal.add", "a")) for _ in range(2)]
        assert {error.execution for error in errors} == {Execution.DID_NOT_RUN}
        await comes_true(lambda: isinstance(renewal_of(connection).trouble, seqrpc.NobodyListens))
        await raised_by(seqrpc.NobodyListens, connection.call("Journal.add", "a"))
        await raised_by(seqrpc.NobodyListens, connection.notify("Journal.tell", "a"))
        async with seqrpc.serve(Journal(), socket_path):
            await connection.wait_for_ready()
            assert await connection.call("Journal.add", "b") == "b"


async def test_a_call_waits_for_so_long_and_its_deadline_is_the_earlier_bound(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=IMPATIENT) as connection:
        await server.close()
        await ended(connection)
        error = await raised_by(seqrpc.NobodyListens, connection.call("Journal.add", "a"), "ready_timeout")
        assert error.execution is Execution.DID_NOT_RUN
        caller: Any = connection.proxy(Journal)._callee  # type: ignore[attr-defined] # every proxy has one
        deadline = time.monotonic_ns() + 10_000_000
        error = await raised_by(
            seqrpc.DeadlineExceeded, caller.request("Journal.add", ("a",), deadline), "before there was a connection: "
        )
        assert error.execution is Execution.DID_NOT_RUN
        error = await raised_by(seqrpc.DeadlineExceeded, caller.send_notify("Journal.tell", ("a",), deadline))
        assert error.execution is Execution.DID_NOT_RUN


async def test_waiting_may_have_no_bound_and_can_be_cancelled(socket_path: Path) -> None:
    for_ever = Reconnect(first_delay=0.001, longest_delay=0.01, ready_timeout=None)
    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=for_ever) as connection:
        await server.close()
        await ended(connection)
        calls = [soon(connection.call("Journal.add", "a")) for _ in range(3)]
        waiting = soon(connection.wait_for_ready())
        await turns_of_the_loop()
        for cancelled in (calls[1], waiting):
            cancelled.cancel()
            await asyncio.wait([cancelled])
        async with seqrpc.serve(Journal(), socket_path):
            assert [await calls[0], await calls[2]] == ["a", "a"]
            await connection.wait_for_ready()


async def test_those_who_wait_go_in_their_order_and_who_comes_later_goes_later(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        await server.close()
        await ended(connection)
        words = [str(number) for number in range(20)]
        calls = [soon(connection.call("Journal.add", word)) for word in words]
        await turns_of_the_loop()
        async with seqrpc.serve(journal, socket_path):
            await comes_true(lambda: renewal_of(connection).caller)
            calls.append(soon(connection.call("Journal.add", "later")))
            await asyncio.gather(*calls)
    assert journal.ran == [*words, "later"]


async def test_more_than_may_be_in_flight_wait_as_long_as_a_line_that_does_not_move(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    limits = Limits(max_calls_in_flight=2, stall_timeout=0.05)
    async with seqrpc.connect(socket_path, reconnect=QUICK, limits=limits) as connection:
        await server.close()
        await ended(connection)
        waiting = [soon(connection.call("Journal.add", "a")) for _ in range(2)]
        await turns_of_the_loop()
        error = await raised_by(seqrpc.Overloaded, connection.call("Journal.add", "a"), "2 calls wait for a connection")
        assert error.execution is Execution.DID_NOT_RUN
        assert not any(call.done() for call in waiting)
        async with seqrpc.serve(Journal(), socket_path):
            assert await asyncio.gather(*waiting) == ["a", "a"]


async def test_an_address_that_is_somebody_else_s_is_told_at_once_and_tried_again(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        await server.close()
        await ended(connection)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            waiting = [soon(connection.call("Journal.add", "a")), soon(connection.wait_for_ready())]
            await turns_of_the_loop()
            other.bind(os.fspath(socket_path))
            other.listen()
            errors = [await raised_by(seqrpc.WrongSocketType, one) for one in waiting]
            assert errors[0] is not errors[1]
        os.unlink(socket_path)
        async with seqrpc.serve(Journal(), socket_path):
            assert await connection.call("Journal.add", "b") == "b"


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


async def test_an_ordinary_connection_is_ready_until_it_ends(socket_path: Path) -> None:
    journal = Journal()
    async with seqrpc.serve(journal, socket_path) as server, seqrpc.connect(socket_path) as connection:
        await connection.wait_for_ready()
        running = soon(connection.call("Journal.wait", "a"))
        await journal.stage.wait("a")
        draining = soon(server.drain(PATIENCE))
        await comes_true(lambda: connection.closing_reason)
        await raised_by(seqrpc.Unavailable, connection.wait_for_ready())
        running.cancel()
        await draining
        await raised_by(seqrpc.Unavailable, connection.wait_for_ready())
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.connect(sock=ours) as connection:
        theirs.close()
        await connection.wait_closed()
        error = await raised_by(seqrpc.ConnectionLost, connection.wait_for_ready())
        assert error.execution is Execution.DID_NOT_RUN


async def test_what_reconnect_is_not_for() -> None:
    with pytest.raises(TypeError, match=r"reconnect= takes True, False or a seqrpc\.Reconnect"):
        seqrpc.connect("/run/x.sock", reconnect=1)  # type: ignore[arg-type]
    ours, theirs = seqrpc.socket_pair()
    with ours, theirs:
        with pytest.raises(ValueError, match="takes an address; what sock= is connected to"):
            await seqrpc.connect(sock=ours, reconnect=True)
        with pytest.raises(ValueError, match="and fd:3 is one socket"):
            await seqrpc.connect("fd:3", reconnect=True)
