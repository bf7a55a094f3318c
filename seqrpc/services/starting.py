"""How handlers begin: each in a task of its own, which was nobody's before it and is nobody's after."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Final, Protocol

TURN: Final = 0.005
"""Seconds of a turn of the loop in which handlers of one connection begin; those that are left begin in the next turn,
after what else the loop has to do, the handlers of other connections first of all.
asyncio calls a callback slow from 0.1 s on; a picture on a screen has 0.016."""

_STARTS_AT_ONCE: Final = sys.version_info >= (3, 12)


class Starts(Protocol):
    """What is started; it knows whether it has to ask :meth:`Starter.must_wait` as it begins."""

    is_paced: bool


class Starter:
    """Starts coroutines of one connection as tasks of a loop.

    By the loop's task factory where one is set; else at once on Python 3.12 and later (``eager_start``), before that in
    the loop's next turn, in order. There several may begin in one turn, and each is asked to wait for the next turn
    if those before it took longer than :data:`TURN`.

    Args:
        loop: the running loop.
    """

    __slots__ = ("_loop", "_turn_ends", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with nothing started."""
        self._loop = loop
        self._waiting = 0  # that were started, and have not begun
        self._turn_ends = 0.0  # while there is a turn in which several begin

    def start(self, context: Context, owner: Starts, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Return the task of ``coroutine``, which may be done already.

        Args:
            context: the coroutine's own.
            owner: its ``is_paced`` is set if ``coroutine`` is to begin with :meth:`must_wait`.
            coroutine: has not begun; if this fails it is still the caller's.
        """
        loop = self._loop
        is_free = loop.get_task_factory() is None
        if _STARTS_AT_ONCE and is_free:
            return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)  # type: ignore[call-arg,unused-ignore]
        owner.is_paced = True
        self._waiting += 1
        try:
            if is_free:
                return asyncio.Task(coroutine, loop=loop, context=context)
            task: asyncio.Task[None] = context.run(loop.create_task, coroutine)  # not every factory takes a context
        except BaseException:
            self._waiting -= 1
            raise
        return task

    def never_begun(self) -> None:
        """Hear that something was cancelled before it could begin."""
        self._waiting -= 1

    def must_wait(self) -> bool:
        """Return whether what is about to begin should let the others on the loop go first."""
        self._waiting -= 1
        if self._turn_ends:
            return time.monotonic() >= self._turn_ends
        if self._waiting:  # else it is alone in its turn
            self._turn_ends = time.monotonic() + TURN
            self._loop.call_soon(self._end_turn)
        return False

    async def wait(self) -> None:
        """Let the others on the loop go first.

        Cancel: what is about to begin does not.
        """
        while True:
            self._waiting += 1
            try:
                await asyncio.sleep(0)
            except BaseException:
                self._waiting -= 1
                raise
            if not self.must_wait():
                return

    def _end_turn(self) -> None:
        self._turn_ends = 0.0
