"""What a connection that does nothing keeps in its server's memory: there may be a thousand of them."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.packets import receive, unwire, wire

import seqrpc

CONNECTIONS = 100
MOST_BYTES = 8 * 1024
"""Of each. The process takes some more for it, which is not Python's to count: the event loop, the allocator's own."""


class Adder(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def a_client(path: Path) -> socket.socket:
    """Return a connection over which one call was made: as little as there can be at this end."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    sock.connect(str(path))
    sock.send(wire(0, 7, "Adder.add", [2, 3]))
    assert unwire(await receive(sock)) == [1, 7, None, 5]
    return sock


def memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def test_an_idle_connection_takes_little_memory(socket_path: Path, traced: None) -> None:
    async with seqrpc.serve(Adder(), socket_path):
        clients = [await a_client(socket_path)]  # what a server does but once is done
        before = memory()
        clients += [await a_client(socket_path) for _ in range(CONNECTIONS)]
        taken = (memory() - before) / CONNECTIONS
        for client in clients:
            client.close()

    assert taken < MOST_BYTES
