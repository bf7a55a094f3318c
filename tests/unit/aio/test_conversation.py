from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.waiting import PATIENCE, turns_of_the_loop

from seqrpc.aio.conversation import Conversation, ends
from seqrpc.kernel.handover import Talk, Word
from seqrpc.kernel.sockets import socket_pair


@asynccontextmanager
async def conversing() -> AsyncIterator[tuple[Conversation, Conversation]]:
    one, other = (Conversation(Talk(sock, os.getpid())) for sock in socket_pair())
    try:
        yield one, other
    finally:
        one.close()
        other.close()


async def test_what_is_said_is_heard_now_or_later() -> None:
    async with conversing() as (one, other), asyncio.timeout(PATIENCE):
        assert other.hear_now() is None
        one.say(Word.ASK)
        heard = other.hear_now()
        assert heard is not None
        assert heard.word is Word.ASK
        hearing = asyncio.ensure_future(other.hear())
        await turns_of_the_loop()
        one.say(Word.SERVING)
        one.say(Word.YOURS)
        for word in (Word.SERVING, Word.YOURS):
            heard = await hearing
            assert heard is not None
            assert heard.word is word
            hearing = asyncio.ensure_future(other.hear())
        hearing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hearing
        one.say(Word.STOPPING)
        heard = await other.hear()
        assert heard is not None
        assert heard.word is Word.STOPPING


async def test_the_end_is_heard() -> None:
    async with conversing() as (one, other), asyncio.timeout(PATIENCE):
        hearing = asyncio.ensure_future(other.hear())
        await turns_of_the_loop()
        one.close()
        assert await hearing is None
        assert one.closed
        assert await one.hear() is None
        assert one.hear_now() is None


async def test_a_descriptor_is_waited_for_as_long_as_is_said(pipe: tuple[int, int]) -> None:
    assert not await ends(pipe[0], 0.01)
    os.write(pipe[1], b"x")
    assert await ends(pipe[0], PATIENCE)
