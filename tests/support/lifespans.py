"""Services with lifespans, which write down what happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path

import pytest

import seqrpc
from support.daemons import Stage, exists

WHERE: ContextVar[str] = ContextVar("where", default="nowhere")


class Vault(seqrpc.Service):
    """Writes down what happens."""

    def __init__(self, told: list[str] | None = None, address: Path | None = None) -> None:
        self.told = [] if told is None else told
        self.address = address
        self.stage = Stage()
        self.tasks: list[object] = []

    def tell(self, what: str) -> None:
        self.told.append(f"{type(self).__name__} {what}")

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.tell("begins")
        self.tasks.append(asyncio.current_task())
        WHERE.set("in the lifespan")
        if self.address is not None:
            assert not exists(self.address)
            with pytest.raises(seqrpc.ConnectError):
                await seqrpc.connect(self.address)
        try:
            yield
        finally:
            self.tasks.append(asyncio.current_task())
            await asyncio.sleep(0)
            self.tell("ends")

    @seqrpc.method
    async def where(self) -> str:
        return WHERE.get()

    @seqrpc.method
    async def work(self) -> None:
        self.tell("works")
        self.stage.reach("works")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.tell("was cancelled")

    @seqrpc.method
    async def count(self) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            self.tell("counts no more")

    @seqrpc.method
    async def child(self) -> Plain:
        return Plain(self.told)


class Annex(Vault):
    """A second one."""


class Plain(seqrpc.Service):
    """Without a lifespan of its own."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    @seqrpc.method
    async def ping(self) -> None:
        pass

    async def close(self) -> None:
        self.told.append("Plain closes")


class Broken(Vault):
    """Cannot begin, or end."""

    at = "the end"

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        if self.at == "the start":
            raise OSError("the disk is full")
        async with super().lifespan():
            yield
            raise OSError("the disk is full")


class Stuck(Vault):
    """Takes long to begin or to end, and may go on although it is cancelled."""

    at = "the end"
    is_stubborn = False

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with super().lifespan():
            if self.at == "the start":
                await self.wait()
            yield
            await self.wait()

    async def wait(self) -> None:
        self.stage.reach("stuck")
        try:
            await self.stage.wait("may go on")
        except asyncio.CancelledError:
            self.tell("is cancelled")
            if not self.is_stubborn:
                raise
            await self.stage.wait("may go on")


class Group(Vault):
    """Has tasks that run as long as it is served."""

    reason: Exception | None = OSError("the disk is full")

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with super().lifespan(), asyncio.TaskGroup() as group:
            group.create_task(self.watch())
            yield
            raise AssertionError("it goes on")

    async def watch(self) -> None:
        await self.stage.wait("fails")
        assert self.reason is not None
        raise self.reason
