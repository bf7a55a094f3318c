"""Connections to a process that this one started."""

from __future__ import annotations

import os
from typing import Any

import msgpack
import pytest
from support.waiting import PATIENCE

import seqrpc
from seqrpc.blocking.client import connect_to_process


class Plain(seqrpc.Service):
    @seqrpc.method
    def add(self, one: int, other: int) -> int:
        return one + other


def test_it_serves_and_calls() -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs, connect_to_process(ours, os.getpid(), services=[Plain()]) as connection:
        theirs.settimeout(PATIENCE)
        theirs.send(msgpack.packb([0, 1, "Plain.add", [1, 2]]))
        connection.process()
        assert msgpack.unpackb(theirs.recv(100)) == [1, 1, None, 3]
        connection.notify("rpc.ping")
        assert msgpack.unpackb(theirs.recv(100)) == [2, "rpc.ping", []]


@pytest.mark.parametrize("wrong", [{"services": [Plain(), Plain()]}, {"interceptors": [object()]}])
def test_the_socket_is_closed_if_there_is_no_connection(wrong: dict[str, Any]) -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        with pytest.raises((TypeError, ValueError)):
            connect_to_process(ours, os.getpid(), **wrong)
        assert ours.fileno() < 0
        assert theirs.recv(10) == b""
