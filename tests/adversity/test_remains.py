"""What is left of a connection that has ended: nothing, at once, and without the garbage collector.

It would have to look at all that the process has whenever many came and went, which takes a quarter of a second.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.descriptors import owned
from support.packets import readable, send_with, wire
from support.waiting import comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio.caller import Caller
from seqrpc.aio.carrier import Carrier
from seqrpc.aio.link import Link
from seqrpc.aio.living import LivingValues
from seqrpc.aio.objects import ObjectEnd
from seqrpc.aio.producers import Producer
from seqrpc.aio.readers import StreamReader
from seqrpc.protocol.session import Session
from seqrpc.protocol.values import EXT_CHANNEL, EXT_STREAM

TIMES = 10

KINDS = (Link, Carrier, Session, StreamReader, Caller, LivingValues, Producer, ObjectEnd)


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

    @seqrpc.method
    async def use(self, other: Simple) -> int:
        return await other.add(1, 2)

    @seqrpc.method
    async def read(self, numbers: seqrpc.Stream[int]) -> int:
        return sum([number async for number in numbers])

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method
    async def make(self) -> Simple:
        return Simple()

    @seqrpc.method(allow=nobody)
    async def others(self) -> None:
        """Refuse whoever runs this."""


@pytest.fixture
def uncollected() -> Iterator[Callable[[], dict[str, int]]]:
    """Return what tells how many parts of connections there are; nothing is collected meanwhile."""

    def parts() -> dict[str, int]:
        everything = gc.get_objects()
        return {kind.__name__: sum(type(each) is kind for each in everything) for kind in KINDS}

    gc.collect()
    gc.disable()
    logging.disable(logging.CRITICAL)  # records of errors, which pytest keeps, hold all that their frames do
    yield parts
    logging.disable(logging.NOTSET)
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


async def gives(sock: socket.socket, method: str, kind: int, *packets: bytes) -> None:
    """Give an object, or a stream, say so much on it, and let it go before its call is answered."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send_with(sock, wire(0, 1, method, [msgpack.ExtType(kind, b"\0")]), [theirs.fileno()])
        for packet in packets:
            ours.send(packet)
    await asyncio.get_running_loop().sock_recv(sock, 65_536)


async def gives_an_object_that_goes(sock: socket.socket) -> None:
    await gives(sock, "Simple.use", EXT_CHANNEL)


async def gives_an_object_that_talks_nonsense(sock: socket.socket) -> None:
    await gives(sock, "Simple.use", EXT_CHANNEL, b"\xc1")


async def gives_an_object_that_answers(sock: socket.socket) -> None:
    await gives(sock, "Simple.use", EXT_CHANNEL, wire(1, 0, None, 3))


async def gives_a_stream(sock: socket.socket) -> None:
    await gives(sock, "Simple.read", EXT_STREAM, wire(0, 1, 2), wire(1, None))


async def gives_a_stream_that_dies(sock: socket.socket) -> None:
    await gives(sock, "Simple.read", EXT_STREAM, wire(0, 1, 2))


async def gets(sock: socket.socket, method: str, *args: Any) -> None:
    """Get a stream, or an object, and let it go."""
    sock.send(wire(0, 1, method, list(args)))
    await readable(sock)
    _data, fds, _flags, _address = socket.recv_fds(sock, 65_536, 9)
    for fd in fds:
        os.close(fd)
    await asked(sock, 0, 2, "rpc.ping", [])


async def gets_a_stream(sock: socket.socket) -> None:
    await gets(sock, "Simple.count", 9)


async def gets_a_stream_without_end(sock: socket.socket) -> None:
    await gets(sock, "Simple.count", 1_000_000)


async def gets_an_object(sock: socket.socket) -> None:
    await gets(sock, "Simple.make")


WAYS = [
    nothing, calls, fails, is_refused, is_malformed, does_not_wait, sends_what_nobody_takes,
    gives_an_object_that_goes, gives_an_object_that_talks_nonsense, gives_an_object_that_answers,
    gives_a_stream, gives_a_stream_that_dies, gets_a_stream, gets_a_stream_without_end, gets_an_object,
]  # fmt: skip


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
