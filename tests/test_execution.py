"""Errors say truly whether their calls ran: what they say is compared with the journal of whoever was called."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import Stage, on_a_pair, raw_client
from support.descriptors import owned, refuse_descriptors
from support.scarcity import table_full
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc import Execution, Limits, OwnedFd
from seqrpc.protocol.values import EXT_STREAM

DID_NOT_RUN, MAY_HAVE_RUN, RAN = Execution.DID_NOT_RUN, Execution.MAY_HAVE_RUN, Execution.RAN

STREAM = msgpack.ExtType(EXT_STREAM, b"\0")
"""How a message refers to a stream that came with it."""


class Wrong(seqrpc.RpcError, code="execution.Wrong"):
    """An application's error."""


class Unwilling(seqrpc.Unavailable, code="execution.Unwilling"):
    """An application's error that is also one of seqrpc's: its handler ran to raise it."""


class Item(seqrpc.Service):
    """An object to hold."""

    @seqrpc.method
    async def look(self) -> None:
        pass


class Journal(seqrpc.Service):
    """Notes what ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.stage = Stage()

    @seqrpc.method
    async def add(self, word: str) -> str:
        self.ran.append(word)
        return word

    @seqrpc.method
    async def fails(self, how: str) -> None:
        self.ran.append(how)
        raise {
            "wrong": Wrong,
            "unwilling": Unwilling,
            "late": seqrpc.DeadlineExceeded,
            "bug": ZeroDivisionError,
            "stopped": asyncio.CancelledError,
        }[how]

    @seqrpc.method
    async def wait(self, word: str) -> None:
        self.ran.append(word)
        self.stage.reach(word)
        await asyncio.Event().wait()

    @seqrpc.method
    async def opens(self) -> OwnedFd:
        self.ran.append("opens")
        return OwnedFd(os.open("/dev/null", os.O_RDONLY))

    @seqrpc.method
    async def takes(self, fd: OwnedFd) -> None:
        self.ran.append("takes")

    @seqrpc.method
    async def gives(self, size: int) -> bytes:
        self.ran.append("gives")
        return bytes(size)

    @seqrpc.method(allow=~seqrpc.policy.anyone)
    async def closed(self) -> None:
        self.ran.append("closed")

    @seqrpc.method
    async def count(self, how: str) -> AsyncIterator[int]:
        self.ran.append("count")
        yield 1
        if how == "unavailable":
            raise seqrpc.Unavailable("no more")
        raise Wrong

    @seqrpc.method
    async def reads(self, items: AsyncIterator[int]) -> int:
        self.ran.append("reads")
        return sum([item async for item in items])

    @seqrpc.method
    async def gives_object(self) -> Item:
        return Item()


async def raised_by(awaitable: Awaitable[Any]) -> seqrpc.SeqrpcError:
    """Return the error that something ends with, which it has to."""
    with pytest.raises(seqrpc.SeqrpcError) as caught:
        async with asyncio.timeout(PATIENCE):
            await awaitable
    return caught.value


@asynccontextmanager
async def journal_at(
    path: Path, limits: Limits | None = None
) -> AsyncIterator[tuple[Journal, seqrpc.Server, seqrpc.Connection]]:
    journal = Journal()
    async with (
        seqrpc.serve(journal, path) as server,
        seqrpc.connect(path, limits=limits or Limits()) as connection,
    ):
        yield journal, server, connection


@pytest.mark.parametrize(
    "how, kind, execution",
    [
        ("wrong", Wrong, RAN),
        ("unwilling", Unwilling, RAN),
        ("late", seqrpc.DeadlineExceeded, MAY_HAVE_RUN),
        ("bug", seqrpc.Internal, MAY_HAVE_RUN),
        ("stopped", seqrpc.Cancelled, MAY_HAVE_RUN),
    ],
)
async def test_what_a_handler_raised_is_not_called_unrun(how: str, kind: type[Exception], execution: Execution) -> None:
    journal = Journal()
    async with on_a_pair(journal) as connection:
        error = await raised_by(connection.call("Journal.fails", how))
        assert (type(error), error.execution, journal.ran) == (kind, execution, [how])


async def test_what_is_refused_before_a_handler_runs_did_not_run() -> None:
    journal = Journal()
    async with on_a_pair(journal) as connection:
        unknown = await raised_by(connection.call("Journal.unknown"))
        denied = await raised_by(connection.call("Journal.closed"))
        assert [type(unknown), type(denied)] == [seqrpc.MethodNotFound, seqrpc.PermissionDenied]
        assert unknown.execution is denied.execution is DID_NOT_RUN
        misfit = await raised_by(connection.call("Journal.add", 1))
        assert misfit.execution is MAY_HAVE_RUN  # a handler that reads a stream may raise it half way
        assert journal.ran == []


async def test_what_cannot_be_sent_did_not_run() -> None:
    journal = Journal()
    async with on_a_pair(journal, client_limits=Limits(max_message_bytes=100_000)) as connection:
        large = await raised_by(connection.call("Journal.add", "x" * 200_000))
        strange = await raised_by(connection.call("Journal.add", object()))
        assert [type(large), type(strange)] == [seqrpc.TooLarge, seqrpc.LocalProtocolError]
        notice = await raised_by(connection.notify("Journal.add", "x" * 200_000))
        assert {large.execution, strange.execution, notice.execution} == {DID_NOT_RUN}
        assert journal.ran == []


async def test_what_the_kernel_does_not_let_pass_did_not_run() -> None:
    journal = Journal()
    ours, theirs = seqrpc.socket_pair()
    refuse_descriptors(theirs)
    async with seqrpc.serve(journal, sock=theirs, accept_descriptors=False), seqrpc.connect(sock=ours) as connection:
        with owned(1) as fds:
            error = await raised_by(connection.call("Journal.takes", fds[0]))
        assert (type(error), error.execution, journal.ran) == (seqrpc.PermissionDenied, DID_NOT_RUN, [])


async def test_an_answer_that_the_kernel_does_not_let_pass_is_not_called_unrun() -> None:
    journal = Journal()
    ours, theirs = seqrpc.socket_pair()
    refuse_descriptors(ours)
    async with seqrpc.serve(journal, sock=theirs), seqrpc.connect(sock=ours) as connection:
        opened = await raised_by(connection.call("Journal.opens"))
        large = await raised_by(connection.call("Journal.gives", 100_000))
        assert [type(opened), type(large)] == [seqrpc.DescriptorsLost, seqrpc.TooLarge]
        assert {opened.execution, large.execution} == {MAY_HAVE_RUN}
        assert journal.ran == ["opens", "gives"]


async def test_an_answer_that_cannot_be_taken_is_of_a_call_that_ran() -> None:
    journal = Journal()
    async with on_a_pair(journal, client_limits=Limits(max_message_bytes=100_000)) as connection:
        large = await raised_by(connection.call("Journal.gives", 200_000))
        assert (type(large), large.execution) == (seqrpc.TooLarge, RAN)

        class Misread(seqrpc.Service, name="Journal"):
            @seqrpc.method
            async def add(self, word: str) -> int:
                raise NotImplementedError

        misfit = await raised_by(connection.proxy(Misread).add("a"))
        assert (type(misfit), misfit.execution) == (seqrpc.InvalidResult, RAN)
        assert journal.ran == ["gives", "a"]


async def test_an_answer_whose_descriptors_are_lost_is_of_a_call_that_ran() -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.connect(sock=ours) as connection:
        with raw_client(theirs) as server, owned(1) as fds:
            call = asyncio.ensure_future(connection.call("Journal.opens"))
            request = await server.receive()
            with table_full():
                await server.send(1, request[1], None, [1], fds=[fds[0].fileno()])
                error = await raised_by(call)
        assert (type(error), error.execution) == (seqrpc.DescriptorsLost, RAN)


async def test_calls_of_a_connection_that_ends_say_whether_they_were_sent(socket_path: Path) -> None:
    async with journal_at(socket_path, Limits(max_calls_in_flight=1)) as (journal, server, connection):
        sent = asyncio.ensure_future(connection.call("Journal.wait", "sent"))
        await journal.stage.wait("sent")
        in_line = asyncio.ensure_future(connection.call("Journal.add", "in line"))
        await comes_true(lambda: connection._link.calls.turns.waiting)
        await server.close()
        errors = [await raised_by(sent), await raised_by(in_line)]
        errors.append(await raised_by(connection.call("Journal.add", "after")))
        errors.append(await raised_by(connection.notify("Journal.add", "after")))
        assert [error.execution for error in errors] == [MAY_HAVE_RUN, DID_NOT_RUN, DID_NOT_RUN, DID_NOT_RUN]
        assert journal.ran == ["sent"]


async def test_a_call_on_a_connection_that_was_closed_here_did_not_run() -> None:
    journal = Journal()
    async with on_a_pair(journal) as connection:
        sent = asyncio.ensure_future(connection.call("Journal.wait", "sent"))
        await journal.stage.wait("sent")
        await connection.close()
        assert (await raised_by(sent)).execution is MAY_HAVE_RUN
        error = await raised_by(connection.call("Journal.add", "after"))
        assert (type(error), error.execution) == (seqrpc.ConnectionLost, DID_NOT_RUN)


async def test_a_call_that_finds_nobody_at_the_other_end_did_not_run() -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.connect(sock=ours) as connection:
        theirs.close()
        error = await raised_by(connection.call("Journal.add", "a"))  # the loop has not heard of the end yet
        assert (type(error), error.execution) == (seqrpc.ConnectionLost, DID_NOT_RUN)


async def test_a_daemon_that_takes_no_new_calls_did_not_run_them(socket_path: Path) -> None:
    async with journal_at(socket_path) as (journal, server, connection):
        sent = asyncio.ensure_future(connection.call("Journal.wait", "sent"))
        await journal.stage.wait("sent")
        draining = asyncio.ensure_future(server.drain(PATIENCE))
        await comes_true(lambda: connection.closing_reason is not None)
        error = await raised_by(connection.call("Journal.add", "after"))
        assert (type(error), error.execution) == (seqrpc.Unavailable, DID_NOT_RUN)
        sent.cancel()
        await draining
        assert journal.ran == ["sent"]


async def test_deadlines_say_whether_the_call_was_sent() -> None:
    journal = Journal()
    async with on_a_pair(journal, client_limits=Limits(max_calls_in_flight=1)) as connection:
        caller = connection._link.caller
        soon = time.monotonic_ns() + 300_000_000
        sent = asyncio.ensure_future(caller.request("Journal.wait", ("sent",), soon))
        in_line = asyncio.ensure_future(caller.request("Journal.add", ("in line",), soon - 200_000_000))
        errors = [await raised_by(in_line), await raised_by(sent)]
        await comes_true(lambda: not connection._link.session.given_up)
        errors.append(await raised_by(caller.request("Journal.add", ("late",), time.monotonic_ns())))
        assert {type(error) for error in errors} == {seqrpc.DeadlineExceeded}
        assert [error.execution for error in errors] == [DID_NOT_RUN, MAY_HAVE_RUN, DID_NOT_RUN]
        assert set(journal.ran) <= {"sent"}


async def test_a_call_that_waited_in_vain_for_its_turn_did_not_run() -> None:
    journal = Journal()
    limits = Limits(max_calls_in_flight=1, stall_timeout=0.05)
    async with on_a_pair(journal, client_limits=limits) as connection:
        sent = asyncio.ensure_future(connection.call("Journal.wait", "sent"))
        await journal.stage.wait("sent")
        error = await raised_by(connection.call("Journal.add", "in line"))
        assert (type(error), error.execution, journal.ran) == (seqrpc.Overloaded, DID_NOT_RUN, ["sent"])
        sent.cancel()


@pytest.mark.parametrize("how, execution", [("unavailable", MAY_HAVE_RUN), ("wrong", RAN)])
async def test_the_failure_of_a_stream_is_not_called_unrun(how: str, execution: Execution) -> None:
    journal = Journal()
    async with on_a_pair(journal) as connection:
        stream = connection.proxy(Journal).count(how)
        assert await anext(stream) == 1
        error = await raised_by(anext(stream))
        assert (error.execution, journal.ran) == (execution, ["count"])


async def test_a_stream_whose_producer_died_is_not_called_unrun() -> None:
    ours, theirs = seqrpc.socket_pair()
    reading, writing = seqrpc.socket_pair()
    async with seqrpc.connect(sock=ours) as connection:
        with raw_client(theirs) as server, reading, writing:
            call = asyncio.ensure_future(connection.call("Journal.count"))
            request = await server.receive()
            await server.send(1, request[1], None, STREAM, fds=[reading.fileno()])
            stream = await call
            writing.close()
            error = await raised_by(anext(stream))
        assert (type(error), error.execution) == (seqrpc.Unavailable, MAY_HAVE_RUN)


async def test_a_handler_whose_argument_died_is_not_called_unrun() -> None:
    """What a handler meets where it reads is Unavailable, too; as the answer to its own call that would be a lie."""
    journal = Journal()
    ours, theirs = seqrpc.socket_pair()
    reading, writing = seqrpc.socket_pair()
    async with seqrpc.serve(journal, sock=theirs):
        with raw_client(ours) as client, reading:
            await client.send(0, 1, "Journal.reads", [STREAM], fds=[reading.fileno()])
            await comes_true(lambda: journal.ran)
            writing.close()
            answer = await client.receive()
        assert answer[:2] == [1, 1]
        assert answer[2][0] == "rpc.Internal"


async def test_a_channel_that_was_let_go_runs_nothing() -> None:
    async with on_a_pair(Journal()) as connection:
        channel = await connection.call("Journal.gives_object")
        await channel.close()
        error = await raised_by(channel.call("Item.look"))
        assert (type(error), error.execution) == (seqrpc.ConnectionLost, DID_NOT_RUN)
        second = await connection.call("Journal.gives_object")
        await second.call("Item.look")
        await second.close()
        error = await raised_by(second.call("Item.look"))
        assert (type(error), error.execution) == (seqrpc.ConnectionLost, DID_NOT_RUN)
