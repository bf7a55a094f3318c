"""What ends a command in time that waits for no call: for a pipe that came, for a program, for the far side of ssh."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Final

from seqrpc.interface.scope import scope

_SLACK: Final = 0.1
"""Seconds after which what is late is interrupted: calls end by themselves before, and tell the other side."""

_LONGEST: Final = 1e8  # seconds; longer timers overflow


class Late(BaseException):
    """The time is up. It is no :class:`Exception`: nobody takes it for an error of what was just done."""


@contextlib.contextmanager
def alarm(seconds: float | None) -> Iterator[None]:
    """Interrupt this thread if it is inside when the time is up, wherever that is, as Ctrl-C does.

    Only the main thread can be, and for no longer than three years; otherwise this does nothing.

    Raises:
        Late: the time is up.
    """
    if seconds is None or seconds > _LONGEST or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds + _SLACK)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def silence() -> None:
    """Have no alarm interrupt what follows, which has its own bound: a child that is to end."""
    if threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, 0)


def is_late() -> bool:
    """Return whether the time is up that ``seqrpc.timeout`` gave."""
    deadline = scope.get().deadline_ns
    return deadline is not None and time.monotonic_ns() >= deadline
