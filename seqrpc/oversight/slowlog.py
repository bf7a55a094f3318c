"""Warnings of handlers that take long, and of those that block the event loop, by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Generator
from typing import Any, Final
from weakref import WeakKeyDictionary

from seqrpc.aio.current import CurrentCall
from seqrpc.aio.interceptors import Interceptor, Proceed
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.slow")

_monotonic: Final = time.monotonic

_OFTEN: Final = 4
"""How often it is looked within the time after which a call is slow."""


class SlowLog(Interceptor):
    """Warns of handlers that take long, and of what blocks the loop: ``seqrpc.serve(..., interceptors=[SlowLog()])``.

    A handler that runs for longer than ``slow`` is named while it runs, and again when it ends. One whose code keeps
    the event loop from everything else for longer than ``blocked`` in one go, between two ``await``, is named
    afterwards: the time of each such step is taken. If the loop stood still and no handler's step was it, that is said,
    too: a callback or a task of the program's own, or a machine without a processor to spare. The loop is only watched
    while a handler runs, by a timer; there is no thread. A loop that never goes on again says nothing: for that there
    are watchdogs.

    As the first of several it sees the steps of the others, too. Handlers that are plain functions run in threads, and
    do not block the loop. The records have ``method``, ``uid``, ``pid`` and ``duration``.

    Args:
        slow: seconds after which a call is slow.
        blocked: seconds after which the loop was blocked.

    Raises:
        ValueError: one is not positive.
    """

    def __init__(self, *, slow: float = 1.0, blocked: float = 0.1) -> None:
        """Begin with nothing that runs."""
        for name, value in (("slow", slow), ("blocked", blocked)):
            if not value > 0:
                raise ValueError(f"{name}= is a positive number of seconds, got {value!r}")
        self._slow = slow
        self._blocked = blocked
        self._watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()

    async def handle(self, call: CurrentCall, proceed: Proceed) -> Any:
        """Watch a handler."""
        loop = asyncio.get_running_loop()
        watch = self._watches.get(loop)
        if watch is None:
            watch = self._watches[loop] = _Watch(self._slow, self._blocked)
        running = watch.begin(call, loop)
        try:
            return await _Steps(proceed(), running, watch)
        finally:
            watch.end(running)


class _Running:
    """A handler that runs."""

    __slots__ = ("began", "method", "pid", "uid")

    def __init__(self, call: CurrentCall) -> None:
        self.method = call.method
        self.uid, self.pid = call.caller.uid, call.caller.pid
        self.began = _monotonic()

    def warn(self, text: str, seconds: float) -> None:
        extra = {"method": self.method, "uid": self.uid, "pid": self.pid, "duration": seconds}
        _log.warning(text, self.method, seconds, self.uid, self.pid, extra=extra)


class _Watch:
    """Watches one event loop while handlers run on it."""

    def __init__(self, slow: float, blocked: float) -> None:
        self._slow = slow
        self._blocked = blocked
        self._interval = min(blocked, slow / _OFTEN)
        self._running: dict[_Running, None] = {}  # the oldest first
        self._slow_ones: set[_Running] = set()  # that were told of
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._excused = False  # whether a step was told of since the timer was set

    def begin(self, call: CurrentCall, loop: asyncio.AbstractEventLoop) -> _Running:
        """Watch one more."""
        running = _Running(call)
        self._running[running] = None
        if self._timer is None:
            self._set_timer(loop)
        return running

    def end(self, running: _Running) -> None:
        """Watch one less."""
        seconds = _monotonic() - running.began
        self._running.pop(running, None)
        self._slow_ones.discard(running)
        if seconds >= self._slow:
            running.warn("! %s took %.3f s (uid %s, pid %s)", seconds)
        if not self._running and not self._slow_ones and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stepped(self, running: _Running, seconds: float) -> None:
        """Hear how long a step took."""
        if seconds >= self._blocked:
            self._excused = True
            running.warn("! %s blocked the event loop for %.3f s (uid %s, pid %s)", seconds)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._excused = False
        self._due = _monotonic() + self._interval
        self._timer = loop.call_later(self._interval, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """See what has become slow, and whether this comes late."""
        now = _monotonic()
        late = now - self._due
        if late >= self._blocked and not self._excused:
            text = "! the event loop was blocked for %.3f s or more, and not by a step of a handler"
            _log.warning(text, late, extra={"method": None, "duration": late})
        for running in list(self._running):
            seconds = now - running.began
            if seconds < self._slow:
                break
            del self._running[running]
            self._slow_ones.add(running)
            running.warn("! %s has been running for %.3f s (uid %s, pid %s)", seconds)
        self._set_timer(loop)


class _Steps:
    """Awaits something, and takes the time of each of its steps."""

    __slots__ = ("_awaited", "_running", "_watch")

    def __init__(self, awaited: Awaitable[Any], running: _Running, watch: _Watch) -> None:
        self._awaited = awaited
        self._running = running
        self._watch = watch

    def __await__(self) -> Generator[Any, Any, Any]:
        """Do what ``yield from`` does (PEP 380), with a clock beside."""
        inner: Any = self._awaited.__await__()
        value: Any = None
        thrown: BaseException | None = None
        try:
            while True:
                began = _monotonic()
                try:
                    yielded = inner.send(value) if thrown is None else inner.throw(thrown)
                except StopIteration as stop:
                    return stop.value
                finally:
                    self._watch.stepped(self._running, _monotonic() - began)
                value = thrown = None
                try:
                    value = yield yielded
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as exc:
                    thrown = exc
        finally:
            thrown = None  # its traceback has this frame
