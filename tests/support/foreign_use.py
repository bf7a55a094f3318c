"""What is used in forks, on other loops and in other threads than it was made."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

import seqrpc
from support.waiting import PATIENCE

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class Account(seqrpc.Service):
    @seqrpc.method
    async def balance(self) -> int:
        return 7


class Sums(seqrpc.Service):
    """Notes in which process what ran."""

    def __init__(self) -> None:
        self.added: list[tuple[int, int]] = []
        self.account = Account()

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        self.added.append((a, b))
        return a + b

    @seqrpc.method(oneway=True)
    async def note(self, a: int) -> None:
        self.added.append((a, 0))

    @seqrpc.method
    async def count(self, first: int = 0) -> AsyncIterator[int]:
        while True:
            yield first
            first += 1

    @seqrpc.method
    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @seqrpc.method
    async def open(self) -> Account:
        return self.account

    @seqrpc.method
    async def holds(self, account: Account) -> int:
        return await account.balance()


class Held:
    """One of everything that a client can have."""

    def __init__(self, connection: seqrpc.Connection, server: seqrpc.Server) -> None:
        self.connection = connection
        self.server = server
        self.sums = connection.proxy(Sums)

    async def get(self) -> Held:
        self.read = seqrpc.Stream.of(self.sums.count())
        assert [await anext(self.read) for _ in range(3)] == [0, 1, 2]
        self.unread: seqrpc.Stream[int] = await self.connection.call("Sums.count")
        self.unopened = seqrpc.Stream.of(self.sums.count())
        self.used = await self.connection.call("Sums.open")
        assert await self.used.call("Account.balance") == 7
        self.unused = await self.connection.call("Sums.open")
        self.account: Account = await self.sums.open()
        return self

    def uses(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """Return all that sends, receives or waits."""
        return {
            "call": lambda: self.connection.call("Sums.add", 100, 200),
            "notify": lambda: self.connection.notify("Sums.note", 100),
            "proxy": lambda: self.sums.add(100, 200),
            "oneway": lambda: self.sums.note(100),
            "a new stream": lambda: anext(self.sums.count()),
            "wait_closed": self.connection.wait_closed,
            "a stream that was read": lambda: anext(self.read),
            "a stream that was not read": lambda: anext(self.unread),
            "a stream that was not opened": lambda: anext(self.unopened),
            "open": self.unopened.open,
            "a channel that was used": lambda: self.used.call("Account.balance"),
            "a channel that was not used": lambda: self.unused.call("Account.balance"),
            "a channel's notify": lambda: self.unused.notify("Account.balance"),
            "a channel's wait_closed": self.unused.wait_closed,
            "a channel's proxy": self.account.balance,
            "drain": self.server.drain,
            "a server's wait_closed": self.server.wait_closed,
        }

    def ends(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """Return all that lets go."""
        return {
            "connection": self.connection.close,
            "server": self.server.close,
            "read": self.read.aclose,
            "unread": self.unread.aclose,
            "unopened": self.unopened.aclose,
            "used": self.used.close,
            "unused": self.unused.close,
            "account": self.account.close,
        }

    async def check(self) -> None:
        """Everything is as it was."""
        assert await self.sums.add(1, 1) == 2
        assert await anext(self.read) == 3
        assert await anext(self.unread) == 0
        assert await anext(self.unopened) == 0
        assert await self.used.call("Account.balance") == 7
        assert await self.unused.call("Account.balance") == 7
        assert await self.account.balance() == 7

    async def let_go(self) -> None:
        for end in self.ends().values():
            await end()


@asynccontextmanager
async def holding(service: Sums, path: Path) -> AsyncIterator[Held]:
    async with seqrpc.serve(service, path) as server, seqrpc.connect(path) as connection:
        held = await Held(connection, server).get()
        yield held
        await held.let_go()


def outcome(use: Callable[[], Awaitable[Any]], run: Callable[[Coroutine[Any, Any, Any]], Any]) -> str:
    """Return what becomes of a use: the name of what it raises, or what it returns."""

    async def bounded() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await use()

    try:
        return repr(run(bounded()))
    except Exception as exc:
        return type(exc).__name__


def sockets_of(pid: int | str) -> set[str]:
    """Return which sockets a process has open."""
    names = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.add(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            continue
    return {name for name in names if name.startswith("socket:")}
