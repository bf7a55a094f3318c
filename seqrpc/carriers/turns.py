"""Waiting in line."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable


class Turns:
    """A line of tasks that go one after the other, each when there is room.

    Args:
        loop: the running loop.
        has_room: whether one more may go besides so many whose turn has come and who have not gone yet.
    """

    __slots__ = ("_has_room", "_line", "_loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, has_room: Callable[[int], bool]) -> None:
        """Begin with nobody in line."""
        self._loop = loop
        self._has_room = has_room
        self._line: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self.waiting = 0
        """How many wait, or have not gone yet; to be looked at. Whoever comes while it is not 0 lines up."""

    async def wait(self) -> None:
        """Wait in line for a turn. Go before you wait for anything else: the next one's turn comes after that.

        Raises:
            Exception: what :meth:`fail` was given.

        Cancel: the place in line is given up; a turn that had come already goes to the next.
        """
        turn = self._loop.create_future()
        self._line[turn] = None
        self.waiting += 1
        try:
            await turn
        finally:
            self.waiting -= 1
            self._line.pop(turn, None)
            self._loop.call_soon(self.next)  # whether or not this one goes, there may be room still

    def next(self) -> None:
        """Give the first in line its turn, if there is room."""
        while self._line and self._has_room(self.waiting - len(self._line)):
            turn, _ = self._line.popitem(last=False)
            if not turn.done():  # else its task was cancelled
                turn.set_result(None)
                return

    def fail(self, exc: Exception) -> None:
        """Raise ``exc`` in all who wait."""
        while self._line:
            turn, _ = self._line.popitem(last=False)
            if not turn.done():
                turn.set_exception(exc)
