"""Plain functions on their way to a thread: the event loop's side of :class:`~seqrpc.aio.threads.Threads`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from seqrpc.aio.stalls import StallWatch
from seqrpc.aio.threads import Threads
from seqrpc.limits import Limits


class PlainCalls:
    """The threads of one server, or one client connection, and a watch on the line before them.

    A plain function that calls another one of its own server holds its thread until that one has had a thread. Once all
    threads are held in this way, none ever comes free unless those that wait are refused.

    Args:
        limits: ``max_threads`` and ``stall_timeout`` are used.
    """

    __slots__ = ("_stall_timeout", "_threads", "_watch")

    def __init__(self, limits: Limits) -> None:
        """Begin with no thread."""
        self._threads = Threads(limits.max_threads)
        self._stall_timeout = limits.stall_timeout
        self._watch: StallWatch | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a function runs in any thread, also one whose caller has gone, or waits for one."""
        return self._threads.is_busy

    def submit(self, function: Callable[[], Any], owner: Hashable = None, most: int | None = None) -> Future[Any]:
        """Return the future of what ``function`` returns or raises in a thread; call it on the loop.

        It raises :class:`~seqrpc.Overloaded`, and the function never runs, if no thread came free for
        ``stall_timeout`` seconds while it waited for one.

        Args:
            function: what to run.
            owner: for whom: owners take turns.
            most: how many threads may run for that owner at a time; all by default.

        Raises:
            RuntimeError: as :meth:`seqrpc.aio.threads.Threads.submit`.
        """
        future = self._threads.submit(function, owner, most)
        if self._threads.some_wait:
            if self._watch is None:
                self._watch = StallWatch(asyncio.get_running_loop(), self._stall_timeout, self._look)
            self._watch.start()
        return future

    def _look(self) -> float | None:
        return self._threads.refuse_stalled(self._stall_timeout)

    def discard(self, future: Future[Any]) -> None:
        """Cancel what has not begun, and keep nothing of it; what has begun runs on."""
        self._threads.discard(future)

    def close(self) -> None:
        """Let the threads go: what has not begun is cancelled, what runs is not waited for."""
        if self._watch is not None:
            self._watch.stop()
        self._threads.close()
