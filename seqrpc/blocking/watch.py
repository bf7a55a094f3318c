"""One descriptor for all that may come to a connection: for the loops of GUI programs."""

from __future__ import annotations

import _thread
import contextlib
import selectors
import threading
import time
import weakref
from _thread import get_ident
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

from seqrpc.blocking.family import Family
from seqrpc.blocking.waiting import READ, WRITE, Bell, Pump, earlier, seconds_until
from seqrpc.kernel import forks
from seqrpc.kernel.interrupts import Uninterrupted

_SHORTEST_NAP_NS: Final = 10_000_000
"""Nanoseconds after which a loop is woken at the earliest where the time has come already: what is to be tried then is
perhaps another thread's to try, and the loop would be kept busy."""


class _Alarm:
    """Rings a bell when it is time: a thread sleeps until then, for what wakes the loop of a GUI is a descriptor.

    The thread holds nothing but this. Python's ``threading`` does not know of it: a program of one thread remains one.

    Args:
        bell: what is rung, unless it is closed by then.
    """

    __slots__ = ("_bell", "_times")

    def __init__(self, bell: Bell) -> None:
        """Ring at no time."""
        self._bell = weakref.ref(bell)
        self._times: set[int] = set()  # when it is about to ring

    def set(self, at: int) -> None:
        """Ring at a time, in nanoseconds of the monotonic clock, or at another one before, and not at once."""
        at = max(at, time.monotonic_ns() + _SHORTEST_NAP_NS)
        if any(other <= at for other in list(self._times)):
            return
        self._times.add(at)
        try:
            _thread.start_new_thread(self._ring_at, (at,))
        except (RuntimeError, MemoryError):  # no more threads: the loop looks again and again, rather than never
            self._times.discard(at)
            self._ring()

    def _ring_at(self, at: int) -> None:
        time.sleep(max(0.0, seconds_until(at)))
        self._times.discard(at)  # before it rings: whoever hears that may set it again
        self._ring()

    def _ring(self) -> None:
        bell = self._bell()
        if bell is not None:
            bell.ring()


class Watch:
    """A selector whose own descriptor is readable when something can be done (epoll(7), kqueue(2)).

    Args:
        family: tells, in any thread, when there is more to watch for.
        pumps: returns what to watch for, when it is asked.
    """

    __slots__ = (
        "__weakref__", "_alarm", "_bell", "_is_closed", "_lock", "_processing", "_pumps", "_seen", "_selector",
    )  # fmt: skip

    def __init__(self, family: Family, pumps: Callable[[], Iterable[Pump]]) -> None:
        """Watch what there is."""
        self._pumps = pumps
        self._selector = selectors.DefaultSelector()
        # Rung when something ends, for it has no descriptor any more that could tell, and when it is time to try again.
        self._bell = Bell()
        self._alarm = _Alarm(self._bell)
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
            first: int | None = None
            for pump in self._pumps():
                number, events = pump.interest()
                if number >= 0:
                    now[number] = pump, events or WRITE  # what can go on at once is writable
                    first = earlier(first, getattr(pump, "retry_at", None) if events else None)
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
            if first is not None:
                self._alarm.set(first)

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
