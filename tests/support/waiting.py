"""Wait for what must happen, with bounds that only a hang reaches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE = 30.0
"""Seconds after which something that should happen has not: only a bug waits that long."""


async def happens(event: Callable[[], bool], news: asyncio.Event) -> None:
    """Wait until ``event()`` is true; ``news`` is set whenever that may have changed."""
    async with asyncio.timeout(PATIENCE):
        while not event():
            news.clear()
            await news.wait()


async def turns_of_the_loop(number: int = 10) -> None:
    """Let the loop go round: what was due has happened then. For what should *not* happen, and only for that."""
    for _ in range(number):
        await asyncio.sleep(0)


async def comes_true(condition: Callable[[], object]) -> None:
    """Let the loop go round until something is so that nobody tells of."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await turns_of_the_loop(1)


async def loop_works() -> bool:
    """Return whether the loop stays awake though it has nothing to do: its sleeps take processor time.

    One that sleeps takes one to three milliseconds of it here, one that stays awake thirteen or more. So it is on a
    busy machine: only one of its sleeps is over while others have the processor, and several while it has it itself.
    """
    began = time.thread_time()
    for _ in range(20):
        await asyncio.sleep(0.002)
    return time.thread_time() - began > 0.008


async def loop_rests() -> bool:
    """Return whether the loop sleeps while it has nothing to do: one that stays awake is found so each time."""
    return not (await loop_works() and await loop_works() and await loop_works())
