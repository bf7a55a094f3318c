"""A session on a socket without an event loop: whoever waits for an answer reads, and reads for all."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from seqrpc.blocking.family import Family
from seqrpc.blocking.kept import keep
from seqrpc.blocking.reading import Reading, Work
from seqrpc.blocking.room import Room
from seqrpc.blocking.sending import SendingLine
from seqrpc.blocking.turns import Turns
from seqrpc.blocking.waiting import READ, WRITE, Bystander, Waiter, earlier, poll
from seqrpc.calls.outcomes import closed_here, explain_refusal, lost, unavailable
from seqrpc.errors import (
    ConnectionLost,
    DeadlineExceeded,
    Execution,
    RemoteProtocolError,
    RpcError,
    WrongProcess,
)
from seqrpc.kernel import forks
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.kernel.pieces import Content
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.sockets import names_senders, never_wait
from seqrpc.kernel.unread import close_unread
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.admission import Admission, Refused
from seqrpc.protocol.heads import head_of
from seqrpc.protocol.inbox import Inbox, Trouble, hides_packets
from seqrpc.protocol.messages import REQUEST, RESPONSE, Closing, Request, Response
from seqrpc.protocol.session import Event, Session
from seqrpc.protocol.values import Living
from seqrpc.text import shown

_log = get_logger("seqrpc.connection")


_MOST_LEFT: Final = 1024
"""Packets that are read at most after the other side has stopped reading: it may still write, and never end."""

_DETACH_SECONDS: Final = 0.1
"""For how long the lock of a channel is waited for that is to be passed on."""


class Handler(Protocol):
    """Answers the requests that come in on one line."""

    @property
    def admission(self) -> Admission:
        """Says which requests are taken."""
        ...

    @property
    def serves(self) -> bool:
        """Whether there is anything to call here, so that requests are looked for wherever a thread waits."""
        ...

    def line_made(self, line: Line) -> None:
        """Remember the line."""
        ...

    def serve(self, request: Request, caller: Credentials | None) -> None:
        """Answer a request that was admitted, in this thread; its descriptors are the handler's to close."""
        ...

    def request_refused(self, refused: Refused, caller: Credentials | None) -> None:
        """Hear of a request that was not taken; it is answered already."""
        ...

    def line_lost(self) -> None:
        """Hear that nobody waits for answers any more."""
        ...


class Line(SendingLine):
    """One end of a connection, of a channel, or of an object that is served, for any number of threads.

    One thread at a time reads, and gives the others what is theirs; when it has what it waits for itself, the one that
    has waited longest goes on. The lock is held for moments only, and never while a handler runs or a thread waits.

    Args:
        sock: a connected socket; the line owns it.
        handler: who answers the other side's requests.
        limits: bounds of this line.
        family: what goes on while a thread waits.
        living: what streams and channels are here.
        by_packet: whether each packet tells who sent it; if None, the socket's names tell.
    """

    __slots__ = (
        "__weakref__", "_discards", "_kept", "_reason", "entered", "family", "forked", "handler", "is_lost", "is_open",
        "reading", "room",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        handler: Handler,
        limits: Limits,
        family: Family,
        living: Living | None = None,
        *,
        by_packet: bool | None = None,
    ) -> None:
        """Own the socket."""
        peer = PLATFORM.peer_credentials(sock)
        if by_packet is None:
            by_packet = names_senders(sock)
        if by_packet:
            PLATFORM.ask_for_senders(sock)
        never_wait(sock)
        inbox = Inbox(None if by_packet else peer, None if peer is None else peer.uid, names_senders=by_packet)
        super().__init__(sock, limits, inbox, Session(limits, living, handler.admission))
        self._kept = keep(self, sock, discard=True)
        self.family = family
        self.handler = handler
        """Answers the other side's requests."""
        self.entered = False
        """Whether a thread is in the middle of a change of the session: also seen if it comes here again."""
        self.reading = Reading(sock, self._inbox, self)
        """Receives."""
        self.turns = Turns(self)
        self.room = Room(self)
        """The line of calls that wait to be sent."""
        self.is_lost = False
        """Whether it has ended."""
        self.is_open = True
        """Whether calls may be sent at once: it has not ended, the other side takes them, and none wait for room."""
        self.forked = False
        """Whether this is a copy in a forked child."""
        self._reason: Exception | None = None
        self._discards = True  # what is unread at the end, so that the peer is not reset
        forks.register(self, Line._let_go_in_child)
        handler.line_made(self)

    def _let_go_in_child(self) -> None:
        """Close the copy, and let nobody use it: this is a forked child."""
        self.forked = self.closing = self.is_lost = True
        self.sends_at_once = self.is_open = self.entered = False
        self.lock = threading.RLock()  # a thread of the parent may hold the other one
        self.session.lose()
        self.turns.forget()
        if self._outlet is not None:
            for packet in self._outlet.outbox.forget():
                close_all(packet.fds)
        self.sock.close()

    def check_process(self) -> None:
        """Check that the line belongs to this process.

        Raises:
            WrongProcess: this is a fork of the process that made it.
        """
        if self.forked:
            raise forks.wrong_process("this connection")

    @property
    def peer(self) -> Credentials | None:
        """Who is at the other end; None where each packet tells of its sender."""
        return self._inbox.peer

    def check_reentry(self) -> None:
        """Check, under the lock, that this thread is not in the middle of something here.

        Raises:
            RuntimeError: it is: a finalizer, a signal handler, or what encodes a value, calls in the midst of a call.
        """
        if self.entered and not self._was_left():
            raise self.reentered()

    def _was_left(self) -> bool:
        """Return whether nobody is in the middle of something here, although it looks so, and end then.

        So it is if a second signal handler raised before it was cleaned up after the first.
        """
        with Uninterrupted():
            self.lock.release()
            is_nested = self.lock._is_owned()  # type: ignore[attr-defined] # noqa: SLF001 - Condition uses it as well
            self.lock.acquire()
            if not is_nested:
                self.entered = False
                self.end_by(ConnectionLost("a signal handler interrupted this side in the middle of a message"))
        return not is_nested

    def reentered(self) -> RuntimeError:
        """Return what to raise where this thread is in the middle of something here."""
        who = "a finalizer, a signal handler, or the encoding of a value"
        return RuntimeError(f"{self!r} is in use by this very thread: {who}, calls")

    # What the reading tells

    def take_plain(self, data: bytes) -> Work | None:
        """Take a packet that nothing came with; return what is to be done."""
        with self.lock:
            self.entered = True
            try:
                event = self.session.receive_packet(data, [], self._inbox.peer)
            except RemoteProtocolError as exc:
                event = None
                self._end_malformed(exc)
            finally:
                self.entered = False
            if type(event) is Response and not self.room.waiting:
                waiter: Waiter = event.waiter
                event.waiter = None  # the waiter refers to this answer
                waiter.finish(event)
                return None
            return self._handle(event, self._inbox.peer)

    def take_packet(
        self, data: bytes, fds: list[OwnedFd], sender: Credentials | None, *, lost: bool = False
    ) -> Work | None:
        """Take any packet; return what is to be done."""
        with self.lock:
            self.entered = True
            try:
                event = self.session.receive_packet(data, fds, sender, lost=lost)
            except RemoteProtocolError as exc:
                self._end_malformed(exc)
                return None
            finally:
                self.entered = False
            return self._handle(event, sender)

    def take_trouble(self, trouble: Trouble, size: int) -> None:
        """End: the other side did, or broke the protocol."""
        with self.lock:
            if trouble is Trouble.END:
                self.end_by(self.broken)
            else:
                text = f"a packet has at most {MAX_PACKET} bytes, this one {size} or more"
                self._end_malformed(RemoteProtocolError(text))

    def receive_failed(self, exc: OSError) -> bool:
        """Handle a failure to receive; return whether to go on at once."""
        if isinstance(exc, BlockingIOError | InterruptedError):
            return False
        with self.lock:
            if self.broken is not None or not hides_packets(exc):
                self.end_by(exc)
            else:
                self.broke(exc)
        return True

    def take_again(self, data: bytes) -> bool:
        """Return whether an answer that was interrupted may be taken again.

        It may if its call has not got it yet, or is the one that was interrupted. If it is another one, which has got
        it and may not have heard, that would wait for ever.
        """
        with self.lock:
            self.room.next()
            head, session, leader = head_of(data), self.session, self.turns.leader
            if head is None:
                return True
            if head.kind != RESPONSE:  # who has taken a request owes it an answer
                return head.kind == REQUEST and head.call_id not in session.requests
            if head.call_id in session.calls or head.call_id in session.given_up:
                return True
            return type(leader) is Waiter and leader not in session.calls.values()

    def _handle(self, event: Event | None, sender: Credentials | None) -> Work | None:
        """Give what a packet asks for to whom it concerns, under the lock; return what this thread is to do."""
        work: Work | None = None
        if isinstance(event, Response):
            waiter, event.waiter = event.waiter, None
            if waiter.is_done:
                close_all(event.fds)
            waiter.finish(event)
        elif isinstance(event, Request):
            asked = _Asked(self, event, sender)
            if event.call_id is not None:
                self.session.requests[event.call_id] = asked
            self.turns.works.append(asked)
            work = self.turns.serve
        elif isinstance(event, Refused):
            if event.call_id is not None:
                self.answer(*self.session.send_error(event.call_id, event.code, event.message))
            self.handler.request_refused(event, sender)
        elif isinstance(event, Closing):
            self._tell(_log.debug, "= %r takes no new requests: %s", shown(event.reason))
            self.room.fail(unavailable(self.session.closing_received))
            self.is_open = False
        self.room.next()
        return work

    def _tell(self, log: Callable[..., object], text: str, what: object) -> None:
        """Log something once no lock is held: a handler of logging may use this very connection, and wait for it."""
        self.family.errands.append(functools.partial(log, text, self, what))

    def answer(self, data: Content, lenders: Sequence[Any] = ()) -> None:
        """Send an error that refuses a request; a peer that does not read its answers is not answered for ever."""
        with contextlib.suppress(OSError):
            self.send(data, lenders)
        self.bound_unsent()

    def bound_unsent(self) -> None:
        """End the connection if the other side lets too many answers wait."""
        if self.unsent_bytes > self.limits.max_unsent_bytes + self.limits.max_message_bytes:
            self.end_by(ConnectionLost(f"the other side left {self.unsent_bytes} bytes of answers unread"))

    # As a pump: what others ask of us while our threads wait for something else

    def interest(self) -> tuple[int, int]:
        """Return what to watch for."""
        if self.is_lost:
            return -1, 0
        if self.turns.works or self.reading.left_over is not None:  # a signal handler came between
            return self.fd, 0
        return self.fd, READ | WRITE if self.wants_room()[0] else READ

    @property
    def retry_at(self) -> int | None:
        """When to go on although the socket does not say so."""
        return self.wants_room()[1]

    def work(self) -> bool:
        """Take one packet that is there, and do what it asks for; return whether there was one."""
        return self.turns.work()

    # Ending

    def end(self, reason: str) -> None:
        """End it now, and tell the other side why."""
        self.refuse(reason)
        self.close()

    def waiting_error(self) -> ConnectionLost | WrongProcess:
        """Return what ends the waiting: why the connection ended, or that this child was forked meanwhile."""
        if not self.forked:
            return self.lost_error()
        error = forks.wrong_process("this connection")
        error.execution = Execution.MAY_HAVE_RUN  # as the parent's call
        return error

    def lost_error(self) -> ConnectionLost:
        """Return why the connection ended."""
        return lost(self._reason, self.session.closing_received)

    def _end_malformed(self, exc: RemoteProtocolError) -> None:
        self._tell(_log.info, "x %r: %s", exc)
        self.entered = False
        reason = exc.with_traceback(None)  # its frames hold what was received, including buffers
        self._say_closing(str(exc))
        self.end_by(reason)

    def _say_closing(self, reason: str) -> None:
        packet = self.session.send_closing(reason)
        if packet is not None:
            with contextlib.suppress(OSError):
                self.send(*packet)

    def refuse(self, reason: str) -> None:
        """Take no new requests."""
        with self.lock:
            if not self.is_lost:
                self._say_closing(reason)

    def end_by(self, exc: Exception | None) -> None:
        """End the connection now, and tell the reason to those who wait; None if there is no more to tell."""
        with Uninterrupted(), self.lock:
            if self.is_lost:
                return
            self.is_lost = self.closing = True
            self.sends_at_once = self.is_open = False
            self._discards = exc is None
            self._reason = self._reason or exc
            if self._outlet is not None:
                self._outlet.drop()
            for waiter in self.session.lose():
                waiter.finish(error=self.lost_error())
            self.room.fail(None)
            while self._flushers:
                self._flushers.popitem()[0].finish(error=self.lost_error())
            self.family.discard(self)
            self.turns.wake_leader()
            self.close_unused()
            self.handler.line_lost()

    def close_unused(self) -> None:
        """Close the socket of a line that has ended if no thread uses it any more, under the lock."""
        if self.turns.is_reading:
            return
        self.turns.close()
        if self.sock.fileno() >= 0:  # else it was given back, or closed before
            self.reading.drop()
            close_unread(self.sock, self._inbox.uid, discard=self._discards)
            self._kept.detach()

    def read_rest(self) -> None:
        """Read what the other side sent before it went, or let the thread read it that reads: it may have said why."""
        for _ in range(_MOST_LEFT):
            if self.is_lost or not self.turns.work():
                break
        if self.turns.is_reading and not self.turns.is_mine:
            self._wait_for_rest()
        self.end_by(self.broken)

    def _wait_for_rest(self) -> None:
        """Wait until the thread that reads has found the end, but not for ever: the other side may still write."""
        waiter = Bystander()
        with self.lock:
            if self.is_lost:
                return
            self._flushers[waiter] = None
            self.turns.wake_leader()
        try:
            with contextlib.suppress(DeadlineExceeded):
                self.turns.wait(waiter, time.monotonic_ns() + int(self.limits.close_timeout * 1e9))
        finally:
            self._flushers.pop(waiter, None)

    @property
    def is_unclosed(self) -> bool:
        """Whether it is open, and neither side has begun to close it."""
        return not self.closing and not self.is_lost and not self.forked

    def close(self) -> None:
        """End the connection: what is unsent is sent within ``close_timeout``; calls both ways are given up."""
        if self.forked or self.is_lost:
            return
        try:
            with self.lock:
                if self._reason is None:
                    self._reason = closed_here("with")
                self.closing, self.sends_at_once = True, False
            self._flush_last()
        finally:
            try:
                self._end_here()
            except BaseException:  # a signal handler came between
                self._end_here()
                raise

    def _end_here(self) -> None:
        self.end_by(None)
        with contextlib.suppress(OSError):  # a thread that waits for a packet is to wake up
            self.sock.shutdown(socket.SHUT_RDWR)

    def close_family(self) -> None:
        """End the connection, and what others hold of it."""
        if self.forked:
            return
        self.close()
        for pump in list(self.family.pumps):
            pump.end("the connection of its service ended")
        self.family.run_errands()

    def abandon(self) -> None:
        """End it without waiting: nobody refers to it any more."""
        if self._reason is None:
            self._reason = closed_here("with")
        self.end_by(None)

    def _flush_last(self) -> None:
        """Wait until what is unsent was taken, for ``close_timeout`` at most."""
        until = time.monotonic_ns() + int(self.limits.close_timeout * 1e9)
        outlet = self._outlet
        while outlet is not None and outlet.waits and not self.is_lost and time.monotonic_ns() < until:
            wants_room, retry_at = self.wants_room()
            poll([(self.fd, WRITE)] if wants_room else [], (), earlier(until, retry_at))
            self.flush()

    def detach(self) -> socket.socket | None:
        """Give the socket back, owned by the caller, if no call is under way in either direction, else None.

        Raises:
            WrongProcess: the connection belongs to another process.
        """
        self.check_process()
        # Another thread may hold this lock, encode this channel's neighbour, and want the lock that this one holds.
        if not self.lock.acquire(timeout=_DETACH_SECONDS):
            return None
        try:
            session = self.session
            busy = session.calls or session.given_up or session.requests or session.closing_received is not None
            if busy or self.turns.is_reading or self.closing or self.unsent_packets:
                return None
            self.reading.leave()
            sock = socket.socket(fileno=self.sock.detach())
            self.turns.close()
            self._kept.detach()
            self._reason = ConnectionLost("the connection was passed on")
            self.end_by(None)
            return sock
        finally:
            self.lock.release()

    def request_refused(self, call_id: int, waiter: Waiter, exc: OSError) -> None:
        """Fail a call whose packet the kernel did not take: the other side never hears of it."""
        self.session.calls.pop(call_id, None)
        self.session.given_up.discard(call_id)
        waiter.finish(error=explain_refusal(exc))
        self.room.next()

    def unavailable(self) -> RpcError:
        """Return what to raise in a call that the other side does not take any more."""
        return unavailable(self.session.closing_received)

    def __repr__(self) -> str:
        """Return the state, and who is at the other end, as people know it."""
        return f"<Connection {'closed' if self.is_lost else 'open'} peer={self.peer}>"


class _Asked:
    """A request that was read, until it is answered.

    Args:
        line: whose it is.
        request: what is asked for.
        sender: who asks.
    """

    __slots__ = ("_line", "_request", "_sender")

    def __init__(self, line: Line, request: Request, sender: Credentials | None) -> None:
        self._line = line
        self._request = request
        self._sender = sender

    def serve(self) -> None:
        """Answer it."""
        self._line.handler.serve(self._request, self._sender)

    def interrupted(self) -> None:
        """Answer it if it was not: a signal handler came between."""
        line, call_id = self._line, self._request.call_id
        with line.lock, Uninterrupted():
            if call_id is not None and line.session.requests.get(call_id) is self:
                packed = line.session.send_error(call_id, "rpc.Cancelled", "the work was interrupted")
                if not line.is_lost:
                    line.answer(*packed)
        close_all(self._request.fds)
