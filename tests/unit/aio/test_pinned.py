"""Connections whose other end is one process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import msgpack
import pytest
from support.processes import in_child
from support.scarcity import table_full
from support.waiting import PATIENCE, turns_of_the_loop

import seqrpc
from seqrpc.aio.client import connect_to_process

DESCRIPTOR = 0


async def test_packets_of_the_process_are_taken() -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        connection = await connect_to_process(ours, os.getpid())
        async with seqrpc.timeout(PATIENCE), seqrpc.serve((), sock=theirs):
            await connection.call("rpc.ping")
            await connection.close()


@pytest.mark.parametrize("fds", [(), (DESCRIPTOR,)])
async def test_a_packet_of_another_process_ends_it(fds: tuple[int, ...]) -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        connection = await connect_to_process(ours, os.getpid())
        foreign = in_child(lambda: (socket.send_fds(theirs, [msgpack.packb([2, "rpc.ping", []])], fds), os.getpid())[1])
        async with seqrpc.timeout(PATIENCE):
            await connection.wait_closed()
        with pytest.raises(
            seqrpc.ConnectionLost, match=f"a packet of process {foreign} came, where process {os.getpid()} was"
        ):
            await connection.call("rpc.ping")


async def test_a_packet_whose_sender_is_not_named_ends_it() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        connection = await connect_to_process(ours, os.getpid() + 1)
        theirs.send(msgpack.packb([2, "rpc.ping", []]))
        async with seqrpc.timeout(PATIENCE):
            await connection.wait_closed()
        with pytest.raises(seqrpc.ConnectionLost, match="was expected"):
            await connection.call("rpc.ping")


async def lost(sock: socket.socket, sends: Callable[[], int]) -> tuple[seqrpc.Connection, int]:
    """Return a connection that has been sent a packet whose descriptors it could not take, and by whom."""
    connection = await connect_to_process(sock, os.getpid())
    sender = sends()
    with table_full():
        await turns_of_the_loop()
    return connection, sender


async def test_one_of_another_process_whose_descriptors_were_lost_ends_it_too() -> None:
    ours, theirs = seqrpc.socket_pair()
    packet = msgpack.packb([2, "rpc.ping", []])
    with theirs:
        connection, foreign = await lost(
            ours, lambda: in_child(lambda: (socket.send_fds(theirs, [packet], [DESCRIPTOR]), os.getpid())[1])
        )
        async with seqrpc.timeout(PATIENCE):
            await connection.wait_closed()
        with pytest.raises(seqrpc.ConnectionLost, match=f"a packet of process {foreign} came"):
            await connection.call("rpc.ping")


async def test_one_of_the_process_whose_descriptors_were_lost_is_taken_as_on_any_connection() -> None:
    ours, theirs = seqrpc.socket_pair()
    packet = msgpack.packb([0, 0, "rpc.ping", []])
    with theirs:
        connection, _ = await lost(ours, lambda: socket.send_fds(theirs, [packet], [DESCRIPTOR]))
        theirs.settimeout(PATIENCE)
        await turns_of_the_loop()
        assert not connection.closed
        assert msgpack.unpackb(theirs.recv(10_000))[:2] == [1, 0]
        await connection.close()
