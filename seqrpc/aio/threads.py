"""Threads for handlers that are plain functions."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from seqrpc.errors import Overloaded
from seqrpc.kernel import forks
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.threads")


class Threads:
    """A bounded number of threads, started as they are needed.

    Unlike those of :class:`concurrent.futures.ThreadPoolExecutor` they do not keep the process from
    ending: a function that hangs cannot be stopped, and the end of a daemon has a bound all the same.

    Args:
        most: how many threads there are at most.
    """

    def __init__(self, most: int) -> None:
        """Begin with no thread."""
        self._most = most
        self._changed = threading.Condition(threading.Lock())  # guards all that follows
        self._waiting: OrderedDict[Future[Any], tuple[Callable[[], Any], float]] = OrderedDict()  # and when it came
        self._busy = 0
        self._freed = 0.0  # when a thread came free last
        self._started = 0
        self._closed = False
        forks.register(self, Threads._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Be closed: a forked child has no threads, and perhaps a lock that one of them will never let go."""
        self._changed = threading.Condition(threading.Lock())
        self._waiting = OrderedDict()
        self._closed = True

    @property
    def is_busy(self) -> bool:
        """Whether a function runs in any, or waits for one."""
        with self._changed:
            return bool(self._busy or self._waiting)

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Return the future of what ``function`` returns or raises in a thread.

        Raises:
            RuntimeError: the threads were let go, or there is none and none can be started.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the threads were let go")
            if self._started < min(self._busy + len(self._waiting) + 1, self._most):
                self._start_thread()
            self._waiting[future] = function, time.monotonic()
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
    def all_busy(self) -> bool:
        """Whether what is submitted now has to wait for a thread to come free."""
        with self._changed:
            return self._busy + len(self._waiting) > self._started

    def refuse_stalled(self, stall_timeout: float) -> float | None:
        """Refuse what has waited for ``stall_timeout`` seconds during which no thread came free.

        Its futures raise :class:`~seqrpc.Overloaded`, and it never runs. What has begun runs on.

        Returns:
            The seconds until the next one will have waited as long, or None if nothing waits.
        """
        now = time.monotonic()
        refused, left = [], None
        with self._changed:
            for future, (_function, came) in self._waiting.items():
                left = max(came, self._freed) + stall_timeout - now
                if left > 0:
                    break
                refused.append(future)
                left = None
            for future in refused:
                del self._waiting[future]
            threads = self._started
        if refused:
            text = f"all {threads} threads are busy (max_threads), and none came free for {stall_timeout:g} s"
            _log.warning("! %d calls of plain functions are refused or dropped: %s", len(refused), text)
            for future in refused:
                if future.set_running_or_notify_cancel():
                    future.set_exception(Overloaded(f"{text} (stall_timeout)"))
        return left

    def discard(self, future: Future[Any]) -> None:
        """Cancel what has not begun, and keep nothing of it; what has begun runs on."""
        with self._changed:
            waited = self._waiting.pop(future, None)
        if waited is not None:
            future.cancel()

    def _run(self) -> None:
        while self._run_next():
            with self._changed:
                self._busy -= 1
                self._freed = time.monotonic()

    def _run_next(self) -> bool:
        """Do one job and keep nothing of it; return False if there will be no more."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return False
                self._changed.wait()
            future, (function, _came) = self._waiting.popitem(last=False)
            self._busy += 1
        if future.set_running_or_notify_cancel():
            try:
                result = function()
            except BaseException as exc:
                future.set_exception(exc)
            else:
                future.set_result(result)
        return True

    def close(self) -> None:
        """Let the threads go: what has not begun is cancelled, what runs is not waited for."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, OrderedDict()
            self._changed.notify_all()
        for future in waiting:
            future.cancel()
