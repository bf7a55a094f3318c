"""Busy polling: a loop that is kept from sleeping answers the next packet sooner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Polling:
    """Reads when there is something to read, and then keeps the loop from sleeping for a while: more may be near.

    Args:
        loop: the running loop.
        read: reads what is there.
        seconds: for how long the loop is kept awake after that.
    """

    __slots__ = ("_loop", "_read", "_seconds", "_until", "is_awake")

    def __init__(self, loop: asyncio.AbstractEventLoop, read: Callable[[], object], seconds: float) -> None:
        """Let the loop sleep as it likes, until something is read."""
        self._loop = loop
        self._read = read
        self._seconds = seconds
        self._until = 0.0
        self.is_awake = False
        """Whether the loop is kept awake."""

    def read(self) -> None:
        """Read what is there, and keep the loop awake."""
        self._until = time.monotonic() + self._seconds  # before it is read: that may stop it
        self._read()
        if self._until:
            self._until = time.monotonic() + self._seconds
            self._stay()

    def _stay(self) -> None:
        if not self.is_awake:
            self.is_awake = True
            self._loop.call_soon(self._stay_awake)

    def _stay_awake(self) -> None:
        self.is_awake = False
        if time.monotonic() < self._until:
            self._stay()  # with something to call, the loop looks for events and never waits

    def stop(self) -> None:
        """Let the loop sleep: nothing is read any more."""
        self._until = 0.0
