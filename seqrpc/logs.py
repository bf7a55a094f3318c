"""Logs that a peer cannot fill: a few lines of each kind of event in a while, then one line that counts the rest.

All loggers of seqrpc come from :func:`get_logger`. They leave lines out before a handler sees them, whatever handlers
and levels are configured, and before a traceback becomes text.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import re
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextvars import Context
from typing import Any, Final

from seqrpc.limits import LOG_BURST, LOG_WINDOW, SHORTAGE_QUIET
from seqrpc.text import shown

_MOST_KINDS: Final = 256  # that are told apart: far more than there are log calls in seqrpc

_OTHERS: Final = "others"  # the kind of all further events when there are that many kinds

_FRAMES: Final = 50  # the innermost frames that are shown of a traceback which cannot be shown as it is

_PLACES: Final = re.compile(r"%[-#0-9.]*[a-z]")  # the places of a template that are filled in

_LATE: Final = 0.01  # seconds between the end of a window and the look at it: timers of loops may be early

Tell = Callable[[int], object]
"""Says how many events of a kind were left out."""


class _Kind:
    """The state of one kind of event."""

    __slots__ = ("admitted", "began", "left_out", "tell")

    def __init__(self, tell: Tell) -> None:
        self.began = -LOG_WINDOW  # when the present window began
        self.admitted = 0  # events in this window
        self.left_out = 0  # events since a line last counted them
        self.tell = tell


class Meter:
    """Counts events of each kind. Any thread may call it, also while it logs an event, and so may finalizers.

    Args:
        burst: how many events of one kind it admits in a window.
        window: seconds.

    Attributes:
        window: as it was given; a new value holds from the next event on.
    """

    def __init__(self, burst: int = LOG_BURST, window: float = LOG_WINDOW) -> None:
        """Begin with nothing counted."""
        self._burst = burst
        self.window = window
        self.forget()

    def forget(self) -> None:
        """Begin anew: after a fork the parent tells what was counted, and another thread of it may hold the lock."""
        self._lock = threading.RLock()  # a finalizer may run in between, in the same thread
        self._kinds: dict[Hashable, _Kind] = {}
        self._next_end = float("inf")  # when the first window ends in which something was left out
        self._timed: weakref.WeakSet[Any] = weakref.WeakSet()  # loops that have a timer for that
        self._last_loop: weakref.ref[Any] | None = None

    def admits(self, kind: Hashable, tell: Tell, *, finalizing: bool = False) -> bool:
        """Return whether an event may be told. If not, count it, and call ``tell`` with the count later.

        When the window is over, a timer of the event loop that runs in this thread, or of the loop that was seen last,
        calls ``tell``. If no loop runs, ``tell`` is called before the next event of any kind, or at the end of the
        process.

        Args:
            kind: which events count together.
            tell: called with how many were left out.
            finalizing: a finalizer asks, which may run in the middle of anything: nothing is told in it.
        """
        now = time.monotonic()
        if now >= self._next_end and not finalizing:
            self.tell_due(now)
        with self._lock:
            state = self._state_of(kind, now, tell)
            if now - state.began >= self.window:
                state.began, state.admitted = now, 0
            if state.admitted < self._burst:
                state.admitted += 1
                self._remember_loop()
                return True
            state.left_out += 1
            if state.left_out > 1:
                return False
            state.tell = tell
            self._next_end = min(self._next_end, state.began + self.window)
        self._set_timer()
        return False

    def _state_of(self, kind: Hashable, now: float, tell: Tell) -> _Kind:
        kinds = self._kinds
        if kind not in kinds and len(kinds) >= _MOST_KINDS:
            for name, state in list(kinds.items()):
                if not state.left_out and now - state.began >= self.window:
                    kinds.pop(name, None)
            if len(kinds) >= _MOST_KINDS:
                kind = _OTHERS
        return kinds.setdefault(kind, _Kind(tell))

    def tell_due(self, now: float = float("inf")) -> None:
        """Tell what was left out in windows that are over; without ``now``, in all windows."""
        with self._lock:
            counting = [state for state in list(self._kinds.values()) if state.left_out]
            due = [state for state in counting if now - state.began >= self.window]
            counts = [(state.tell, state.left_out) for state in due]
            for state in due:
                state.left_out = 0
            ends = [state.began + self.window for state in counting if state.left_out]
            self._next_end = min(ends, default=float("inf"))
        for tell, count in counts:
            tell(count)

    # The end of a flood

    def _remember_loop(self) -> None:
        loop = _running_loop()
        if loop is not None:
            self._last_loop = weakref.ref(loop)

    def _set_timer(self) -> None:
        """Set a timer that tells what is left out, for the end of its window."""
        self._remember_loop()
        loop = None if self._last_loop is None else self._last_loop()
        with self._lock:
            if loop is None or loop in self._timed:
                return
            self._timed.add(loop)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            # Works whatever runs in this thread, also inside of the loop. An empty context, because the loop keeps it.
            loop.call_soon_threadsafe(self._start_timer, loop, context=Context())

    def _start_timer(self, loop: Any) -> None:
        with self._lock:
            delay = self._next_end - time.monotonic() + _LATE
            if delay == float("inf"):  # all is told
                self._timed.discard(loop)
                return
        loop.call_later(max(delay, _LATE), self._window_over, loop)

    def _window_over(self, loop: Any) -> None:
        self.tell_due(time.monotonic())
        self._start_timer(loop)


def _running_loop() -> Any:
    """Return the loop that runs in this thread, or None; if asyncio is not loaded, none does."""
    try:
        return sys.modules["asyncio"].get_running_loop()
    except (KeyError, AttributeError, RuntimeError):  # AttributeError: asyncio is being loaded
        return None


meter: Final = Meter()
"""The meter of this process."""

os.register_at_fork(after_in_child=meter.forget)
atexit.register(meter.tell_due)


class _Bound(logging.Filter):
    """Lets through those lines of one logger that the meter admits."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "left_out"):  # this line counts the others
            return True
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        tell = functools.partial(_tell_left_out, self._logger, record.levelno, template)
        if not meter.admits((record.name, record.levelno, template), tell):
            return False
        exc = record.exc_info[1] if record.exc_info else None
        if exc is not None:
            record.exc_text = bounded_traceback(exc)
        return True


def _tell_left_out(logger: logging.Logger, level: int, template: str, count: int) -> None:
    kind = _PLACES.sub("…", template)
    logger.log(level, "= %d more were left out: '%s'", count, kind, extra={"left_out": count})


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name, whose lines are bounded.

    Lines with the same level and the same text, before anything is filled in, are of one kind. The record of a line
    that counts others has the count in its attribute ``left_out``.
    """
    logger = logging.getLogger(name)
    if not any(isinstance(known, _Bound) for known in logger.filters):
        logger.addFilter(_Bound(logger))
    return logger


class Shortage:
    """Says once that something is short, and not again before it has been there for a while.

    Args:
        log: says so.
        quiet: seconds for which it must have been there.
    """

    def __init__(self, log: logging.Logger, quiet: float = SHORTAGE_QUIET) -> None:
        """Begin with enough."""
        self._log = log
        self._quiet = quiet
        self._last = -quiet  # when it was short last

    def say(self, message: str, *args: object) -> None:
        """Hear that it is short."""
        now = time.monotonic()
        if now - self._last >= self._quiet:
            self._log.error(message, *args)
        self._last = now


def tell_loop(loop: Any, logger: logging.Logger, context: dict[str, Any]) -> None:
    """Call ``loop.call_exception_handler(context)``; ``logger`` counts those of a ``message`` that come too often."""
    message = context["message"]
    if meter.admits(("loop", message), functools.partial(_tell_left_out, logger, logging.ERROR, message)):
        loop.call_exception_handler(context)


def new_incident() -> tuple[str, str]:
    """Return the name of one failure in the log of this side, and what to tell the other side about it.

    The other side learns nothing about the inside but this name, by which the log line is found. During a flood of
    failures that line may have been left out.
    """
    incident = os.urandom(4).hex()
    return incident, f"incident {incident}; the log of the other side has more"


# Tracebacks


def bounded_traceback(exc: BaseException) -> str | None:
    """Return a traceback with the text of each exception on one line, escaped and cut; None if it is so already.

    An application's own exceptions may quote what a peer sent, of any length.
    """
    trace = traceback.TracebackException.from_exception(exc, limit=-_FRAMES, compact=True)
    careful = False
    for part in _parts_of(trace):
        lines = list(part.format_exception_only())
        if isinstance(part.__notes__, list):  # else each line of the notes is one of ``lines``
            part.__notes__ = [shown(note) for note in part.__notes__]
        safe = [f"{shown(line.removesuffix(chr(10)))}\n" for line in part.format_exception_only()]
        careful = careful or safe != lines
        # The public way to change what it says: a subclass would not be used for causes.
        setattr(part, "format_exception_only", functools.partial(_lines, safe))  # noqa: B010 - mypy: a method is none
    return "".join(trace.format()).removesuffix("\n") if careful else None


def withheld_traceback(exc: BaseException) -> str:
    """Return a traceback with the kinds of exceptions, and without what they say: it may quote what is secret."""
    trace = traceback.TracebackException.from_exception(exc, limit=-_FRAMES, compact=True)
    for part in _parts_of(trace):
        part.__notes__ = None  # type: ignore[assignment,unused-ignore] # as of an exception without any
        name = getattr(part, "exc_type_str", None) or part.exc_type.__qualname__  # the latter is deprecated in 3.13
        setattr(part, "format_exception_only", functools.partial(_lines, [f"{name}: (withheld)\n"]))  # noqa: B010
    return "".join(trace.format()).removesuffix("\n")


def _lines(lines: list[str], **_options: Any) -> Iterator[str]:
    return iter(lines)


def _parts_of(trace: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield all exceptions of a traceback: causes, contexts, and members of groups."""
    todo = [trace]
    while todo:
        part = todo.pop()
        yield part
        others = part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())
        todo += [other for other in others if other is not None]
