"""Servers in the place of others: what the predecessor gives, a successor does not lose and does not remove."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.daemons import exists
from support.restarts import Listening, played

import seqrpc
from seqrpc.aio.server import hub_of, serve_after
from seqrpc.kernel.handover import Word


class Work(seqrpc.Service):
    def __init__(self) -> None:
        self.told: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.told.append("begins")
        yield
        self.told.append("ends")

    @seqrpc.method
    async def nothing(self) -> None: ...


OPTIONS: dict[str, Any] = {
    "sock": None,
    "allow": None,
    "mode": None,
    "group": None,
    "backlog": 10,
    "accept_descriptors": None,
    "pass_credentials": False,
    "interceptors": (),
    "limits": seqrpc.Limits(),
}


async def asked(p: Listening, service: Work, **options: Any) -> asyncio.Future[seqrpc.Server]:
    """Begin to serve after a predecessor, and have that give what it listens with."""
    serving = asyncio.ensure_future(serve_after(p.predecessor, service, str(p.address), **{**OPTIONS, **options}))
    heard = await p.conversation.hear()
    assert heard is not None
    assert heard.word is Word.ASK
    assert service.told == ["begins"]
    p.conversation.give(p.listening)
    return serving


async def test_a_successor_accepts_once_it_relieves_its_predecessor(socket_path: Path) -> None:
    async with played(socket_path) as p:
        async with await (await asked(p, Work())) as server, seqrpc.connect(socket_path) as client:
            call = asyncio.ensure_future(client.call("Work.nothing"))
            relieving = asyncio.ensure_future(p.predecessor.relieve(hub_of(server)))
            p.listening.is_anothers = True
            p.conversation.say(Word.YOURS)
            await relieving
            await call
            assert len(server.connections) == 1
        assert not exists(socket_path)


async def test_one_that_is_closed_before_leaves_everything_to_its_predecessor(socket_path: Path) -> None:
    service = Work()
    async with played(socket_path) as p:
        async with await (await asked(p, service)):
            pass
        assert service.told == ["begins", "ends"]
        assert exists(socket_path)


async def test_one_that_asks_for_something_else_is_no_successor(socket_path: Path) -> None:
    service = Work()
    async with played(socket_path) as p:
        with pytest.raises(seqrpc.AddressError, match="changes neither address nor mode="):
            await (await asked(p, service, mode=0o660))
        assert service.told == ["begins", "ends"]
        assert exists(socket_path)
