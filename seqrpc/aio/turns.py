"""Waiting in line."""

from __future__ import annotations

import asyncio
import copy
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context

from seqrpc.aio.stalls import StallWatch


def _always(_going: int) -> bool:
    return True


def _nothing() -> None:
    return None


class Turns:
    """A line of tasks that go one after the other, each when there is room.

    Args:
        loop: the running loop.
        has_room: whether one more may go besides so many whose turn has come and who have not gone yet.
        stall_timeout: seconds without a turn for anybody after which those who have waited as long are refused.
        refusal: makes what is raised in each of them; None, as it returns by default, lets them wait on.
    """

    __slots__ = ("_has_room", "_line", "_loop", "_moved", "_refusal", "_stall_timeout", "_watch", "waiting")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        has_room: Callable[[int], bool],
        stall_timeout: float = float("inf"),
        refusal: Callable[[], Exception | None] = _nothing,
    ) -> None:
        """Begin with nobody in line."""
        self._loop = loop
        self._has_room = has_room
        self._line: OrderedDict[asyncio.Future[None], float] = OrderedDict()  # with the time at which each came
        self.waiting = 0
        """How many wait, or have not gone yet; to be looked at. Whoever comes while it is not 0 lines up."""
        self._moved = 0.0  # when a turn was given last
        self._stall_timeout = stall_timeout
        self._refusal = refusal
        self._watch: StallWatch | None = None  # most connections never have a line

    async def wait(self) -> None:
        """Wait in line for a turn. Go before you wait for anything else: the next one's turn comes after that.

        Raises:
            Exception: what :meth:`fail` was given, or the refusal of a line that does not move.

        Cancel: the place in line is given up; a turn that had come already goes to the next.
        """
        turn = self._loop.create_future()
        self._line[turn] = self._loop.time()
        self.waiting += 1
        if self._watch is None:
            self._watch = StallWatch(self._loop, self._stall_timeout, self._refuse_stalled)
        self._watch.start()
        try:
            await turn
        finally:
            self.waiting -= 1
            self._line.pop(turn, None)
            if not self._line:
                self._watch.stop()
            if not self._loop.is_closed():  # else it was torn down, and what waited on it is being collected
                self._loop.call_soon(self.next, context=Context())  # whether or not this one goes, there may be room
            del turn  # its error, if it has one, refers to this frame, and to those that wait for it

    def next(self) -> None:
        """Give the first in line its turn, if there is room."""
        while self._line and self._has_room(self.waiting - len(self._line)):
            turn, _ = self._line.popitem(last=False)
            if not turn.done():  # else its task was cancelled
                self._moved = self._loop.time()
                turn.set_result(None)
                return

    def let_go(self) -> None:
        """Let everybody go from now on, without asking anybody: what there was to wait for has ended."""
        self._has_room, self._refusal = _always, _nothing

    def restart(self) -> None:
        """Measure anew how long the line has not moved: until now it waited for something else."""
        self._moved = self._loop.time()

    def _refuse_stalled(self) -> float | None:
        """Refuse who has waited for ``stall_timeout`` and saw no turn given; return when the next one will have."""
        now = self._loop.time()
        while self._line:
            turn, came = next(iter(self._line.items()))
            left = max(came, self._moved) + self._stall_timeout - now
            if left > 0:
                return left
            if turn.done():  # its task was cancelled, or hears of another error
                del self._line[turn]
                continue
            exc = self._refusal()
            if exc is None:
                self._moved = now
            else:
                del self._line[turn]
                turn.set_exception(exc)
        return None

    def fail(self, exc: Exception) -> None:
        """Raise ``exc`` in all who wait, in each one of its own: whoever catches it may write into it."""
        while self._line:
            turn, _ = self._line.popitem(last=False)
            if not turn.done():
                own = copy.copy(exc)
                own.__cause__ = exc.__cause__
                turn.set_exception(own)
