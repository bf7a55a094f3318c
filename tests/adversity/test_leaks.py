"""Descriptors pass, and none is left behind by ten thousand calls that fail, whatever the way (bar 3).

Server and client share this process, so both are watched.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.descriptors import Lender, open_fds, owned
from support.packets import send_with, wire
from support.scarcity import table_full
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Connection, Limits, OwnedFd, RpcError, Server

CALLS = int(os.environ.get("SEQRPC_LEAK_CALLS", "10000"))
"""Calls of each failing kind."""

AT_ONCE = 64


class Overdrawn(RpcError, code="leaks.Overdrawn"):
    """An error of the service's own."""


def nobody(_caller: seqrpc.Credentials) -> bool:
    return False


class Leaky(seqrpc.Service):
    """Fails in every way."""

    def __init__(self) -> None:
        self.started = 0
        self.echoed = 0

    @seqrpc.method
    async def echo(self, fds: list[OwnedFd]) -> list[OwnedFd]:
        self.echoed += 1
        return fds

    @seqrpc.method
    async def make(self, number: int) -> list[OwnedFd]:
        return [OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) for _ in range(number)]

    @seqrpc.method
    async def take(self, number: int, fd: OwnedFd) -> int:
        return number

    @seqrpc.method(allow=nobody)
    async def refuse(self, fd: OwnedFd) -> None:
        raise AssertionError("nobody gets here")

    @seqrpc.method
    async def fail(self, fd: OwnedFd, how: int) -> None:
        if how % 3 == 0:
            raise Overdrawn("known to both", {"held": 7})
        if how % 3 == 1:
            raise LookupError("not foreseen")
        await asyncio.sleep(0)
        raise RpcError("with a descriptor of its own", [Lender(fd.fileno())], code="leaks.Other")

    @seqrpc.method
    async def hold(self, data: bytes, fd: OwnedFd) -> None:
        self.started += 1
        await asyncio.Event().wait()

    @seqrpc.method
    async def wait(self, fd: OwnedFd) -> None:
        self.started += 1
        await asyncio.Event().wait()


@asynccontextmanager
async def served(path: Path, limits: Limits = Limits()) -> AsyncIterator[tuple[Leaky, Server, Connection]]:  # noqa: B008
    service = Leaky()
    async with (
        seqrpc.serve(service, path, limits=limits) as server,
        seqrpc.connect(path, limits=limits) as connection,
    ):
        await connection.call("rpc.ping")
        yield service, server, connection


@asynccontextmanager
async def nothing_is_left(server: Server) -> AsyncIterator[None]:
    """Check that the block leaves neither a descriptor nor a task nor a connection."""
    fds, tasks, connections = open_fds(), asyncio.all_tasks(), server.connections
    yield
    # Requests that were received and not begun have descriptors, and no task yet.
    with suppress(TimeoutError):
        await comes_true(
            lambda: server.connections == connections and asyncio.all_tasks() == tasks and open_fds() == fds
        )
    assert (server.connections, asyncio.all_tasks(), open_fds()) == (connections, tasks, fds)


async def many(call: Callable[[int], Awaitable[None]], at_once: int = AT_ONCE) -> None:
    """Do the numbers' calls, several at a time."""
    numbers: Iterator[int] = iter(range(CALLS))

    async def work() -> None:
        for number in numbers:
            await call(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


def expecting(error: type[Exception], call: Callable[[int], Awaitable[Any]]) -> Callable[[int], Awaitable[None]]:
    """Return a call that must fail with exactly this."""

    async def fails(number: int) -> None:
        try:
            await call(number)
        except error:
            return
        raise AssertionError(f"call {number} did not fail")

    return fails


async def until_started(service: Leaky, number: int) -> None:
    await comes_true(lambda: service.started >= number)


async def until_connections(server: Server, number: int) -> None:
    await comes_true(lambda: len(server.connections) == number)


# How many pass


@pytest.mark.parametrize("number", [0, 1, 2, 253])
async def test_so_many_descriptors_pass_both_ways(socket_path: Path, number: int) -> None:
    async with served(socket_path) as (_, server, connection), nothing_is_left(server):
        with owned(number) as fds:
            answer = await connection.proxy(Leaky).echo(fds)
            assert len(answer) == number
            for mine, theirs in zip(fds, answer, strict=True):
                assert os.path.samestat(os.fstat(mine.fileno()), os.fstat(theirs.fileno()))
                assert mine.fileno() != theirs.fileno()
                theirs.close()
        for fd in await connection.proxy(Leaky).make(number):
            fd.close()


async def test_one_more_is_an_error_before_anything_is_sent(socket_path: Path) -> None:
    async with served(socket_path) as (service, server, connection), nothing_is_left(server):
        with (
            owned(254) as fds,
            pytest.raises(seqrpc.LocalProtocolError, match="at most 253 descriptors, this one more"),
        ):
            await connection.proxy(Leaky).echo(fds)
        with pytest.raises(seqrpc.Internal):  # of an answer the server's log tells
            await connection.proxy(Leaky).make(254)
        assert await connection.proxy(Leaky).echo([]) == []
        assert service.echoed == 1


# Calls that fail, each with a descriptor attached


async def test_unknown_methods_leave_nothing(socket_path: Path) -> None:
    async with served(socket_path) as (_, server, connection), nothing_is_left(server):
        await many(expecting(seqrpc.MethodNotFound, lambda _number: connection.call("Leaky.none", Lender())))


async def test_bad_parameters_leave_nothing(socket_path: Path) -> None:
    wrong: list[tuple[Any, ...]] = [("seven", Lender()), (7, 8, Lender()), (Lender(), Lender()), (7, [Lender()])]

    async with served(socket_path) as (_, server, connection), nothing_is_left(server):
        await many(
            expecting(seqrpc.InvalidParams, lambda number: connection.call("Leaky.take", *wrong[number % len(wrong)]))
        )


async def test_refused_callers_leave_nothing(socket_path: Path) -> None:
    async with served(socket_path) as (_, server, connection), nothing_is_left(server):
        await many(expecting(seqrpc.PermissionDenied, lambda _number: connection.call("Leaky.refuse", Lender())))


async def test_handlers_that_raise_leave_nothing(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("seqrpc.dispatch"), "disabled", True)  # thousands of tracebacks

    async def call(number: int) -> None:
        with pytest.raises(RpcError) as caught:
            await connection.call("Leaky.fail", Lender(), number)
        assert caught.value.code == ("leaks.Overdrawn", "rpc.Internal", "leaks.Other")[number % 3]
        if number % 3 == 2:
            caught.value.data[0].close()  # it came with the error

    async with served(socket_path) as (_, server, connection), nothing_is_left(server):
        await many(call)


async def test_cancelled_calls_leave_nothing(socket_path: Path) -> None:
    async def call(number: int) -> None:
        calling = asyncio.create_task(connection.call("Leaky.wait", Lender()))
        await turns_of_the_loop(1 + number % 4)  # before it is sent, on its way, and while it runs
        calling.cancel()
        with suppress(asyncio.CancelledError):
            await calling
        assert calling.cancelled()

    async with served(socket_path) as (service, server, connection), nothing_is_left(server):
        await many(call)
        await connection.call("rpc.ping")  # whatever was cancelled has been heard of
        assert CALLS // 10 <= service.started <= CALLS


async def test_calls_whose_deadline_passes_leave_nothing(socket_path: Path) -> None:
    async def call(number: int) -> None:
        async with seqrpc.timeout((0, 0.002, 0.03)[number % 3]):
            await connection.call("Leaky.wait", Lender())

    async with served(socket_path) as (service, server, connection), nothing_is_left(server):
        await many(expecting(seqrpc.DeadlineExceeded, call))
        assert service.started > 0


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    sock.connect(os.fspath(path))
    return sock


async def test_callers_that_go_mid_call_leave_nothing(socket_path: Path, pipe: tuple[int, int]) -> None:
    request = [wire(0, call_id, "Leaky.wait", [Lender()]) for call_id in range(AT_ONCE)]

    async with served(socket_path) as (service, server, _connection), nothing_is_left(server):
        for first in range(0, CALLS, AT_ONCE):
            number = min(AT_ONCE, CALLS - first)
            before = service.started
            with connected(socket_path) as peer:
                for call_id in range(number):
                    send_with(peer, request[call_id], pipe[:1])
                await until_started(service, before + 1)
        await until_connections(server, 1)
        assert service.started > CALLS // AT_ONCE


async def test_malformed_packets_leave_nothing(socket_path: Path, pipe: tuple[int, int]) -> None:
    packets = itertools.cycle(
        [
            b"\xc1",
            wire(0, 1, "m", []),  # the descriptors are not referred to
            wire(0, 1, "m", [Lender()]),  # one of them is not
            wire(0, 1, 2, [Lender(), Lender()]),
            wire(0, 1, "m", [Lender(), Lender()]) + b"\x00",
            wire(4, 10, [Lender(), Lender()]),
            b"\x91" * 70 + b"\x90",
        ]
    )
    async with served(socket_path) as (_, server, _connection), nothing_is_left(server):
        for first in range(0, CALLS, AT_ONCE):
            peers = [connected(socket_path) for _ in range(min(AT_ONCE, CALLS - first))]
            for peer in peers:
                send_with(peer, next(packets), pipe)
            for peer in peers:
                async with asyncio.timeout(PATIENCE):
                    closing = await asyncio.get_running_loop().sock_recv(peer, 1000)
                    assert closing[:2] == b"\x92\x05"  # CLOSING
                    assert await asyncio.get_running_loop().sock_recv(peer, 1000) == b""
                peer.close()
            await until_connections(server, 1)


async def test_large_calls_that_fail_leave_nothing(socket_path: Path) -> None:
    """Each has a memory file and a descriptor; what is too large for the server is not for the caller."""
    calls: list[tuple[type[Exception], str, tuple[Any, ...]]] = [
        (seqrpc.TooLarge, "Leaky.echo", (b"x" * 100_000, Lender())),
        (seqrpc.MethodNotFound, "Leaky.none", (b"x" * 66_000, Lender())),
        (seqrpc.InvalidParams, "Leaky.take", (b"x" * 66_000, Lender())),
        (seqrpc.PermissionDenied, "Leaky.refuse", (b"x" * 66_000, Lender())),
    ]

    async def call(number: int) -> None:
        error, method, arguments = calls[number % len(calls)]
        with pytest.raises(error):
            await large.call(method, *arguments)

    async with served(socket_path, Limits(max_message_bytes=70_000)) as (service, server, _connection):
        async with seqrpc.connect(socket_path) as large:
            await large.call("rpc.ping")
            async with nothing_is_left(server):
                await many(call)
        assert service.echoed == 0


async def test_large_calls_that_are_cancelled_leave_nothing(socket_path: Path) -> None:
    data = b"x" * 66_000

    async def call(number: int) -> None:
        calling = asyncio.create_task(connection.call("Leaky.hold", data, Lender()))
        await turns_of_the_loop(1 + number % 4)
        calling.cancel()
        with suppress(asyncio.CancelledError):
            await calling
        assert calling.cancelled()

    async with served(socket_path) as (service, server, connection), nothing_is_left(server):
        await many(call)
        await connection.call("rpc.ping")
        assert service.started > 0


async def test_control_data_that_is_cut_short_leaves_nothing(socket_path: Path) -> None:
    async with served(socket_path) as (service, server, connection), nothing_is_left(server):
        with table_full():
            # Few at once: users that are not root may have no more under way than this table has room for.
            await many(
                expecting(seqrpc.DescriptorsLost, lambda _number: connection.call("Leaky.echo", [Lender()])), at_once=8
            )
        assert service.echoed == 0
