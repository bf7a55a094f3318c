"""What a daemon's callers are told, and its log, where the process may make no memory file for a message."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop
from support.daemons import on_a_pair
from support.incidents import AN_INCIDENT
from support.processes import in_child

import seqrpc

LARGE = 200_000  # bytes, more than a packet


class Store(seqrpc.Service):
    def __init__(self) -> None:
        self.limited = asyncio.Event()

    @seqrpc.method
    async def load(self, size: int) -> bytes:
        return b"x" * size

    @seqrpc.method
    async def save(self, content: bytes) -> int:
        return len(content)

    @seqrpc.method
    async def items(self, size: int) -> AsyncIterator[bytes]:
        await self.limited.wait()
        yield b"x" * size

    @seqrpc.method
    async def forwards(self, size: int) -> int:
        called: int = await seqrpc.current_call().connection.call("Store.save", b"x" * size)
        return called


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


async def refused(call: Any) -> tuple[str, str]:
    try:
        await call
    except seqrpc.RpcError as exc:
        return exc.code, exc.message
    return "", ""


async def first_of(stream: AsyncIterator[bytes], limited: asyncio.Event) -> None:
    limited.set()
    async for _ in stream:
        return


async def story(limit: Callable[[], None]) -> tuple[list[tuple[str, str]], list[str]]:
    kept = Kept()
    logging.getLogger("seqrpc").addHandler(kept)
    service = Store()
    async with on_a_pair(service, client=[Store()]) as connection:
        store = connection.proxy(Store)
        stream = await seqrpc.Stream.of(store.items(LARGE)).open()
        calls: list[Callable[[], Any]] = [
            lambda: store.load(LARGE),
            lambda: store.save(b"x" * LARGE),
            lambda: first_of(stream, service.limited),
            lambda: store.forwards(LARGE),
            lambda: store.load(10),
        ]
        answers = []
        for call in calls:
            limits = [(name, resource.getrlimit(name)) for name in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)]
            await store.load(1)  # what the call before left is closed by then, and is no descriptor to spare
            limit()
            answers.append(await refused(call()))
            for name, before in limits:
                resource.setrlimit(name, before)
    return answers, kept.messages


def no_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def no_descriptors() -> None:
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "limit, code, text",
    [(no_files, "rpc.TooLarge", "File too large"), (no_descriptors, "rpc.Overloaded", "Too many open files")],
    ids=["RLIMIT_FSIZE", "RLIMIT_NOFILE"],
)
def test_what_cannot_be_written_is_told_by_its_own_name(
    limit: Callable[[], None], code: str, text: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    def work() -> tuple[list[tuple[str, str]], list[str]]:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(story(limit))

    answers, messages = in_child(work)
    for told in answers[:3]:
        assert told[0] == code
        assert text in told[1]
    assert answers[3] == ("rpc.Internal", AN_INCIDENT), "the handler did not foresee that its own call cannot be sent"
    assert answers[4] == ("", "")
    assert sum("cannot be sent" in message and text in message for message in messages) == 2, messages
    assert sum("'Store.forwards' failed (incident" in message for message in messages) == 1, messages
