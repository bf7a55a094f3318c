"""A watch on a line of those who wait: somebody has to notice that it does not move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

from seqrpc.limits import LONGEST_TIMER

_LOOKS_PER_TIMEOUT = 8
"""How often a line is looked at during its time-out at most. Those who came one after the other are refused together
then, and what is logged of it, and the work, is bounded whatever the line's length."""


class StallWatch:
    """One timer for a line, however long that is, and none while nobody waits.

    Args:
        loop: the running loop.
        stall_timeout: seconds after which a line that does not move is to be looked at.
        look: refuses who has waited too long; returns the seconds until the next one has, or None if nobody waits.
    """

    __slots__ = ("_look", "_loop", "_shortest", "_timeout", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, stall_timeout: float, look: Callable[[], float | None]) -> None:
        """Begin with nobody in line."""
        self._loop = loop
        self._timeout = min(stall_timeout, LONGEST_TIMER)
        self._shortest = self._timeout / _LOOKS_PER_TIMEOUT
        self._look = look
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch the line from now on; does nothing while it is watched."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._fire, context=Context())

    def stop(self) -> None:
        """Watch no longer: nobody waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        delay = self._look()
        if delay is not None:
            delay = min(max(delay, self._shortest), self._timeout)
            self._timer = self._loop.call_later(delay, self._fire, context=Context())
