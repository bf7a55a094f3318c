"""Calls that run as their event loop is closed, without anybody having cancelled them."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from support.oneway import Log
from support.waiting import PATIENCE, comes_true

import seqrpc


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_their_end_is_told_to_nobody(
    new_loop: Callable[[], asyncio.AbstractEventLoop], socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waited for it, or watched, did so on that loop."""
    caught: list[Any] = []
    ended: list[str] = []

    async def leave_running() -> seqrpc.Server:
        log = Log()
        log.lines = ended
        server = await seqrpc.serve(log, socket_path, limits=seqrpc.Limits(close_timeout=PATIENCE))
        async with seqrpc.connect(socket_path) as connection:
            await connection.notify("Log.write", "one")
            await log.began.wait()
        await comes_true(lambda: not server.connections)
        log.ended.set = lambda: ended.append("closed")  # type: ignore[method-assign]
        return server

    monkeypatch.setattr(sys, "unraisablehook", lambda args: caught.append(args.exc_value))
    loop = new_loop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        server: seqrpc.Server | None = loop.run_until_complete(leave_running())
        loop.close()
        assert server is not None
        del server, loop
        gc.collect()
    assert ended == ["closed"]
    assert caught == []
