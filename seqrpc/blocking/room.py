"""Calls that wait to be sent because too many are unanswered."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any, Protocol

from seqrpc.blocking.turns import Turns
from seqrpc.blocking.waiting import Bystander, Waiter, earlier
from seqrpc.calls.outcomes import stalled
from seqrpc.errors import ConnectionLost, DeadlineExceeded, RpcError, SeqrpcError, not_run
from seqrpc.interface.reconnecting import told_anew
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.limits import Limits
from seqrpc.protocol.session import Session


class Line(Protocol):
    """Whose calls wait."""

    limits: Limits
    lock: threading.RLock
    is_lost: bool
    is_open: bool
    """Whether calls may be sent at once."""

    session: Session[Waiter, Any]
    turns: Turns

    def lost_error(self) -> ConnectionLost:
        """Return why it ended."""
        ...


class Room:
    """The threads that wait until one of ``max_calls_in_flight`` is answered, in the order in which they came.

    Args:
        line: the connection; all but :meth:`wait` is used under its lock.
    """

    __slots__ = ("_going", "_line", "_most", "_moved", "_session", "_waiting")

    def __init__(self, line: Line) -> None:
        """Begin with nobody."""
        self._line = line
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        self._going: dict[Waiter, None] = {}  # whose turn has come, and who have not sent yet
        self._moved = 0  # when a turn was given last, in nanoseconds of the monotonic clock
        self._session = line.session
        self._most = line.limits.max_calls_in_flight

    @property
    def waiting(self) -> bool:
        """Whether anybody waits, or is about to go."""
        return bool(self._waiting or self._going)

    @property
    def _in_flight(self) -> int:
        return len(self._session.calls) + len(self._session.given_up)

    @property
    def is_full(self) -> bool:
        """Whether one more call has to wait."""
        session = self._session
        return bool(self._waiting or self._going or len(session.calls) + len(session.given_up) >= self._most)

    def wait(self, deadline: int | None) -> Waiter:
        """Wait for a turn, and return it: :meth:`gone` is to be called with it, whatever comes of it.

        Raises:
            DeadlineExceeded: it passed before.
            Overloaded: no call was answered for ``stall_timeout`` seconds.
            Exception: what :meth:`fail` was given.
        """
        line, waiter = self._line, Bystander()
        try:
            with line.lock:
                line.is_open = False
                self._waiting[waiter] = None
                self._moved = self._moved if len(self._waiting) > 1 else time.monotonic_ns()
                self.next()
            self._wait(waiter, deadline)
            if waiter.error is not None:
                raise not_run(waiter.error) if isinstance(waiter.error, SeqrpcError) else waiter.error
        except BaseException:
            self.gone(waiter)
            raise
        return waiter

    def _wait(self, waiter: Waiter, deadline: int | None) -> None:
        line = self._line
        stall_ns = int(line.limits.stall_timeout * 1e9)
        while not waiter.is_done:
            until = earlier(deadline, self._moved + stall_ns)
            try:
                line.turns.wait(waiter, until)
            except DeadlineExceeded:
                now = time.monotonic_ns()
                if deadline is not None and now >= deadline:
                    raise not_run(DeadlineExceeded("the deadline passed before the call could be sent")) from None
                if now >= self._moved + stall_ns:
                    raise stalled(self._in_flight, line.limits.stall_timeout) from None

    def gone(self, turn: Waiter) -> None:
        """Hear that whose turn had come has sent, or does not; it may be repeated."""
        with self._line.lock:
            self._waiting.pop(turn, None)
            self._going.pop(turn, None)
            self.next()

    def next(self) -> None:
        """Give the first their turns, as far as there is room."""
        if self._waiting:
            with Uninterrupted():
                while self._waiting and self._in_flight + len(self._going) < self._most:
                    waiter, _ = self._waiting.popitem(last=False)
                    self._going[waiter] = None
                    self._moved = time.monotonic_ns()
                    waiter.finish()
        if not self._waiting and not self._going and not self._line.is_lost:
            self._line.is_open = self._session.closing_received is None

    def fail(self, error: RpcError | None) -> None:
        """Fail all who wait: with an error, or because the connection ended."""
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            waiter.finish(error=not_run(self._line.lost_error()) if error is None else told_anew(error))
