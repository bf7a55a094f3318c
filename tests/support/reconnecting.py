"""What the tests of connections that are made anew have in common: a daemon that comes and goes, and what it did."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgpack
import pytest

import seqrpc
from seqrpc.aio.enduring import EnduringConnection
from seqrpc.aio.renewal import Renewal
from support.daemons import Stage
from support.waiting import PATIENCE, comes_true

T = TypeVar("T")

QUICK = seqrpc.Reconnect(first_delay=0.001, longest_delay=0.02, ready_timeout=PATIENCE)
"""Tries often, and waits for as long as a test does."""

IMPATIENT = seqrpc.Reconnect(first_delay=0.001, longest_delay=0.02, ready_timeout=0.05)
"""Tries often, and not for long."""


class Journal(seqrpc.Service):
    """Notes what ran; it is the same over the lives of its daemon."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.stage = Stage()

    @seqrpc.method
    async def add(self, word: str) -> str:
        self.ran.append(word)
        return word

    @seqrpc.method(oneway=True)
    async def tell(self, word: str) -> None:
        self.ran.append(word)

    @seqrpc.method
    async def wait(self, word: str) -> str:
        return await self._wait(word)

    @seqrpc.method(idempotent=True)
    async def wait_again(self, word: str) -> str:
        return await self._wait(word)

    async def _wait(self, word: str) -> str:
        self.ran.append(word)
        self.stage.reach(word)
        if self.ran.count(word) == 1:
            await self.stage.wait(f"{word} may end")
        return word

    @seqrpc.method
    async def refuses(self) -> None:
        self.ran.append("refuses")
        raise seqrpc.Unavailable("not today")

    @seqrpc.method(idempotent=True)
    async def sums(self, numbers: AsyncIterator[int]) -> int:
        self.ran.append("sums")
        self.stage.reach("sums")
        await self.stage.wait("sums may end")
        return sum([number async for number in numbers])

    @seqrpc.method(idempotent=True)
    async def count(self) -> AsyncIterator[int]:
        self.ran.append("count")
        for number in range(3):
            yield number
            await self.stage.wait("count may go on")

    @seqrpc.method
    async def ask_back(self) -> str:
        answer: str = await seqrpc.current_call().connection.call("Guest.name")
        return answer

    @seqrpc.method
    async def pid(self) -> int:
        return os.getpid()


def renewal_of(connection: seqrpc.Connection) -> Renewal:
    assert isinstance(connection, EnduringConnection)
    return connection._renewal


async def ended(connection: seqrpc.Connection) -> None:
    """Wait until a connection has noticed that it has ended, or that it is to take no more calls."""
    renewal = renewal_of(connection)
    await comes_true(lambda: renewal.caller is None)


async def raised_by(kind: type[seqrpc.SeqrpcError], awaitable: Awaitable[Any], text: str | None = None) -> Any:
    """Return the error that something ends with, which it has to."""
    with pytest.raises(kind, match=text) as caught:
        async with asyncio.timeout(PATIENCE):
            await awaitable
    return caught.value


def soon(calling: Awaitable[T]) -> asyncio.Future[T]:
    return asyncio.ensure_future(calling)


class Impostor:
    """Listens without seqrpc, and does what it is told with whoever comes."""

    def __init__(self, path: Path, meets: Callable[[socket.socket], object], backlog: int = 128) -> None:
        self.met = 0
        self.kept: list[socket.socket] = []
        self._meets = meets
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._sock.bind(os.fspath(path))
        self._sock.listen(backlog)
        self._sock.setblocking(False)
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        sock, _ = self._sock.accept()
        self.met += 1
        self._meets(sock)

    def keeps(self, sock: socket.socket) -> None:
        self.kept.append(sock)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
        for sock in [*self.kept]:
            self.leave(sock)

    def leave(self, sock: socket.socket) -> None:
        self.kept.remove(sock)
        asyncio.get_running_loop().remove_reader(sock.fileno())
        sock.close()


@contextlib.contextmanager
def impostor(path: Path, meets: Callable[[Impostor, socket.socket], object]) -> Iterator[Impostor]:
    made = Impostor(path, lambda sock: meets(made, sock))
    try:
        yield made
    finally:
        made.close()


def says_closing(impostor: Impostor, sock: socket.socket) -> None:
    """Take nothing, and stay."""
    sock.send(msgpack.packb([5, "never at home"]))
    impostor.keeps(sock)


def refuses_all(impostor: Impostor, sock: socket.socket) -> None:
    """Say so first, and answer whoever asks all the same."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)

    def answer() -> None:
        try:
            data = sock.recv(65_536)
        except OSError:
            data = b""
        if data:
            with contextlib.suppress(OSError):
                sock.send(msgpack.packb([1, msgpack.unpackb(data)[1], ["rpc.Unavailable", "no", None], None]))
        else:
            impostor.leave(sock)

    says_closing(impostor, sock)
    loop.add_reader(sock.fileno(), answer)


def hangs_up(_impostor: Impostor, sock: socket.socket) -> None:
    sock.close()


def stays(impostor: Impostor, sock: socket.socket) -> None:
    impostor.keeps(sock)
