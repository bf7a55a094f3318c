"""Calls are made on the connection's own loop and in its own process; elsewhere nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.link import End, one_end
from support.processes import in_child
from support.waiting import turns_of_the_loop

from seqrpc import SeqrpcError

WAYS: dict[str, Callable[[End], Coroutine[Any, Any, Any]]] = {
    "call": lambda end: end.connection.caller.request("m", ()),
    "notify": lambda end: end.connection.caller.send_notify("m", ()),
}


def on_a_loop(coroutine: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(SeqrpcError) as caught:
        asyncio.run(coroutine)
    return type(caught.value).__name__


def without_a_loop(coroutine: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(SeqrpcError) as caught:
        coroutine.send(None)
    return type(caught.value).__name__


@pytest.mark.parametrize("drive", [on_a_loop, without_a_loop])
@pytest.mark.parametrize("way", WAYS)
async def test_elsewhere_nothing_is_sent(way: str, drive: Callable[[Coroutine[Any, Any, Any]], str]) -> None:
    async with one_end() as (end, raw):
        assert in_child(lambda: drive(WAYS[way](end))) == "WrongProcess"
        assert await asyncio.to_thread(lambda: drive(WAYS[way](end))) == "WrongLoop"
        await turns_of_the_loop()
        with pytest.raises(BlockingIOError):
            raw.recv(1)
        assert not end.connection.session.calls
