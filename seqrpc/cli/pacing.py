"""Calls at a fixed rate: when each is due, and waiting for that more exactly than event loops do.

The timers of event loops are in milliseconds, of asyncio's as of uvloop's. At ten thousand calls a second that would be
ten at a time, and up to a millisecond of waiting here in each latency. The kernel's timers (timerfd_create(2)) are as
exact as the processor's.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

_NS: Final = 1_000_000_000

_ABSOLUTE: Final = 1
"""``TFD_TIMER_ABSTIME``."""


class Schedule:
    """Tells when calls are due: as many in each second as the rate says, evenly.

    Args:
        begin: when the first is due, in nanoseconds of the monotonic clock.
        rate: how many in a second.
        count: how many there are at most; None is no bound.
        seconds: how long they are due; None is no bound. One of both is given.
    """

    def __init__(self, begin: int, rate: float, *, count: int | None, seconds: float | None) -> None:
        """Have all before it."""
        bounds = [count] if count is not None else []
        if seconds is not None:
            bounds.append(math.ceil(round(seconds * rate, 6)))
        self._begin = begin
        self._rate = rate
        self._taken = 0
        self.count = min(bounds)
        """How many there are."""

    def due(self, number: int) -> int:
        """Return when one is due, counted from 0."""
        return self._begin + round(number * _NS / self._rate)

    def take(self) -> int | None:
        """Return when the next one is due, and count it as taken; None if none is left."""
        if self._taken >= self.count:
            return None
        self._taken += 1
        return self.due(self._taken - 1)

    def overdue(self, now: int, first: int = 0) -> range:
        """Return the numbers, from ``first`` on, of those that were due and that nobody has taken."""
        until = math.floor((now - self._begin) * self._rate / _NS) + 1
        since = max(first, self._taken)
        return range(since, max(since, min(self.count, until)))


class Alarm(Protocol):
    """Rings once, at a time."""

    def set(self, when: int) -> None:
        """Ring at that time, in nanoseconds of the monotonic clock, in place of any that was set before."""
        ...

    def close(self) -> None:
        """Ring no more."""
        ...


class KernelAlarm:
    """A timer of the kernel's.

    Args:
        loop: reads it.
        ring: is called.

    Raises:
        OSError: the kernel has none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], object]) -> None:
        """Make it."""
        import ctypes  # noqa: PLC0415 - it takes long to load

        self._libc: Any = ctypes.CDLL(None, use_errno=True)
        self._spec: Any = (ctypes.c_long * 4)()  # struct itimerspec: the interval, which is none, and the time
        self._loop = loop
        self._ring = ring
        if not hasattr(self._libc, "timerfd_create"):
            raise OSError("there are no timers with descriptors here")
        self._fd: int = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        loop.add_reader(self._fd, self._read)

    def set(self, when: int) -> None:
        """Ring at that time."""
        self._spec[2], self._spec[3] = divmod(max(when, 1), _NS)  # 0 would mean never
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, self._spec, None)

    def close(self) -> None:
        """Ring no more."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew meanwhile
            return
        self._ring()


class LoopAlarm:
    """A timer of the loop's, where the kernel has none: it may be a millisecond late.

    Args:
        loop: has it.
        ring: is called.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], object]) -> None:
        """Set none."""
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, when: int) -> None:
        """Ring at that time."""
        self.close()
        self._timer = self._loop.call_later(max(0, when - time.monotonic_ns()) / _NS, self._ring)

    def close(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()


def alarm_of(loop: asyncio.AbstractEventLoop, ring: Callable[[], object]) -> Alarm:
    """Return the best alarm that there is here."""
    try:
        return KernelAlarm(loop, ring)
    except OSError:
        return LoopAlarm(loop, ring)


class Pacer:
    """Lets tasks wait for times.

    Args:
        make_alarm: makes what wakes them.
    """

    def __init__(self, make_alarm: Callable[..., Alarm] = alarm_of) -> None:
        """Begin with nobody waiting."""
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[int, asyncio.Future[bool]]] = deque()
        self._alarm = make_alarm(self._loop, self._ring)

    async def wait(self, when: int) -> bool:
        """Wait until a time, which is none before those that others wait for already; return whether it has come."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.append((when, future))
        if len(self._waiting) == 1:
            self._alarm.set(when)
        return await future

    @property
    def has_waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def let_go(self) -> None:
        """Have nobody wait any longer."""
        while self._waiting:
            self._wake(is_time=False)

    def close(self) -> None:
        """Wake nobody any more."""
        self.let_go()
        self._alarm.close()

    def _ring(self) -> None:
        now = time.monotonic_ns()
        while self._waiting and self._waiting[0][0] <= now:
            self._wake(is_time=True)
        if self._waiting:
            self._alarm.set(self._waiting[0][0])

    def _wake(self, *, is_time: bool) -> None:
        _when, future = self._waiting.popleft()
        if not future.done():
            future.set_result(is_time)
