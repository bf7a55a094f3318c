"""Waiting in line."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """A line of tasks that go one after the other, each when there is room.

    Args:
        loop: the running loop.
        has_room: whether one more may go.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, has_room: Callable[[], bool]) -> None:
        """Begin with nobody in line."""
        self._loop = loop
        self._has_room = has_room
        self.line: deque[asyncio.Future[None]] = deque()
        """Those who wait, to be looked at."""

    async def wait(self) -> None:
        """Wait in line for a turn; whoever had one calls :meth:`next` when done with it.

        Raises:
            Exception: what :meth:`fail` was given.

        Cancel: the place in line is given up; a turn that had come already goes to the next.
        """
        turn = self._loop.create_future()
        self.line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.next()
            raise

    def next(self) -> None:
        """Give the first in line its turn, if there is room."""
        while self.line and self._has_room():
            turn = self.line.popleft()
            if not turn.done():  # else its task was cancelled
                turn.set_result(None)
                return

    def fail(self, exc: Exception) -> None:
        """Raise ``exc`` in all who wait."""
        while self.line:
            turn = self.line.popleft()
            if not turn.done():
                turn.set_exception(exc)
