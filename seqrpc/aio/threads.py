"""Threads for handlers that are plain functions."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from seqrpc.errors import Overloaded
from seqrpc.kernel import forks
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.threads")


class _Line:
    """What one owner has to be run."""

    __slots__ = ("busy", "freed", "most", "waiting")

    def __init__(self, most: int) -> None:
        self.waiting: OrderedDict[Future[Any], tuple[Callable[[], Any], float]] = OrderedDict()  # and when it came
        self.busy = 0
        self.most = most
        self.freed = 0.0  # when a thread of its own came free last

    @property
    def has_turn(self) -> bool:
        """Whether a thread may run something of it."""
        return bool(self.waiting) and self.busy < self.most


class Threads:
    """A bounded number of threads, started as they are needed, in which owners take turns.

    Unlike those of :class:`concurrent.futures.ThreadPoolExecutor` they do not keep the process from
    ending: a function that hangs cannot be stopped, and the end of a daemon has a bound all the same.

    Args:
        most: how many threads there are at most.
    """

    def __init__(self, most: int) -> None:
        """Begin with no thread."""
        self._most = most
        self._changed = threading.Condition(threading.Lock())  # guards all that follows
        self._lines: OrderedDict[Hashable, _Line] = OrderedDict()  # who had a turn last is last
        self._busy = 0
        self._freed = 0.0  # when a thread came free last
        self._started = 0
        self._closed = False
        forks.register(self, Threads._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Be closed: a forked child has no threads, and perhaps a lock that one of them will never let go."""
        self._changed = threading.Condition(threading.Lock())
        self._lines = OrderedDict()
        self._closed = True

    @property
    def is_busy(self) -> bool:
        """Whether a function runs in any, or waits for one."""
        with self._changed:
            return any(line.busy or line.waiting for line in self._lines.values())

    def submit(self, function: Callable[[], Any], owner: Hashable = None, most: int | None = None) -> Future[Any]:
        """Return the future of what ``function`` returns or raises in a thread.

        Args:
            function: what to run.
            owner: for whom.
            most: how many threads may run for that owner at a time; all by default.

        Raises:
            RuntimeError: the threads were let go, or there is none and none can be started.
        """
        future: Future[Any] = Future()
        most = self._most if most is None else most
        with self._changed:
            if self._closed:
                raise RuntimeError("the threads were let go")
            line = self._lines.get(owner) or _Line(most)
            if self._started < self._most:
                wanted = sum(min(each.busy + len(each.waiting), each.most) for each in self._lines.values())
                if self._started < wanted + (line.busy + len(line.waiting) < most):
                    self._start_thread()
            self._lines[owner] = line
            line.waiting[future] = function, time.monotonic()
            self._changed.notify()
        return future

    def _start_thread(self) -> None:
        """Start one more; if that fails, those that there are have to do."""
        thread = threading.Thread(target=self._run, name=f"seqrpc-{self._started + 1}", daemon=True)
        try:
            thread.start()
        except Exception as exc:
            if not self._started:
                raise
            _log.warning("! there are %d threads, and no other can be started: %r", self._started, exc)
        else:
            self._started += 1

    @property
    def some_wait(self) -> bool:
        """Whether something that was submitted has to wait for a thread to come free."""
        with self._changed:
            free = self._started - self._busy
            for line in self._lines.values():
                free -= len(line.waiting)
                if free < 0 or line.busy + len(line.waiting) > line.most:
                    return True
            return False

    def refuse_stalled(self, stall_timeout: float) -> float | None:
        """Refuse what has waited for ``stall_timeout`` seconds during which no thread came free for it.

        Its futures raise :class:`~seqrpc.Overloaded`, and it never runs. What has begun runs on.

        Returns:
            The seconds until the next one will have waited as long, or None if nothing waits.
        """
        with self._changed:
            refused: list[tuple[Future[Any], str]] = []
            left = None
            for owner, line in list(self._lines.items()):
                wait = self._stalled(line, stall_timeout, refused)
                if wait is not None:
                    left = wait if left is None else min(left, wait)
                self._forget_idle(owner, line)
        if refused:
            _log.warning("! %d calls of plain functions are refused or dropped: %s", len(refused), refused[0][1])
            for future, text in refused:
                if future.set_running_or_notify_cancel():
                    future.set_exception(Overloaded(f"{text} (stall_timeout)"))
        return left

    def _stalled(self, line: _Line, stall_timeout: float, refused: list[tuple[Future[Any], str]]) -> float | None:
        """Take out of a line what is to be refused; return the seconds until the next one is, None if none waits."""
        now, left = time.monotonic(), None
        is_full = line.busy >= line.most
        freed = line.freed if is_full else self._freed
        first = len(refused)
        for future, (_function, came) in line.waiting.items():
            left = max(came, freed) + stall_timeout - now
            if left > 0:
                break
            if is_full and line.most < self._most:
                who = f"all {line.most} threads that one user may have"
            else:
                who = f"all {self._started} threads"
            text = f"{who} are busy (max_threads), and none came free for {stall_timeout:g} s"
            refused.append((future, text))
            left = None
        for future, _text in refused[first:]:
            del line.waiting[future]
        return left

    def discard(self, future: Future[Any]) -> None:
        """Cancel what has not begun, and keep nothing of it; what has begun runs on."""
        with self._changed:
            waited = None
            for owner, line in self._lines.items():
                waited = line.waiting.pop(future, None)
                if waited is not None:
                    self._forget_idle(owner, line)
                    break
        if waited is not None:
            future.cancel()

    def _forget_idle(self, owner: Hashable, line: _Line) -> None:
        if not line.waiting and not line.busy:
            self._lines.pop(owner, None)

    def _run(self) -> None:
        while (done := self._run_next()) is not None:
            owner, line = done
            with self._changed:
                self._busy -= 1
                line.busy -= 1
                line.freed = self._freed = time.monotonic()
                self._forget_idle(owner, line)

    def _next(self) -> tuple[Hashable, _Line] | None:
        """Return whose turn it is; None if nothing can be run now."""
        for owner, line in self._lines.items():
            if line.has_turn:
                self._lines.move_to_end(owner)
                return owner, line
        return None

    def _run_next(self) -> tuple[Hashable, _Line] | None:
        """Do one job, keep nothing of it, and return whose it was; None if there will be no more."""
        with self._changed:
            while (turn := self._next()) is None:
                if self._closed:
                    return None
                self._changed.wait()
            line = turn[1]
            future, (function, _came) = line.waiting.popitem(last=False)
            self._busy += 1
            line.busy += 1
        if future.set_running_or_notify_cancel():
            try:
                result = function()
            except BaseException as exc:
                future.set_exception(exc)
            else:
                future.set_result(result)
        return turn

    def close(self) -> None:
        """Let the threads go: what has not begun is cancelled, what runs is not waited for."""
        with self._changed:
            self._closed = True
            waiting = [future for line in self._lines.values() for future in line.waiting]
            for line in self._lines.values():
                line.waiting.clear()
            self._changed.notify_all()
        for future in waiting:
            future.cancel()
