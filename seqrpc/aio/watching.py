"""Who watches the calls of a server as they pass. While nobody does, nothing of this runs."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from seqrpc.aio.current import HandledCall
from seqrpc.aio.producers import Producer, producing
from seqrpc.aio.running import RunningCalls
from seqrpc.errors import Overloaded
from seqrpc.interface.entries import bounded_name
from seqrpc.interface.monitor import CallEvent, told_arguments
from seqrpc.interface.tallies import Tallies
from seqrpc.kernel.credentials import Credentials

_MOST_WAITING: Final = 1_000
"""The most calls that wait for one watcher to hear of them, some 0.3 MB."""


_MOST_WATCHERS: Final = 64
"""Who watch one server at once: each makes the end of each call some 7 us longer for all."""


class OneWatch:
    """The calls that one watcher wants to hear of: a :class:`~seqrpc.interface.monitor.Watch`.

    Args:
        watches: those of the server.
        methods: names of methods, and of services; none are all.
        uid: of whose calls; None: of all users.
    """

    def __init__(self, watches: Watches, methods: Sequence[str], uid: int | None) -> None:
        """Begin with nothing to tell."""
        self._watches = watches
        self._methods = frozenset(methods)
        self._uid = uid
        self._waiting: deque[CallEvent] = deque()
        self._missed = 0
        self._is_over = False
        self._news: asyncio.Future[None] | None = None
        self.stream: Producer | None = None
        """What sends its calls, once they are waited for."""

    def wants(self, method: str | None, uid: int | None) -> bool:
        """Return whether it is to hear of a call."""
        if self._uid is not None and uid != self._uid:
            return False
        return not self._methods or (
            method is not None and (method in self._methods or method.rpartition(".")[0] in self._methods)
        )

    def tell(self, event: CallEvent) -> None:
        """Let a call be heard of, or count it if too many wait."""
        if len(self._waiting) >= _MOST_WAITING:
            self._missed += 1
            return
        if self._missed:
            event, self._missed = dataclasses.replace(event, missed=self._missed), 0
        self._waiting.append(event)
        self._wake()

    def end(self) -> None:
        """Have no more to tell than what waits."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def next(self) -> CallEvent | None:
        """Wait for the next call; None: there will be no more.

        Cancel: nothing is lost.
        """
        self.stream = producing.get()
        while not self._waiting:
            if self._is_over:
                return None
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        return self._waiting.popleft()

    def close(self) -> None:
        """Watch no more."""
        self._watches.forget(self)


class Watches:
    """All who watch one server.

    Args:
        tallies: where the calls of the server, and of the objects that it gives away, are counted: who counts there
            tells of it here while somebody watches.
        running: returns what runs on each connection, and on each object.
    """

    def __init__(self, tallies: Tallies, running: Callable[[], Iterable[RunningCalls]]) -> None:
        """Begin with nobody."""
        self._tallies = tallies
        self._running = running
        self._watches: dict[OneWatch, None] = {}
        self._is_over = False

    def begin(self, methods: Sequence[str], uid: int | None) -> OneWatch:
        """Watch, until the watch is closed.

        Raises:
            Overloaded: many do already.
        """
        if len(self._watches) >= _MOST_WATCHERS:
            raise Overloaded(f"{_MOST_WATCHERS} watch this server already")
        watch = OneWatch(self, methods, uid)
        if self._is_over:
            watch.end()
            return watch
        self._watches[watch] = None
        if self._tallies.watching is None:
            self._tallies.watching = self
            for calls in self._running():
                calls.is_attended = True  # of those that begin from now on it is so from the start
        return watch

    def forget(self, watch: OneWatch) -> None:
        """Tell a watch no more."""
        self._watches.pop(watch, None)
        if not self._watches:
            self._tallies.watching = None

    def end(self) -> None:
        """Let all watches end: the server stops, and is not to wait for them."""
        self._is_over = True
        for watch in self._watches:
            watch.end()

    async def wait_read(self, seconds: float) -> list[Producer]:
        """Wait until what has ended was read to its end, so long at most; return the streams that were not."""
        streams = [watch.stream for watch in self._watches if watch.stream is not None]
        waiting = [asyncio.ensure_future(stream.wait_stopped()) for stream in streams]
        try:
            if waiting:
                await asyncio.wait(waiting, timeout=seconds)
        finally:  # the drain may be given up, or out of time
            for each in waiting:
                each.cancel()
        return [watch.stream for watch in self._watches if watch.stream is not None]

    def ended(self, call: HandledCall, nanoseconds: int) -> None:
        """Tell of a call that a handler was started for, ``nanoseconds`` ago."""
        request, caller = call.request, call.caller
        told = [watch for watch in self._watches if watch.wants(request.method, caller.uid)]
        if not told:
            return
        entry, duration = call.entry, nanoseconds / 1e9
        event = CallEvent(
            method=request.method,
            uid=caller.uid,
            gid=caller.gid,
            pid=caller.pid,
            began=call.began / 1e9,
            duration=duration,
            code=call.code,
            refused=False,
            oneway=request.call_id is None,
            arguments=told_arguments(entry.spec.description, request.params) if entry.shows_arguments else None,
            missed=0,
        )
        for watch in told:
            watch.tell(event)

    def ended_unrun(self, method: str | None, code: str | None, caller: Credentials | None, *, oneway: bool) -> None:
        """Tell of a request that no handler ran for; of one that was answered at once ``code`` is None."""
        uid, gid, pid = (None, None, None) if caller is None else (caller.uid, caller.gid, caller.pid)
        name = None if method is None else bounded_name(method)
        told = [watch for watch in self._watches if watch.wants(name, uid)]
        if not told:
            return
        event = CallEvent(
            method=name,
            uid=uid,
            gid=gid,
            pid=pid,
            began=time.monotonic(),
            duration=0.0,
            code=code,
            refused=code is not None,
            oneway=oneway,
            arguments=None,
            missed=0,
        )
        for watch in told:
            watch.tell(event)
