"""What a stopping server still reads: it answers what was sent before its CLOSING arrived (protocol 2.5, 2.8)."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterable
from typing import Any

from seqrpc.aio.link import Link
from seqrpc.aio.transport import carrier_of
from seqrpc.interface.scope import run_outside
from seqrpc.kernel import forks
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.lastreads")

_MOST_READS = 512
"""Times that a connection is read on which nothing runs. The kernel queues some 280 packets of one sender (its default
send buffer), and one is read each time at least: who sends still was told that nothing is taken any more."""

_LOOK_AGAIN = 0.01
"""Seconds until it is looked again whether there is room for what somebody's next packet brings."""

_AT_ONCE = 16
"""Connections that are read before it is looked again who has something unread: who was read least goes first."""


class _Reading:
    """A connection that is held back: the loop reads it no longer by itself."""

    def __init__(self, link: Link, sock: Any) -> None:
        self.link = link
        self.sock = sock  # lent
        self.reads = 0  # how many since it was held back

    @property
    def is_waited_on(self) -> bool:
        """Whether somebody here waits for what comes over it: answers, or that a handler is told to stop."""
        session = self.link.session
        return bool(session.calls or session.requests)

    @property
    def is_shut(self) -> bool:
        """Whether nothing can be read for the time being: there is no room for the descriptors that come next."""
        return carrier_of(self.link.transport).intake.is_shut

    async def read_on(self) -> None:
        """Read for a wake-up or two of the loop, and hold back again.

        Cancel: the connection is held back again.
        """
        self.reads += 1
        self.link.transport.resume_reading()
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # asyncio calls those who wait for a turn before the readers of that turn
        finally:
            self.link.transport.pause_reading()


class LastReads:
    """Reads connections one after the other, so that no turn of the loop is longer than one of them makes it.

    Otherwise all peers that never stop sending could make a turn long, with some 64 packets each (on uvloop 48 times
    as many if there are more than 1,024 such peers), and the rest of the stop takes some ten turns.

    Args:
        seconds: how long :meth:`finish` takes at most.
    """

    def __init__(self, seconds: float) -> None:
        """Begin with none."""
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._selector: selectors.BaseSelector | None = None
        self._held: dict[Link, _Reading] = {}
        self._shut: dict[_Reading, asyncio.TimerHandle] = {}  # of these, who cannot be read, and is not watched
        self._opened: list[_Reading] = []  # who was shut, and may have been received from elsewhere
        self._unread = asyncio.Event()
        self._all_read = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        forks.register(self, LastReads._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Watch nothing: this is a copy in a forked child, which has the selector's descriptor, too."""
        selector, self._selector = self._selector, None
        if selector is not None:
            selector.close()

    def hold(self, links: Iterable[Link]) -> None:
        """Read these connections from now on, in place of the loop. A second time it does nothing."""
        if self._selector is not None:
            return
        try:
            selector = selectors.DefaultSelector()
        except OSError as exc:
            _log.warning("! the connections are read as before while the server stops: %s", exc)
            return
        self._selector = selector
        for link in links:
            if not link.transport.is_closing():
                link.is_held = True
                link.transport.pause_reading()
                reading = self._held[link] = _Reading(link, link.transport.get_extra_info("socket"))
                selector.register(reading.sock, selectors.EVENT_READ, reading)
        self._loop.add_reader(selector.fileno(), self._unread.set)
        self._task = run_outside(self._loop.create_task, self._read_on())

    def forget(self, link: Link) -> None:
        """Stop reading a connection: it ended, or was read often enough."""
        reading = self._held.pop(link, None)
        if reading is None or self._selector is None:
            return
        timer = self._shut.pop(reading, None)
        if timer is None:
            self._selector.unregister(reading.sock)
        else:
            timer.cancel()
            self._unread.set()  # there may be nobody left to wait for

    def _next(self) -> list[_Reading]:
        """Return who is to be read next; nobody if nothing is unread, or can be read."""
        if self._selector is None:
            return []
        opened, self._opened = self._opened, []
        unread: list[_Reading] = [key.data for key, _events in self._selector.select(0)]
        unread += [reading for reading in opened if reading.link in self._held and reading not in unread]
        for reading in unread:
            if reading.link.transport.is_closing():
                self.forget(reading.link)
            elif reading.is_shut:
                self._set_aside(reading)
        unread = [reading for reading in unread if reading.link in self._held and reading not in self._shut]
        unread.sort(key=lambda reading: 0 if reading.is_waited_on else reading.reads)
        return unread[:_AT_ONCE]

    def _set_aside(self, reading: _Reading) -> None:
        """Watch somebody no more who cannot be read, and would keep the loop awake, and look again later."""
        assert self._selector is not None
        self._selector.unregister(reading.sock)
        self._shut[reading] = self._loop.call_later(_LOOK_AGAIN, self._look_again, reading)

    def _look_again(self, reading: _Reading) -> None:
        if self._selector is None:
            return
        if reading.is_shut:
            self._shut[reading] = self._loop.call_later(_LOOK_AGAIN, self._look_again, reading)
            return
        del self._shut[reading]
        self._selector.register(reading.sock, selectors.EVENT_READ, reading)
        self._opened.append(reading)
        self._unread.set()

    async def _read_on(self) -> None:
        while True:
            self._unread.clear()
            unread = self._next()
            for reading in unread:
                await reading.read_on()
                if reading.reads >= _MOST_READS and not reading.is_waited_on:
                    self.forget(reading.link)
            if not unread:
                if not self._shut:
                    self._all_read.set()
                await self._unread.wait()

    async def finish(self) -> None:
        """Wait until what is unread now was read, for so many seconds at most."""
        if self._selector is None:
            return
        self._all_read.clear()
        self._unread.set()  # look again
        try:
            async with asyncio.timeout(self._seconds):
                await self._all_read.wait()
        except TimeoutError:
            _log.info("= who still sends after %g s is not read any more", self._seconds)

    def close(self) -> None:
        """Read none of them any more."""
        if self._task is not None:
            self._task.cancel()
        if self._selector is not None:
            self._loop.remove_reader(self._selector.fileno())  # type: ignore[attr-defined] # of epoll, kqueue
            self._selector.close()
            self._selector = None
        for timer in self._shut.values():
            timer.cancel()
        self._shut.clear()
        self._held.clear()
        self._all_read.set()
