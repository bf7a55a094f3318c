"""How what is for tests is used, and what type checkers must say of it; a line that is ignored has to be an error."""

from __future__ import annotations

import errno
import socket
from typing import Any, assert_type

import seqrpc
import seqrpc.blocking
from seqrpc.testing import (
    Fault,
    FaultyPair,
    MemoryServer,
    Packet,
    ThreadedServer,
    Way,
    admits,
    assert_fits,
    assert_no_leaks,
    caller,
    faulty_pair,
    memory_server,
    serve_in_memory,
    serve_in_thread,
)


class Calculator(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    def subtract(self, a: int, b: int) -> int:
        return a - b


def somebody() -> None:
    assert_type(caller(uid=1000), seqrpc.Credentials)
    assert_type(caller(uid=None, gid="adm", groups=["adm", 4], pid=None), seqrpc.Credentials)
    caller()  # type: ignore[call-arg] # who?
    caller(1000)  # type: ignore[call-arg] # by name only
    caller(uid="root")  # type: ignore[arg-type]
    caller(uid=1, groups=4)  # type: ignore[arg-type]


def policies(who: seqrpc.Credentials) -> None:
    assert_type(admits(Calculator.add, who), bool)
    assert_type(admits(Calculator().subtract, who, allow=seqrpc.policy.anyone), bool)
    assert_type(admits("add", None, service=Calculator), bool)
    admits(Calculator.add, 1000)  # type: ignore[arg-type]
    admits(Calculator.add)  # type: ignore[call-arg]
    admits("add", who, service="Calculator")  # type: ignore[arg-type]


async def servers(who: seqrpc.Credentials) -> None:
    async with serve_in_memory(Calculator(), caller=who, allow=seqrpc.policy.anyone) as connection:
        assert_type(connection, seqrpc.Connection)
    async with memory_server([Calculator()]) as server:
        assert_type(server, MemoryServer)
        assert_type(server.open_socket(caller=who), socket.socket)
        async with server.connect(caller=who, services=Calculator()) as connection:
            assert_type(await connection.proxy(Calculator).add(1, 2), int)
    with serve_in_thread(Calculator()) as threaded:
        assert_type(threaded, ThreadedServer)
        with threaded.connect(caller=who) as blocking:
            assert_type(blocking, seqrpc.blocking.Connection)
        assert_type(threaded.enter(faulty_pair()), FaultyPair)
    serve_in_memory(Calculator(), "/run/x.sock")  # type: ignore[call-arg,arg-type]
    serve_in_memory(Calculator(), caller=1000)  # type: ignore[arg-type]
    memory_server(Calculator)  # type: ignore[arg-type] # the class


async def faults() -> None:
    async with faulty_pair() as pair:
        assert_type(pair, FaultyPair)
        assert_type(pair.to_server, Way)
        fault = pair.to_server.drop("Calculator.add")
        assert_type(fault, Fault)
        assert_type(fault.count, int)
        await fault.happened(2)
        pair.to_client.hold(3).release()
        pair.to_client.cut_control(lambda packet: assert_type(packet, Packet).descriptors > 1, times=None)
        pair.to_client.fail(errno.ENOBUFS)
        pair.to_client.fail("ENOBUFS")  # type: ignore[arg-type]
        pair.to_client.drop(lambda packet: packet.size > 1)  # type: ignore[attr-defined]
        pair.client = None  # type: ignore[misc,assignment]
        async with serve_in_memory(Calculator(), pair=pair) as connection:
            assert_type(await connection.call("Calculator.add", 1, 2), Any)


async def checks() -> None:
    assert_fits(Calculator, Calculator)
    with assert_no_leaks():
        pass
    async with assert_no_leaks(patience=1.0):
        pass
