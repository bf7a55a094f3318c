"""Calls that wait for a connection: for how long, in what order, and what those are told who wait in vain."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any

from support.reconnecting import IMPATIENT, QUICK, Journal, ended, raised_by, renewal_of, soon
from support.waiting import comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Execution, Limits, Reconnect


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


async def test_who_waits_without_a_call_is_no_crowd(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    limits = Limits(max_calls_in_flight=2, stall_timeout=0.05)
    async with seqrpc.connect(socket_path, reconnect=QUICK, limits=limits) as connection:
        await server.close()
        await ended(connection)
        waiting = [soon(connection.call("Journal.add", "a")) for _ in range(2)]
        await turns_of_the_loop()
        ready = soon(connection.wait_for_ready())
        await turns_of_the_loop()
        await raised_by(seqrpc.Overloaded, connection.call("Journal.add", "a"), "calls wait for a connection")
        assert not ready.done()
        async with seqrpc.serve(Journal(), socket_path):
            await ready
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


async def test_nobody_waits_for_a_connection_that_was_closed_here(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path), seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        await connection.close()
        error = await raised_by(seqrpc.ConnectionLost, connection.call("Journal.add", "a"), "closed on this side")
        assert error.execution is Execution.DID_NOT_RUN
