"""Servers and connections that are dropped without being closed, in every place from which that can be."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import seqrpc
from support.waiting import comes_true


class Small(seqrpc.Service):
    @seqrpc.method
    async def one(self) -> int:
        return 1


@contextmanager
def unclosed(what: str = "Connection", number: int = 1) -> Iterator[None]:
    """Expect warnings, so many, of something dropped; without the garbage collector, which may come much later."""
    gc.disable()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        gc.enable()
    assert [warning.category for warning in caught] == [ResourceWarning] * number
    assert [str(warning.message)[: len(f"unclosed <{what} ")] for warning in caught] == [f"unclosed <{what} "] * number


async def opened(path: Path) -> list[Any]:
    """Return a server and a connection to it, over which a call has gone."""
    server = await seqrpc.serve(Small(), path)
    connection = await seqrpc.connect(path)
    assert await connection.proxy(Small).one() == 1
    return [server, connection]


def _let_go(both: list[Any]) -> None:
    both.clear()
    gc.collect()


def drop(both: list[Any]) -> None:
    """Drop them, and see two warnings."""
    with pytest.warns(ResourceWarning, match="unclosed") as told:
        _let_go(both)
    assert len([one for one in told if "unclosed" in str(one.message)]) == 2


def drop_in_every_place(path: Path) -> None:
    """Drop both on their loop, from another thread, between runs of the loop, and after its end."""

    async def on_the_loop() -> None:
        drop(await opened(path))
        await comes_true(lambda: not path.exists())
        both = await opened(path)
        thread = threading.Thread(target=drop, args=(both,))
        thread.start()
        await comes_true(lambda: not thread.is_alive() and not path.exists())

    with asyncio.Runner() as runner:
        runner.run(on_the_loop())
        drop(runner.run(opened(path)))
        runner.run(comes_true(lambda: not path.exists()))
        both = runner.run(opened(path))
    drop(both)
    assert not path.exists()
