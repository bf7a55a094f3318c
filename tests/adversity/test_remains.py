"""What is left of a connection that has ended: nothing, at once, and without the garbage collector.

It would have to look at all that the process has whenever many came and went, which takes a quarter of a second.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.descriptors import owned
from support.packets import send_with, wire
from support.waiting import comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio.carrier import Carrier
from seqrpc.aio.link import Link
from seqrpc.protocol.session import Session

TIMES = 10


class Missing(seqrpc.RpcError, code="remains.Missing"):
    """An error of the service's own."""


def nobody(_caller: seqrpc.Credentials) -> bool:
    return False


class Simple(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def fail(self) -> None:
        raise Missing("it is not here")

    @seqrpc.method(allow=nobody)
    async def others(self) -> None:
        """Refuse whoever runs this."""


@pytest.fixture
def uncollected() -> Iterator[Callable[[], dict[str, int]]]:
    """Return what tells how many parts of connections there are; nothing is collected meanwhile."""

    def parts() -> dict[str, int]:
        everything = gc.get_objects()
        return {kind.__name__: sum(type(each) is kind for each in everything) for kind in (Link, Carrier, Session)}

    gc.collect()
    gc.disable()
    yield parts
    gc.enable()


async def asked(sock: socket.socket, *packet: Any) -> Any:
    sock.send(wire(*packet))
    return await asyncio.get_running_loop().sock_recv(sock, 65_536)


async def nothing(_sock: socket.socket) -> None:
    """Say nothing."""


async def calls(sock: socket.socket) -> None:
    await asked(sock, 0, 1, "Simple.add", [1, 2])


async def fails(sock: socket.socket) -> None:
    await asked(sock, 0, 1, "Simple.fail", [])


async def is_refused(sock: socket.socket) -> None:
    await asked(sock, 0, 1, "Simple.others", [])
    await asked(sock, 0, 2, "Simple.nothing", [])
    await asked(sock, 0, 3, "Simple.add", ["1", 2])


async def is_malformed(sock: socket.socket) -> None:
    sock.send(b"\xc1")
    await asyncio.get_running_loop().sock_recv(sock, 65_536)


async def does_not_wait(sock: socket.socket) -> None:
    """Ask, and go before the answer can be sent."""
    sock.send(wire(0, 1, "Simple.add", [1, 2]))


async def sends_what_nobody_takes(sock: socket.socket) -> None:
    with owned(1) as (fd,):
        send_with(sock, wire(0, 1, "Simple.add", [1, 2]), [fd.fileno()])
        await asyncio.get_running_loop().sock_recv(sock, 65_536)


WAYS = [nothing, calls, fails, is_refused, is_malformed, does_not_wait, sends_what_nobody_takes]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_nothing_is_left_of_a_raw_connection(
    way: Callable[[socket.socket], Awaitable[None]], socket_path: Path, uncollected: Callable[[], dict[str, int]]
) -> None:
    async with seqrpc.serve(Simple(), socket_path, accept_descriptors=True) as server:

        async def come_and_go() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.setblocking(False)
                sock.connect(str(socket_path))
                await way(sock)
            await comes_true(lambda: not server.connections)

        await come_and_go()
        before = uncollected()
        for _ in range(TIMES):
            await come_and_go()
        await turns_of_the_loop()
        assert uncollected() == before


async def test_nothing_is_left_at_the_server(socket_path: Path, uncollected: Callable[[], dict[str, int]]) -> None:
    async with seqrpc.serve(Simple(), socket_path) as server:
        before = uncollected()

        async def come_and_go() -> None:
            async with seqrpc.connect(socket_path) as connection:
                assert await connection.proxy(Simple).add(1, 2) == 3
                with pytest.raises(Missing):
                    await connection.proxy(Simple).fail()

        for _ in range(TIMES):
            await come_and_go()
        await comes_true(lambda: not server.connections)
        assert uncollected()["Link"] - before["Link"] <= TIMES, "those of the clients"
