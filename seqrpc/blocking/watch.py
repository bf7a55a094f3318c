"""One descriptor for all that may come to a connection: for the loops of GUI programs."""

from __future__ import annotations

import contextlib
import selectors
import threading
from _thread import get_ident
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from seqrpc.blocking.family import Family
from seqrpc.blocking.waiting import READ, WRITE, Bell, Pump
from seqrpc.kernel import forks
from seqrpc.kernel.interrupts import Uninterrupted


class Watch:
    """A selector whose own descriptor is readable when something can be done (epoll(7), kqueue(2)).

    Args:
        family: tells, in any thread, when there is more to watch for.
        pumps: returns what to watch for, when it is asked.
    """

    __slots__ = ("__weakref__", "_bell", "_is_closed", "_lock", "_processing", "_pumps", "_seen", "_selector")

    def __init__(self, family: Family, pumps: Callable[[], Iterable[Pump]]) -> None:
        """Watch what there is."""
        self._pumps = pumps
        self._selector = selectors.DefaultSelector()
        self._bell = Bell()  # rung when something ends: it has no descriptor any more that could tell
        self._selector.register(self._bell.fileno(), selectors.EVENT_READ)
        self._seen: dict[int, tuple[Pump, int]] = {}  # a number may be another's by now
        self._lock = threading.RLock()
        self._processing: int | None = None  # the thread that looks for what has come
        self._is_closed = False
        forks.register(self, Watch._let_go_in_child)
        family.watches.add(self)
        self.update()

    def _let_go_in_child(self) -> None:
        """Close the copy: this is a forked child, and another thread of the parent may hold the lock."""
        self._lock = threading.RLock()
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, lent."""
        return self._selector.fileno()

    def update(self) -> None:
        """Watch what goes on now: objects that were given away since, and what has to be sent."""
        with self._lock, Uninterrupted():
            if self._is_closed:
                return
            now: dict[int, tuple[Pump, int]] = {}
            for pump in self._pumps():
                number, events = pump.interest()
                if number >= 0:
                    now[number] = pump, events or WRITE  # what can go on at once is writable
            for number, seen in list(self._seen.items()):
                if number not in now and self._processing != get_ident():
                    self._bell.ring()
                if now.get(number) != seen:
                    del self._seen[number]
                    self._selector.unregister(number)
            for number, (pump, events) in now.items():
                if number not in self._seen:
                    read = selectors.EVENT_READ if events & READ else 0
                    with contextlib.suppress(OSError):  # it was closed by another thread meanwhile
                        self._selector.register(number, read | (selectors.EVENT_WRITE if events & WRITE else 0))
                        self._seen[number] = pump, events

    def __enter__(self) -> Self:
        """Let whoever watches look for what has come: what this thread finds to have ended it need not be told."""
        with self._lock:
            self._processing = get_ident()
            if not self._is_closed:
                self._bell.quiet()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Watch again."""
        self.update()
        self._processing = None

    def close(self) -> None:
        """Watch nothing any more."""
        with self._lock:
            self._is_closed = True
            self._bell.close()
            self._selector.close()
            self._seen.clear()
