"""A session on a transport: the machinery of a connection. It knows no services; a :class:`RequestHandler` does."""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from seqrpc.aio.accounts import UNSENT_BYTES, Account, Booked, Ledger
from seqrpc.aio.answers import Answers
from seqrpc.aio.caller import Caller
from seqrpc.aio.calls import Calls, Line, Waiter
from seqrpc.aio.inflight import InFlight
from seqrpc.aio.lane import Lane
from seqrpc.aio.packets import SeqpacketProtocol
from seqrpc.aio.places import check_loop, runs_here, wrong_loop
from seqrpc.aio.transport import SeqpacketTransport, carrier_of
from seqrpc.calls.outcomes import closed_here, lost
from seqrpc.errors import ConnectionLost, RemoteProtocolError, WrongLoop, WrongProcess
from seqrpc.interface.alarms import alarms_of
from seqrpc.interface.scope import outside, run_in
from seqrpc.kernel import forks
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.forks import wrong_process
from seqrpc.kernel.pieces import Content
from seqrpc.limits import LONGEST_TIMER, MAX_PACKET, Limits
from seqrpc.logs import Shortage, get_logger
from seqrpc.protocol.admission import Admission, Refused
from seqrpc.protocol.messages import Cancel, Closing, Request, Response
from seqrpc.protocol.session import Session
from seqrpc.protocol.spilled import write_spilled
from seqrpc.protocol.values import Living
from seqrpc.text import shown

T = TypeVar("T")

_log = get_logger("seqrpc.connection")
_NOBODY = SeqpacketProtocol()  # hears of what comes over a connection that has ended, which nothing does
_shortage = Shortage(_log)  # of descriptors, whichever connection they come over


class RequestHandler(Protocol):
    """Answers the requests that come in on one connection."""

    @property
    def admission(self) -> Admission:
        """Says which requests are taken."""
        ...

    def connection_made(self, link: Link) -> None:
        """Remember the connection."""
        ...

    def request_received(self, request: Request, caller: Credentials | None) -> None:
        """Take a request that was admitted and, unless its ``call_id`` is None, see that it is answered once.

        ``request.fds`` are the handler's to close.
        """
        ...

    def request_refused(self, refused: Refused, caller: Credentials | None) -> None:
        """Hear of a request that was not taken; it is answered already, and nothing of it is left."""
        ...

    def cancel_received(self, call_id: int) -> None:
        """Stop the work on a request as soon as possible; it is still to be answered."""
        ...

    def connection_lost(self) -> None:
        """Stop all work: nobody waits for it any more."""
        ...


class LinkOwner(Protocol):
    """Whoever keeps a connection."""

    def connection_made(self, link: Link) -> None:
        """Hear that the connection can be used."""
        ...

    def closing_received(self, link: Link) -> None:
        """Hear that the other side takes no new requests."""
        ...

    def connection_lost(self, link: Link) -> None:
        """Hear that the connection has ended, and that its handlers were stopped."""
        ...

    async def wait_left(self) -> None:
        """Wait until what the owner keeps for the connection has ended; whoever closes the connection waits for it."""
        ...


class Link(SeqpacketProtocol):
    """One end of a connection.

    Args:
        handler: who answers the other side's requests.
        limits: bounds of this connection.
        living: what streams and channels are here.
        owner: hears of its beginning and its end.
        new_caller: returns what makes the calls of this side.
        ledger: has the account of whoever is at the other end, unless ``living`` has it already.
    """

    __slots__ = (
        "__weakref__", "_caller", "_close_timer", "_closed", "_ledger", "_limits", "_living", "_new_caller", "_owner",
        "_reason", "account", "alarms", "answers", "calls", "handler", "home", "in_flight", "is_held", "is_known",
        "lane", "loop", "quiet_sweeps", "session", "surroundings", "transport", "unread_timer", "unsent_booked",
        "writing_paused",
    )  # fmt: skip

    def __init__(
        self,
        handler: RequestHandler,
        limits: Limits,
        living: Living | None = None,
        owner: LinkOwner | None = None,
        new_caller: Callable[[Line, Limits], Caller] = Caller,
        *,
        ledger: Ledger | None = None,
    ) -> None:
        """Prepare; the transport calls ``connection_made``."""
        self._ledger = ledger
        self._living: Booked | None = living if isinstance(living, Booked) else None  # type: ignore[redundant-expr,unused-ignore]
        self.account: Account
        """What the user at the other end holds of this side; once the connection is made."""
        self.in_flight: InFlight
        """The descriptors that were sent over it."""
        self.handler = handler
        """Answers the other side's requests."""
        self._owner = owner
        self._limits = limits
        self.loop = asyncio.get_running_loop()
        """The event loop that the connection belongs to."""
        self.alarms = alarms_of(self.loop)
        """Those of deadlines, of all connections of the loop."""
        self.surroundings = living.surroundings if isinstance(living, Booked) else outside()  # type: ignore[redundant-expr,unused-ignore]
        """The context that the connection is in, which has nobody's call: each handler gets a copy of it."""
        self.home: asyncio.AbstractEventLoop | None = self.loop
        """Where it can be used; nowhere in a forked child."""
        self.session: Session[Waiter, Any] = Session(limits, living, handler.admission)
        self.unsent_booked = 0
        """Bytes of answers that are booked on the account as unsent: those at which :meth:`book_unsent` looked last."""
        self.unread_timer: asyncio.TimerHandle | None = None
        self.writing_paused = False
        """Whether so much waits to be sent that nothing should be added."""
        self.quiet_sweeps = 0
        """Sweeps of the server since something came, for ``idle_timeout``."""
        self.is_held = False
        """Whether the loop reads it no longer by itself (:class:`~seqrpc.aio.lastreads.LastReads`)."""
        self.is_known = False
        """Whether the application was ever given the connection: it may keep it, and expect to call over it later."""
        self.calls = Calls(self, limits)
        """The calls of this side that are under way."""
        self._new_caller = new_caller
        self._caller: weakref.ref[Caller] | None = None
        self.answers = Answers(self, limits)
        """Sends the answers of this side."""
        self.transport: SeqpacketTransport
        self.lane: Lane | None = None
        """What takes and sends the plainest packets, if something native does."""
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._close_timer: asyncio.TimerHandle | None = None
        self._reason: Exception | None = None
        forks.register(self, Link._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Stop working: this is a copy in a forked child. Its transport has closed, or will close, the socket."""
        self.home = None
        self.session.lose()  # else giving up a call here would cancel it at the other side

    def run_outside(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a copy of the connection's context: what it leaves on the loop keeps nobody's call."""
        return run_in(self.surroundings, function, *args)

    @property
    def caller(self) -> Caller:
        """Makes the calls of this side; held by those who make them, and not here."""
        caller = None if self._caller is None else self._caller()
        if caller is None:
            if self._closed.done():
                self.calls = Calls(self, self._limits)
            caller = self._new_caller(self, self._limits)
            self._caller = weakref.ref(caller)
        return caller

    @property
    def is_called_over(self) -> bool:
        """Whether anybody has what makes calls of this side, or is making one."""
        return self._caller is not None and self._caller() is not None

    def misuse(self) -> WrongProcess | WrongLoop:
        """Return what to raise where the connection is used from elsewhere."""
        return wrong_process("this connection") if self.home is None else wrong_loop("this connection", self.loop)

    def check_process(self) -> None:
        """Check that the connection belongs to this process.

        Raises:
            WrongProcess: this is a fork of the process that made it.
        """
        if self.home is None:
            raise self.misuse()

    def check_place(self) -> None:
        """Check that the connection can be used here.

        Raises:
            WrongProcess: this is a fork of the process that made it.
            WrongLoop: its event loop does not run in this thread.
        """
        if self.home is None or not runs_here(self.home):
            raise self.misuse()

    @property
    def peer(self) -> Credentials | None:
        """Who is at the other end, by the kernel's word: who connected, or who listens (unix(7)).

        None where each packet tells of its sender, as on a socket pair, and where the kernel does not say.
        """
        return cast("Credentials | None", self.transport.get_extra_info("credentials"))

    @property
    def uid(self) -> int | None:
        """Whose connection it is, for bounds: who connected, also where each packet names its sender.

        None where the kernel does not say.
        """
        return cast("int | None", self.transport.get_extra_info("connected_uid"))

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        assert isinstance(transport, SeqpacketTransport)
        self.transport = transport
        carrier = carrier_of(transport)
        carrier.tells_unclosed = False  # whoever owns this connection does
        self.session.references.on_work = carrier.intake.end_wakeup
        if self._living is not None:
            self._living.intake = carrier.intake
        self._find_account()
        if self.account.uid != carrier.uid:  # the kernel says who made the pair, and not whom its end was given to
            carrier.intake.join_share(self.account.uid)
        sock = transport.get_extra_info("socket")
        self.in_flight = InFlight(sock, self.account, transport.get_write_buffer_packets)
        self.handler.connection_made(self)
        if self._owner is not None:
            self._owner.connection_made(self)

    def _find_account(self) -> None:
        living = self._living
        if living is not None and living.account is not None:  # that of the connection that this one came of
            self.account = living.account
            return
        self.account = (self._ledger or Ledger(self._limits, is_shared=False)).account_of(self.uid)
        if living is not None:
            living.account = self.account

    def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: Credentials | None) -> None:
        """Decode a packet and pass it to whoever it concerns."""
        if fds:
            self.account.take(fds)
        try:
            event = self.session.receive_packet(data, fds, credentials)
        except RemoteProtocolError as exc:
            self._end_malformed(exc)
            return
        self.quiet_sweeps = 0
        if isinstance(event, Request):
            if self.writing_paused:
                self.answers.slow_down(event.call_id)
            self.handler.request_received(event, credentials)
            return
        if isinstance(event, Response):
            waiter = event.waiter
            event.waiter = None  # the waiter will refer to this answer
            if waiter.done():  # the call was given up, and its task has not run since
                close_all(event.fds)
            else:
                waiter.set_result(event)
        elif event is not None:
            self._rare_event(event, credentials)
        if self.calls.turns.waiting:  # the packet may have answered a call, even one that was given up
            self.calls.turns.next()

    def request_denied(self, call_id: int, method: str, caller: Credentials | None) -> None:
        """Refuse a request that came alone, whose caller the policy of the method does not admit."""
        self.quiet_sweeps = 0
        self._rare_event(self.session.deny(call_id, method, caller), caller)
        if self.calls.turns.waiting:  # as in packet_received
            self.calls.turns.next()

    def descriptors_lost(self, data: bytes, credentials: Credentials | None) -> bool:
        """Answer, or fail, the one call that the lost descriptors belonged to (protocol 3.3)."""
        _shortage.say("! out of descriptors: what came with a message was lost on the way in")
        try:
            event = self.session.receive_packet(data, [], credentials, lost=True)
        except RemoteProtocolError as exc:
            self._end_malformed(exc)
            return True
        if isinstance(event, Response):
            waiter, event.waiter = event.waiter, None
            if not waiter.done():
                waiter.set_result(event)
        elif event is not None and not isinstance(event, Request):  # the session refuses those itself
            self._rare_event(event, credentials)
        self.calls.turns.next()
        return True

    def packet_truncated(self, size: int) -> bool:
        """Treat a packet that is too long as malformed (protocol 1.2)."""
        self._end_malformed(RemoteProtocolError(f"a packet has at most {MAX_PACKET} bytes, this one {size} or more"))
        return True

    def packet_too_long(self, data: Content) -> tuple[bytes, OwnedFd]:
        """Send a message that does not fit in a packet as a memory file (protocol section 5)."""
        return self.session.spill(data), write_spilled(data)

    def _rare_event(self, event: Cancel | Closing | Refused, sender: Credentials | None) -> None:
        if isinstance(event, Cancel):
            self.handler.cancel_received(event.call_id)
        elif isinstance(event, Refused):
            if event.call_id is not None:
                self.answers.send_error(event.call_id, event.code, event.message)
            if self.writing_paused:
                self.answers.slow_down(event.call_id)
            self.handler.request_refused(event, sender)
        else:
            _log.debug("= %r takes no new requests: %s", self, shown(event.reason))
            self.calls.refuse()
            if self._owner is not None:
                self._owner.closing_received(self)

    def _end_malformed(self, exc: RemoteProtocolError) -> None:
        _log.info("x %r: %s", self, exc)
        exc.__cause__ = exc.__context__ = None
        self._reason = exc.with_traceback(None)  # frames hold what was received, including buffers
        self.answers.send_closing(str(exc))
        self._close_transport()

    def pause_writing(self) -> None:
        """Make calls wait, and end the connection if nothing is read for too long."""
        self.writing_paused = True
        self.book_unsent()
        self.watch_unread()

    def watch_unread(self) -> None:
        """End the connection if what was sent, or waits to be, is not read for ``unread_timeout`` seconds."""
        if self.unread_timer is None:
            seconds = min(self._limits.unread_timeout, LONGEST_TIMER)
            self.unread_timer = self.run_outside(self.loop.call_later, seconds, self._look_unread, self._progress)

    @property
    def _progress(self) -> tuple[int, ...]:
        """What changes as the other side reads."""
        return self.transport.get_write_buffer_progress(), *self.in_flight.progress

    def _look_unread(self, progress: tuple[int, ...]) -> None:
        """End the connection if nothing was read since; else look again later."""
        self.unread_timer = None
        self.in_flight.look()
        if not (self.writing_paused or self.in_flight.long_bytes):
            return
        if self._progress != progress:
            self.watch_unread()
            return
        seconds = self._limits.unread_timeout
        _log.info("x %r: nothing that waits for it was read for %g s", self, seconds)
        self.end_by(ConnectionLost(f"the other side read nothing for {seconds:g} s (unread_timeout)"))

    def book_unsent(self) -> None:
        """Book what is unsent on the account, as it is now, but for what is booked as in flight."""
        now = max(0, self.answers.unsent_bytes - self.in_flight.long_bytes) if self.writing_paused else 0
        self.account.book(UNSENT_BYTES, now - self.unsent_booked)
        self.unsent_booked = now

    def _end_unread(self, *, is_over: bool = False) -> None:
        self.book_unsent()
        if self.unread_timer is not None and (is_over or not self.in_flight.long_bytes):
            self.unread_timer.cancel()
            self.unread_timer = None

    def resume_writing(self) -> None:
        """Let waiting calls go on."""
        self.writing_paused = False
        self._end_unread()
        if not self.is_held:
            self.transport.resume_reading()
        self.calls.turns.restart()  # until now the line did not wait for answers
        self.calls.turns.next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the calls that wait here, stop those that run here."""
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._reason = self._reason or exc
        self.writing_paused = False  # calls made from now on must fail: nothing would end their waiting
        self._end_unread(is_over=True)
        self.in_flight.end(self.loop)
        self.calls.lose()
        self.handler.connection_lost()
        self._closed.set_result(None)
        if self._owner is None:
            self.let_go_of_handler()
        else:
            self._owner.connection_lost(self)
        self._let_go()

    def _let_go(self) -> None:
        """Refer to nothing any more that refers to this, so that all of it is freed at once, with its owner's leave.

        Left to the garbage collector, the remains of connections that come and go by the hundred would keep the loop
        busy for a quarter of a second at a time.
        """
        carrier_of(self.transport).intake.protocol = _NOBODY
        self.session.let_go()
        if self.lane is not None:
            self.lane.let_go()
            self.lane = None
        if self._living is not None:
            self._living.let_go()
        self.calls.turns.let_go()
        del self.calls, self.answers  # whoever calls, or answers, has its own

    def let_go_of_handler(self) -> None:
        """Refer no more to who answered on it: nothing will be received."""
        del self.handler

    def let_go_of_owner(self) -> None:
        """Refer no more to its owner, who refers to it, and has heard of the end."""
        self._owner = None

    @property
    def was_malformed(self) -> bool:
        """Whether it ended because the other side broke the protocol."""
        return isinstance(self._reason, RemoteProtocolError)

    def lost_error(self) -> ConnectionLost:
        """Return why the connection ended, made anew: an exception raised repeatedly keeps all its tracebacks."""
        return lost(self._reason, self.session.closing_received)

    # Ending

    @property
    def closed(self) -> bool:
        """True once the connection has ended; a copy in a forked child never was one."""
        return self.home is None or self._closed.done()

    @property
    def is_unclosed(self) -> bool:
        """Whether it is open, and neither side has begun to close it."""
        if self.closed or self.transport.is_closing():
            return False
        # Where its loop has ended, nobody was told that it was closed.
        return cast("socket.socket", self.transport.get_extra_info("socket")).fileno() >= 0

    def end_by(self, exc: Exception) -> None:
        """End the connection now, and tell the reason to those who wait."""
        self._reason = exc
        self.transport.abort()

    def refuse(self, reason: str) -> None:
        """End a connection that is not wanted, and tell the other side the reason."""
        if not self.closed:
            self.answers.send_closing(reason)
        self._close_transport()

    def _close_transport(self) -> None:
        self.transport.close()
        if self._close_timer is None and not self.closed:
            self._close_timer = self.run_outside(self.loop.call_later, self._limits.close_timeout, self.transport.abort)

    def detach(self) -> socket.socket | None:
        """Give the socket back, owned by the caller, if no call is under way in either direction, else None.

        The connection is over then, without a word to the other side.

        Raises:
            WrongProcess, WrongLoop: the connection belongs to another process, or to another event loop.
        """
        self.check_place()
        session = self.session
        if self.closed or session.calls or session.given_up or session.requests or session.closing_received is not None:
            return None
        if self.calls.turns.waiting:
            return None
        sock = self.transport.detach()
        if sock is not None:
            self._reason = ConnectionLost("the connection was passed on")
            self._end_unread(is_over=True)
            self.in_flight.forget()  # whoever has the socket sees to what is unread there, which must not be shut down
            self.handler.connection_lost()
            self._closed.set_result(None)
            if self._owner is None:
                self.let_go_of_handler()
            self._let_go()
        return sock

    async def close(self) -> None:
        """End the connection: what is unsent is sent within ``close_timeout``; calls both ways are given up.

        In a forked child this does nothing: the connection is the parent's. If its event loop has ended, there
        is nobody to wait for, and only the socket is closed.

        Raises:
            WrongLoop: the connection belongs to another event loop.
            Exception: the lifespan of a service that was brought failed.

        Cancel: the closing goes on.
        """
        if self.closed:
            if self._owner is not None and self.home is not None and runs_here(self.home):
                await self._owner.wait_left()
            return
        if self.loop.is_closed():
            self.abandon()
            return
        check_loop("this connection", self.loop)
        self._begin_close()
        await self.wait_closed()

    def _begin_close(self) -> None:
        if self._reason is None:
            self._reason = closed_here("async with")
        self._close_transport()

    def abandon(self) -> None:
        """Close without waiting for it; from any thread, and also when the loop runs no more."""
        loop = self.loop
        if self.home is None:
            return
        if not loop.is_running():
            if not loop.is_closed():  # it may run again, and must not watch a number that somebody else has by then
                self.transport.abort()
            self.transport.get_extra_info("socket").close()
        elif runs_here(loop):
            self._begin_close()
        else:
            loop.call_soon_threadsafe(self._begin_close)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended, whoever ended it.

        Raises:
            WrongProcess, WrongLoop: the connection belongs to another process, or to another event loop.
        """
        self.check_place()
        await self.wait_lost()
        if self._owner is not None:
            await self._owner.wait_left()

    async def wait_lost(self) -> None:
        """Wait until the connection has ended, but not for what its owner keeps for it."""
        await asyncio.shield(self._closed)

    def __repr__(self) -> str:
        """Return the state, and who is at the other end, as people know it."""
        return f"<Connection {'closed' if self.closed else 'open'} peer={self.peer}>"
