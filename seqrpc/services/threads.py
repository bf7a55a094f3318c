"""Threads for handlers that are plain functions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

_Job = tuple[Future[Any], Callable[[], Any]]


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
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._unfinished = 0
        self._started = 0
        self._closed = False

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Return the future of what ``function`` returns or raises in a thread.

        Raises:
            RuntimeError: the threads were let go.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the threads were let go")
            self._jobs.put((future, function))
            self._unfinished += 1
            if self._started < min(self._unfinished, self._most):
                self._started += 1
                threading.Thread(target=self._run, name=f"seqrpc-{self._started}", daemon=True).start()
        return future

    def _run(self) -> None:
        while self._run_next():
            with self._lock:
                self._unfinished -= 1

    def _run_next(self) -> bool:
        """Do one job and keep nothing of it; return False if there will be no more."""
        job = self._jobs.get()
        if job is None:
            return False
        future, function = job
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
        with self._lock:
            if self._closed:
                return
            self._closed = True
            waiting: list[Future[Any]] = []
            while not self._jobs.empty():
                job = self._jobs.get()
                assert job is not None  # only this method puts None there, at its end
                waiting.append(job[0])
            for _ in range(self._started):
                self._jobs.put(None)
        for future in waiting:
            future.cancel()
