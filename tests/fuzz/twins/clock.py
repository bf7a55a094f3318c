"""Loops whose time stands still until it is told to go on, and threads that run one job when they are told to."""

from __future__ import annotations

import asyncio
import heapq
import threading
import weakref
from collections.abc import Callable
from contextvars import Context
from itertools import count
from typing import Any, Final

import uvloop

from seqrpc.aio.threads import Threads

LONGEST: Final = 5.0
"""Seconds by which time goes on at once: what waits longer waits for something else."""


class _Still:
    """Timers that are called only by :meth:`advance`."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._number = count()

    def time(self) -> float:
        """Return the loop's own time."""
        return self._now

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back when time has gone on so far."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at this time."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)  # type: ignore[arg-type]
        if when <= self._now:  # as the loops do it, in the next turn
            self.call_soon(self._run_timer, handle)  # type: ignore[attr-defined]
        else:
            heapq.heappush(self._timers, (when, next(self._number), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: it is left out when its time comes."""

    def _run_timer(self, handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            handle._run()

    def advance(self) -> bool:
        """Let time go on to the next timer, and call what is due then; return whether there was one, near enough."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not self._timers or self._timers[0][0] > self._now + LONGEST:
            return False
        self._now = self._timers[0][0]
        while self._timers and self._timers[0][0] <= self._now:
            handle = heapq.heappop(self._timers)[2]
            self.call_soon(self._run_timer, handle)  # type: ignore[attr-defined]
        return True

    def forget_timers(self) -> None:
        """Keep nothing of what was never due."""
        self._timers.clear()


# Made by hand: to type checkers the methods of the two, and of the loops, do not agree, which they need not.
StillLoop: Any = type("StillLoop", (_Still, asyncio.SelectorEventLoop), {"__doc__": "asyncio's."})
StillUvloop: Any = type("StillUvloop", (_Still, uvloop.Loop), {"__doc__": "uvloop's."})


_every: list[weakref.ref[Threads]] = []


def hold_threads() -> None:
    """Have handlers that are plain functions run when :func:`run_job` is called, and not before."""
    begin = Threads.__init__

    def known(self: Threads, most: int) -> None:
        begin(self, most)
        _every.append(weakref.ref(self))

    def start(self: Threads) -> None:
        self._started += 1

    Threads.__init__ = known  # type: ignore[method-assign]
    Threads._start_thread = start  # type: ignore[method-assign]


def run_job() -> bool:
    """Run one thing that waits for a thread, in one, to its end; return whether there was any."""
    _every[:] = [ref for ref in _every if ref() is not None]
    for ref in _every:
        threads = ref()
        if threads is not None and not threads._closed and threads._next() is not None:
            thread = threading.Thread(target=_run_one, args=[threads])
            thread.start()
            thread.join()
            return True
    return False


def _run_one(threads: Threads) -> None:
    done = threads._run_next()
    if done is not None:
        owner, line = done
        threads._busy -= 1
        line.busy -= 1
        threads._forget_idle(owner, line)
