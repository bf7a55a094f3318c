"""One descriptor for all that may come to a connection: for the loops of GUI programs."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Iterable

from seqrpc.blocking.waiting import READ, WRITE, Pump
from seqrpc.kernel import forks


class Watch:
    """A selector whose own descriptor is readable when something can be done (epoll(7), kqueue(2)).

    Args:
        pumps: returns what to watch for, when it is asked.
    """

    __slots__ = ("__weakref__", "_pumps", "_seen", "_selector")

    def __init__(self, pumps: Callable[[], Iterable[Pump]]) -> None:
        """Watch what there is."""
        self._pumps = pumps
        self._selector = selectors.DefaultSelector()
        self._seen: dict[Pump, tuple[int, int]] = {}
        forks.register(self, Watch.close)
        self.update()

    def fileno(self) -> int:
        """Return the descriptor, lent."""
        self.update()
        return self._selector.fileno()

    def update(self) -> None:
        """Watch what goes on now: objects that were given away since, and what has to be sent."""
        now: dict[Pump, tuple[int, int]] = {}
        for pump in self._pumps():
            number, events = pump.interest()
            if number >= 0:
                now[pump] = number, events or WRITE  # what can go on at once is writable
        for pump, (number, _events) in self._seen.items():
            if now.get(pump) != self._seen[pump]:
                self._forget(number)
        for pump, (number, events) in now.items():
            if self._seen.get(pump) != (number, events):
                mask = (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & WRITE else 0)
                self._selector.register(number, mask)
        self._seen = now

    def _forget(self, number: int) -> None:
        try:
            self._selector.unregister(number)
        except KeyError:
            return

    def close(self) -> None:
        """Watch nothing any more."""
        self._selector.close()
        self._seen = {}
