from __future__ import annotations

import os
import socket

import msgpack
import pytest
from support.processes import in_child

import seqrpc
from seqrpc.blocking.client import connect_to_process


def test_packets_of_the_process_are_taken() -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs, connect_to_process(ours, os.getpid()) as connection:
        theirs.send(msgpack.packb([1, 0, None, 5]))
        assert connection.call("A.b") == 5


@pytest.mark.parametrize("fds", [(), (0,)])
def test_a_packet_of_another_process_ends_it(fds: tuple[int, ...]) -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs, connect_to_process(ours, os.getpid()) as connection:
        foreign = in_child(lambda: (socket.send_fds(theirs, [msgpack.packb([1, 0, None, 5])], fds), os.getpid())[1])
        with pytest.raises(
            seqrpc.ConnectionLost, match=f"a packet of process {foreign} came, where process {os.getpid()} was"
        ):
            connection.call("A.b")
        assert connection.closed


def test_a_packet_whose_sender_is_not_named_ends_it() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, connect_to_process(ours, os.getpid()) as connection:
        theirs.send(msgpack.packb([1, 0, None, 5]))
        with pytest.raises(seqrpc.ConnectionLost, match="that the kernel does not name"):
            connection.call("A.b")
