"""What a daemon tells its service manager while it runs: that it works, and what it does."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from seqrpc.aio.hub import Hub
from seqrpc.limits import LONGEST_TIMER, STATUS_INTERVAL

if TYPE_CHECKING:
    from seqrpc.kernel.systemd import Manager


class Watchdog:
    """A timer of the event loop, so that the manager hears nothing while the loop is stuck; without a manager, none.

    It goes on until the loop ends: a daemon that drains, or ends its lifespans, works.

    Args:
        manager: who is told; if it wants pings, twice in the time within which it must hear one.
        hub: whose connections and calls are told, with a ping or every ``STATUS_INTERVAL``, if they have changed.
    """

    def __init__(self, manager: Manager, hub: Hub) -> None:
        """Prepare; :meth:`begin` begins."""
        self._manager = manager
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._told: str | None = None
        self._interval, self._looks_per_ping = _rhythm(manager.watchdog)
        self._look_number = 0

    def begin(self) -> None:
        """Look and tell from now on, if there is somebody to be told."""
        if self._manager.is_there:
            self._loop.call_later(self._interval, self._look)

    def _look(self) -> None:
        self._loop.call_later(self._interval, self._look)
        self._look_number += 1
        pings = self._looks_per_ping > 0 and self._look_number % self._looks_per_ping == 0
        status = status_of(self._hub)
        news = None if status == self._told else status
        if (pings or news is not None) and self._manager.report(news, ping=pings):
            self._told = status


def _rhythm(watchdog: float | None) -> tuple[float, int]:
    """Return the seconds between two looks, and how many looks make a ping, 0 for none."""
    if watchdog is None:
        return STATUS_INTERVAL, 0
    half = min(watchdog / 2, LONGEST_TIMER)
    looks = max(1, math.ceil(half / STATUS_INTERVAL))
    return half / looks, looks


def status_of(hub: Hub) -> str:
    """Return what a server does, in a few words."""
    words = [_counted(hub.connections_open, "connection"), f"{_counted(hub.calls_in_flight, 'call')} in flight"]
    if hub.values_held:
        words.append(f"{hub.values_held} held as streams and objects")
    return ", ".join(words)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
