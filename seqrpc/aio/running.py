"""The handlers that run for one connection, and what their requests keep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Iterator
from contextvars import Context
from itertools import chain
from typing import Any, Final

from seqrpc.aio.accounts import CALLS, REQUEST_BYTES, Account
from seqrpc.aio.current import HandledCall
from seqrpc.aio.registry import Registry
from seqrpc.aio.starting import pace_of
from seqrpc.interface.tallies import TOTAL
from seqrpc.kernel.descriptors import ValueFd, close_all

NO_PARAMS: list[Any] = []

_monotonic_ns: Final = time.monotonic_ns


class RunningCalls:
    """Knows what runs, stops it, and waits for its end.

    Args:
        registry: the services; it also knows which handlers run on after their connection ended.
        requests: the session's table of requests, with what runs for each.
        account: of the caller's user.
    """

    __slots__ = (
        "_held_bytes", "_idle", "_lingering", "_loop", "_oneway", "_pace", "_registry", "_requests", "account",
        "is_attended",
    )  # fmt: skip

    def __init__(self, registry: Registry, requests: dict[int, HandledCall | None], account: Account) -> None:
        """Begin with no call running."""
        self.account = account
        """Of the caller's user."""
        self.is_attended = registry.tallies.watching is not None
        """Whether somebody waits for calls to end, or watches: the end of each looks at this alone."""
        self._registry = registry
        self._requests = requests
        self._oneway: dict[HandledCall, None] = {}  # they want no answer, so they are in no table; smaller than a set
        self._loop = asyncio.get_running_loop()
        self._pace = pace_of(self._loop, account.uid)
        self._held_bytes = 0  # bytes of requests longer than a packet
        self._idle: asyncio.Future[None] | None = None  # while somebody waits for handlers to end
        self._lingering: asyncio.Future[None] | None = None  # while handlers run on although the connection ended

    def lack_of_room(self, size: int) -> str | None:
        """Return why a request that keeps ``size`` bytes cannot be taken; None if it can. One alone always can."""
        held, most = self._held_bytes, self._registry.limits.max_held_bytes
        if held and held + size > most:
            return f"{held} bytes of large requests are being worked on already (max_held_bytes)"
        return self.account.lack(REQUEST_BYTES, size)

    def add(self, call: HandledCall) -> None:
        """Add a call, and count the bytes that it holds until it ends.

        Buffers, streams and channels belong to whoever refers to them.
        """
        request = call.request
        request.fds = [fd for fd in request.fds if not isinstance(fd, ValueFd)]
        account = self.account
        account.held[CALLS] += 1  # as book does
        account.total[CALLS] += 1
        if request.held_bytes:
            self._held_bytes += request.held_bytes
            account.book(REQUEST_BYTES, request.held_bytes)
        if request.call_id is None:
            self._oneway[call] = None
        else:
            self._requests[request.call_id] = call

    def end(self, call: HandledCall) -> None:
        """Forget a call, and close those of its descriptors that nobody took."""
        request, latency = call.request, call.entry.latency
        took = _monotonic_ns() - call.began
        latency[took.bit_length()] += 1
        latency[TOTAL] += took
        call.task = None  # its context refers to the call
        account = self.account
        account.held[CALLS] -= 1  # as release does
        account.total[CALLS] -= 1
        if request.call_id is None:
            self._oneway.pop(call, None)
        elif self._requests.get(request.call_id) is call:  # it was not answered
            del self._requests[request.call_id]
        if not request.is_plain:
            close_all(request.fds)
            if request.held_bytes:
                self._held_bytes -= request.held_bytes
                account.release(REQUEST_BYTES, request.held_bytes)
            if call.timer is not None:
                call.timer.cancel()
        if self.is_attended:
            self._tell(call, took)
        request.params = NO_PARAMS  # tasks started in its context that live on must not keep its arguments

    def _tell(self, call: HandledCall, took: int) -> None:
        """Tell those who watch, and those who wait, that a call has ended."""
        if self._loop.is_closed():  # it was torn down, and what ran on it is being collected
            return
        watching = self._registry.tallies.watching
        if watching is not None:
            watching.ended(call, took)
        self.look_again()
        if self._lingering is not None and self.is_idle and not self._lingering.done():
            self._lingering.set_result(None)
        self.is_attended = not (watching is None and self._idle is None and self._lingering is None)

    @property
    def number(self) -> int:
        """How many calls run."""
        return len(self._requests) + len(self._oneway)

    @property
    def is_idle(self) -> bool:
        """True while no handler runs."""
        return not self._requests and not self._oneway

    def __iter__(self) -> Iterator[HandledCall]:
        """Return all calls that run, those that want an answer first, the oldest first among each kind."""
        # A request that is being refused, or is malformed, has none.
        return chain(filter(None, self._requests.values()), self._oneway)

    def _all(self) -> list[HandledCall]:
        """Return all calls that run, in a list that does not change."""
        return [*self]

    def connection_lost(self) -> None:
        """Cancel the handlers whose answers nobody waits for any more.

        Nobody ever waited for handlers of one-way calls: they run on, and are cancelled after ``close_timeout``. Over
        all connections of a user that ended, no more than ``max_calls_in_flight`` of them run on.
        """
        self._stop([call for call in self._all() if call.request.call_id is not None])
        oneway = len(self._oneway)
        lingers = oneway > 0 and self._registry.has_room_to_linger(oneway, self.account)
        if not lingers:
            self.stop_oneway()
        if self.is_idle:
            return
        self._lingering = self._loop.create_future()
        self.is_attended = True
        if lingers:
            stopping = self._loop.call_later(self._registry.limits.close_timeout, self.stop_oneway, context=Context())
            self._lingering.add_done_callback(lambda _ended: stopping.cancel())
            self._registry.linger(self, self._lingering)
        else:
            self._registry.end_soon(self, self._lingering)

    def stop_oneway(self) -> None:
        """Cancel the handlers of one-way calls; the others were cancelled when the connection ended."""
        self._stop([*self._oneway])

    def stop_others(self, spared: HandledCall) -> None:
        """Cancel all handlers but that of ``spared``."""
        self._stop([call for call in self._all() if call is not spared])

    def _stop(self, calls: list[HandledCall]) -> None:
        """Cancel handlers, some of the user's in each turn of the loop; those that end meanwhile need not be."""
        for call in calls:
            self._pace.end(call.stop)

    async def wait_idle(self, spared: Container[object] = ()) -> None:
        """Wait until no handler runs but those of the calls in ``spared``.

        Cancel: the handlers run on.
        """
        while not all(call in spared for call in self._all()):
            if self._idle is None or self._idle.done():
                self._idle = self._loop.create_future()
                self.is_attended = True
            await asyncio.shield(self._idle)

    def look_again(self) -> None:
        """Let :meth:`wait_idle` see what has changed: a handler has ended, or is spared from now on."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
