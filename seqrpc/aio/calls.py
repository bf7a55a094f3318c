"""The calls of one connection that wait to be sent or to be answered, whoever makes them."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from seqrpc.aio.accounts import Account
from seqrpc.aio.inflight import InFlight
from seqrpc.aio.lane import Lane
from seqrpc.aio.transport import SeqpacketTransport
from seqrpc.aio.turns import Turns
from seqrpc.calls.outcomes import explain_refusal, stalled, unavailable
from seqrpc.errors import ConnectionLost, RpcError, WrongLoop, WrongProcess, not_run
from seqrpc.interface.alarms import Alarms
from seqrpc.limits import Limits
from seqrpc.protocol.messages import Response
from seqrpc.protocol.session import Session

Waiter = asyncio.Future[Response]


class Line(Protocol):
    """What making and answering calls need from a connection."""

    loop: asyncio.AbstractEventLoop
    home: asyncio.AbstractEventLoop | None
    """Where the connection can be used; nowhere in a forked child."""

    alarms: Alarms
    """Those of deadlines."""

    session: Session[Waiter, Any]
    transport: SeqpacketTransport
    calls: Calls
    lane: Lane | None
    """What sends the plainest packets, if something native does."""
    account: Account
    """What the user at the other end holds of this side."""
    in_flight: InFlight
    """The descriptors that were sent."""
    writing_paused: bool
    """Whether so much waits to be sent that nothing should be added."""

    def watch_unread(self) -> None:
        """End the connection if what was sent, or waits to be, is not read for too long."""
        ...

    def book_unsent(self) -> None:
        """Book what is unsent on the account, as it is now."""
        ...

    def misuse(self) -> WrongProcess | WrongLoop:
        """Return what to raise where the connection is used from elsewhere."""
        ...

    def check_place(self) -> None:
        """Raise what :meth:`misuse` returns unless the connection can be used here."""
        ...

    def lost_error(self) -> ConnectionLost:
        """Return why the connection ended."""
        ...

    async def wait_lost(self) -> None:
        """Wait until the connection has ended."""
        ...

    def end_by(self, exc: Exception) -> None:
        """End the connection now, and tell the reason to those who wait on it."""
        ...


class Calls:
    """The calls under way on one connection, as its machinery knows them.

    It does not refer to the :class:`~seqrpc.aio.caller.Caller`, which is its users', unless one of them waits here.

    Args:
        line: the connection.
        limits: ``max_calls_in_flight`` and ``stall_timeout`` are used.
    """

    __slots__ = ("_limits", "_line", "_max_calls", "_session", "turns")

    def __init__(self, line: Line, limits: Limits) -> None:
        """Begin with no call."""
        self._line = line
        self._session = line.session
        self._limits = limits
        self._max_calls = limits.max_calls_in_flight
        self.turns = Turns(line.loop, self.has_room, limits.stall_timeout, self._stalled)
        """The line of calls that wait to be sent."""

    def has_room(self, going: int) -> bool:
        """Return whether one more call may be sent besides so many that are about to be."""
        in_flight = len(self._session.calls) + len(self._session.given_up)
        return not self._line.writing_paused and in_flight + going < self._max_calls

    def _stalled(self) -> RpcError | None:
        """Return what to raise in calls that wait while no answer comes; None if they wait for something else."""
        in_flight = len(self._session.calls) + len(self._session.given_up)
        if self._line.writing_paused or in_flight < self._max_calls:
            return None
        return stalled(in_flight, self._limits.stall_timeout)

    def request_refused(self, call_id: int, waiter: Waiter, exc: OSError) -> None:
        """Fail a call whose packet the kernel did not take: the other side never hears of it."""
        self._session.calls.pop(call_id, None)
        self._session.given_up.discard(call_id)
        if not waiter.done():
            waiter.set_exception(explain_refusal(exc))
        self.turns.next()

    def refuse(self) -> None:
        """Fail the calls that wait to be sent: the other side takes no new ones."""
        self.turns.fail(self.unavailable())

    def lose(self) -> None:
        """Fail all calls: the connection ended."""
        for waiter in self._session.lose():
            if not waiter.done():
                waiter.set_exception(self._line.lost_error())
        self.turns.fail(not_run(self._line.lost_error()))

    def unavailable(self) -> RpcError:
        """Return what to raise in a call that the other side does not take any more."""
        return unavailable(self._session.closing_received)
