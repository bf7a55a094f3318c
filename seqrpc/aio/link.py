"""A session on a transport: to call and to be called. It knows no services; a :class:`CallHandler` does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from asyncio import get_running_loop
from typing import Any, Protocol

from seqrpc.aio.failures import refusal_of, told_internal
from seqrpc.aio.packets import SeqpacketProtocol
from seqrpc.aio.places import check_loop, runs_here, wrong_loop, wrong_process
from seqrpc.aio.transport import SeqpacketTransport, carrier_of
from seqrpc.aio.turns import Turns
from seqrpc.errors import (
    ConnectionLost,
    DeadlineExceeded,
    DescriptorsLost,
    Overloaded,
    RemoteProtocolError,
    RpcError,
    Unavailable,
    WrongLoop,
    WrongProcess,
)
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.signature import Params
from seqrpc.kernel import forks
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.pieces import Content
from seqrpc.limits import DEFAULT_LIMITS, LONGEST_TIMER, MAX_PACKET, Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.lenders import Lender, give_up_lenders, tell_sent, tell_unsent
from seqrpc.protocol.messages import Cancel, Closing, Request, Response
from seqrpc.protocol.session import Refused, Session
from seqrpc.protocol.spilled import write_spilled
from seqrpc.protocol.values import Living, descriptors_in
from seqrpc.text import shown

_log = get_logger("seqrpc.connection")

_SHORT_TEXT = 200  # characters of an error that is told to a peer that does not read
_PACKET_COST = 256  # bytes that an unsent packet costs besides its content

_UNSENT = (OSError, WrongProcess)
"""What sending raises where a message is of no use any more; in a forked child, whoever goes on there is not told."""

Waiter = asyncio.Future[Response]


class CallHandler(Protocol):
    """Answers the calls that come in on one connection."""

    def connection_made(self, connection: SessionConnection) -> None:
        """Remember the connection."""
        ...

    def refusal(self, method: str, caller: Credentials | None) -> tuple[str, str] | None:
        """Return code and message of the error for a caller who may not call a method, before its request is read.

        Short and plain requests are read at once, and are not asked for: ``request.is_admitted`` tells.
        """
        ...

    def lack_of_room(self, size: int) -> str | None:
        """Return why a request cannot be taken that keeps so many bytes in memory; None if it can."""
        ...

    def request_received(self, request: Request, caller: Credentials | None) -> None:
        """Take a request and, unless its ``call_id`` is None, see that it is answered once.

        ``request.fds`` are the handler's to close.
        """
        ...

    def cancel_received(self, call_id: int) -> None:
        """Stop the work on a request as soon as possible; it is still to be answered."""
        ...

    def connection_lost(self) -> None:
        """Stop all work: nobody waits for it any more."""
        ...


class SessionConnection(SeqpacketProtocol):
    """One end of a connection.

    Args:
        handler: who answers the other side's calls.
        limits: bounds of this connection.
        living: what streams and channels are here.
    """

    def __init__(self, handler: CallHandler, limits: Limits = DEFAULT_LIMITS, living: Living | None = None) -> None:
        """Prepare; the transport calls ``connection_made``."""
        self._handler = handler
        self._limits = limits
        self._max_calls = limits.max_calls_in_flight
        self._session: Session[Waiter] = Session(limits, living)
        self._loop = asyncio.get_running_loop()
        self._home: asyncio.AbstractEventLoop | None = self._loop  # where it can be used; nowhere in a forked child
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._turns = Turns(self._loop, self._has_room, limits.stall_timeout, self._stalled)
        self._transport: SeqpacketTransport
        self._sender: Credentials | None = None  # of the packet that is being received
        self._writing_paused = False
        self._close_timer: asyncio.TimerHandle | None = None
        self._reason: Exception | None = None
        forks.register(self, SessionConnection._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Be of no use: this is a copy in a forked child. Its transport has closed, or will close, the socket."""
        self._home = None
        self._session.lose()  # else calls that are given up would be cancelled at the other side

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that the connection belongs to."""
        return self._loop

    def _misuse(self) -> WrongProcess | WrongLoop:
        """Return what to raise where the connection is used from elsewhere."""
        return wrong_process("this connection") if self._home is None else wrong_loop("this connection", self._loop)

    def check_process(self) -> None:
        """Check that the connection belongs to this process.

        Raises:
            WrongProcess: this is a fork of the process that made it.
        """
        if self._home is None:
            raise self._misuse()

    def check_place(self) -> None:
        """Check that the connection can be used here.

        Raises:
            WrongProcess: this is a fork of the process that made it.
            WrongLoop: its event loop does not run in this thread.
        """
        if self._home is None or not runs_here(self._home):
            raise self._misuse()

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        assert isinstance(transport, SeqpacketTransport)
        self._transport = transport
        self._session.on_work = carrier_of(transport).intake.end_wakeup
        self._session.refusal = self._refusal
        self._session.lack_of_room = self._handler.lack_of_room
        self._handler.connection_made(self)

    def _refusal(self, method: str) -> tuple[str, str] | None:
        return self._handler.refusal(method, self._sender)

    def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: Credentials | None) -> None:
        """Take a packet apart and pass it on to whom it concerns."""
        self._sender = credentials
        try:
            event = self._session.receive_packet(data, fds)
        except RemoteProtocolError as exc:
            self._end_malformed(exc)
            return
        if isinstance(event, Request):
            if self._writing_paused:
                self._slow_down(event.call_id)
            self._handler.request_received(event, credentials)
        elif isinstance(event, Response):
            waiter = event.waiter
            event.waiter = None  # which will refer to this answer
            if waiter.done():  # given up, and its task has not yet run to say so
                close_all(event.fds)
            else:
                waiter.set_result(event)
            if self._turns.waiting:
                self._turns.next()
        elif event is not None:
            self._rare_event(event)
        elif self._turns.waiting:  # it may have answered a call that was given up
            self._turns.next()

    def descriptors_lost(self, data: bytes, credentials: Credentials | None) -> bool:  # noqa: ARG002
        """Answer, or fail, the one call that the lost descriptors belonged to (protocol 3.3)."""
        try:
            event = self._session.receive_packet(data, [], lost=True)
        except RemoteProtocolError as exc:
            self._end_malformed(exc)
            return True
        if isinstance(event, Response):
            waiter, event.waiter = event.waiter, None
            if not waiter.done():
                waiter.set_result(event)
        elif event is not None and not isinstance(event, Request):  # the session refuses those itself
            self._rare_event(event)
        self._turns.next()
        return True

    def packet_truncated(self, size: int) -> bool:
        """Treat a packet that is too long as malformed (protocol 1.2)."""
        self._end_malformed(RemoteProtocolError(f"a packet has at most {MAX_PACKET} bytes, this one {size} or more"))
        return True

    def packet_too_long(self, data: Content) -> tuple[bytes, OwnedFd]:
        """Let a message that does not fit in a packet go as a memory file (protocol section 5)."""
        return self._session.spill(data), write_spilled(data)

    def _rare_event(self, event: Cancel | Closing | Refused) -> None:
        if isinstance(event, Cancel):
            self._handler.cancel_received(event.call_id)
        elif isinstance(event, Refused):
            self.send_error(event.call_id, event.code, event.message)
            if self._writing_paused:
                self._slow_down(event.call_id)
        else:
            _log.debug("= %r takes no new requests: %s", self, shown(event.reason))
            self._turns.fail(self._unavailable())

    def _slow_down(self, call_id: int | None) -> None:
        """Bound what is kept for a peer that asks on and does not read its answers.

        Not reading its requests is enough, unless we wait for its own answers: then only an end helps.
        """
        if call_id is None:  # it will not be answered
            return
        if not self._session.calls and not self._session.given_up:
            self._transport.pause_reading()
            return
        unsent = self._unsent_bytes()
        if unsent > self._limits.max_unsent_bytes + self._limits.max_message_bytes:  # one large answer may well wait
            self._reason = ConnectionLost(f"the other side left {unsent} bytes of answers unread")
            self._transport.abort()

    def _unsent_bytes(self) -> int:
        """Return what is kept for a peer that does not read."""
        return self._transport.get_write_buffer_size() + _PACKET_COST * self._transport.get_write_buffer_packets()

    def _is_over(self) -> bool:
        """Return whether more is unsent than is to be added to: a short answer must do."""
        return self._writing_paused and self._unsent_bytes() > self._limits.max_unsent_bytes

    def _end_malformed(self, exc: RemoteProtocolError) -> None:
        _log.info("x %r: %s", self, exc)
        self._reason = exc.with_traceback(None)  # its frames hold what came, buffers among it
        self.send_closing(str(exc))
        self._close_transport()

    def pause_writing(self) -> None:
        """Let calls wait."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Let waiting calls go on."""
        self._writing_paused = False
        self._transport.resume_reading()
        self._turns.restart()  # the line did not wait for answers
        self._turns.next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the calls that wait here, stop those that run here."""
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._reason = self._reason or exc
        for waiter in self._session.lose():
            if not waiter.done():
                waiter.set_exception(self._lost_error())
        self._writing_paused = False  # calls that are made from now on fail; nothing would end their waiting
        self._turns.fail(self._lost_error())
        self._handler.connection_lost()
        self._closed.set_result(None)

    def _lost_error(self) -> ConnectionLost:
        """Return why the connection ended, made anew: one that is raised again and again keeps all its tracebacks."""
        cause, said = self._reason, self._session.closing_received
        if isinstance(cause, ConnectionLost):
            error = ConnectionLost(*cause.args)
        else:
            text = "the connection ended"
            if said is not None:
                text = f"{text}; the other side had said: {shown(said)}"
            error = ConnectionLost(text if cause is None else f"{text} ({cause})")
            error.__cause__ = cause
        error.reason = said
        return error

    # Calling

    def _has_room(self, going: int) -> bool:
        in_flight = len(self._session.calls) + len(self._session.given_up)
        return not self._writing_paused and in_flight + going < self._max_calls

    def _stalled(self) -> RpcError | None:
        """Return what to raise in calls that wait for answers, for none comes; None if they wait for something else."""
        in_flight = len(self._session.calls) + len(self._session.given_up)
        if self._writing_paused or in_flight < self._max_calls:
            return None
        text = (
            f"{in_flight} calls of this connection are unanswered (max_calls_in_flight), and no answer came for"
            f" {self._limits.stall_timeout:g} s (stall_timeout)"
        )
        return _of_this_call(Overloaded(text))

    async def request(  # noqa: C901 - calling a function would take longer than the check of the loop
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call, and return what ``finish`` makes of the answer, whose descriptors it then owns.

        A call waits its turn while ``max_calls_in_flight`` are unanswered or the peer does not read; with
        ``max_calls_in_flight`` unanswered for ``stall_timeout`` seconds without any answer it is not sent.

        Args:
            method: ``Service.method``.
            params: by position or by name; descriptors in it are borrowed until this returns or raises.
            deadline: ``CLOCK_MONOTONIC`` in nanoseconds at which to give up, or None.
            meta: for the other side's ``current_call().meta``.
            finish: called with the answer, and the connection's limits; by default it raises an error, or returns a
                result.

        Raises:
            Exception: what ``finish`` raises.
            ConnectionLost: the connection ended; the call may have run.
            Unavailable: the other side takes no new requests; the call did not run.
            DeadlineExceeded: the deadline passed; the other side was told to stop.
            WrongProcess, WrongLoop: the connection belongs to another process, or to another event loop.
            LocalProtocolError, TooLarge, PermissionDenied, Overloaded, OSError, ValueError: it could not be sent.

        Cancel: the other side is told to stop; a call that was not sent never is.
        """
        try:
            is_home = get_running_loop() is self._home
        except RuntimeError:  # none runs: in a forked child, or where coroutines are driven by hand
            is_home = False
        if not is_home:
            raise self._misuse()
        session = self._session
        if self._turns.waiting or self._writing_paused or len(session.calls) >= self._max_calls or session.given_up:
            await self._wait_turn(deadline)
        options = timer = None
        if deadline is not None or meta or session.closing_received is not None:
            self._check_may_call(deadline)
            options = _options(deadline, meta)
        waiter: Waiter = self._loop.create_future()
        try:
            call_id, (data, lenders) = session.send_request(waiter, method, params, options)
        except RpcError as exc:
            _of_this_call(exc)
            raise
        try:
            if lenders or len(data) > MAX_PACKET:
                self._send_request(call_id, waiter, data, lenders)
            else:
                self._transport.send_packet(data)
        except BaseException as exc:
            session.calls.pop(call_id, None)
            tell_unsent(lenders)
            error = await self._explain(exc)
            raise error from error.__cause__
        del data, lenders  # a large message is not to be kept until it is answered
        if deadline is not None:
            timer = self._loop.call_later(_seconds_until(deadline), _expire, waiter)
        try:
            response = await waiter
        except BaseException:
            self._give_up(call_id, waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return finish(response, self._limits)

    def _send_request(self, call_id: int, waiter: Waiter, data: Content, lenders: list[Lender]) -> None:
        """Send a request with descriptors."""
        self._transport.send_packet(data, lenders, functools.partial(self._request_refused, call_id, waiter))
        tell_sent(lenders)

    def _check_may_call(self, deadline: int | None) -> None:
        if self._session.closing_received is not None:
            raise self._unavailable()
        if deadline is not None and deadline <= time.monotonic_ns():
            raise DeadlineExceeded("the deadline passed before the call was sent")

    async def _explain(self, exc: BaseException) -> BaseException:
        """Return what to raise for a packet that could not be sent."""
        if isinstance(exc, ConnectionLost):
            if not self._transport.is_closing():  # what the other side said before it went is still being read
                await self.wait_closed()
            return self._lost_error() if self._session.closing_received is None else self._unavailable()
        return explain_refusal(exc) if isinstance(exc, OSError) else exc

    async def _wait_turn(self, deadline: int | None) -> None:
        """Wait while there is no room for one more call, or others wait for it."""
        if not self._turns.waiting and self._has_room(0):
            return
        self._check_may_call(deadline)
        try:
            async with asyncio.timeout(None if deadline is None else _seconds_until(deadline)):
                await self._turns.wait()
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the call could be sent") from None

    def _request_refused(self, call_id: int, waiter: Waiter, exc: OSError) -> None:
        """Fail a call whose packet the kernel did not take: the other side never hears of it."""
        self._session.calls.pop(call_id, None)
        self._session.given_up.discard(call_id)
        if not waiter.done():
            waiter.set_exception(explain_refusal(exc))
        self._turns.next()

    def _give_up(self, call_id: int, waiter: Waiter) -> None:
        """Clean up after a call that ends without its answer being used."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            close_all(waiter.result().fds)  # it came, and its task was cancelled before it could take it
        packet = self._session.send_cancel(call_id)
        if packet is not None:
            with contextlib.suppress(OSError):  # it is a hint, and may get lost
                self._transport.send_packet(*packet)
        self._turns.next()

    def _unavailable(self) -> RpcError:
        said = self._session.closing_received
        error = Unavailable(f"the other side takes no new requests: {shown(said)}")
        error.reason = said
        return _of_this_call(error)

    async def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer; return when it is on its way. Arguments as for :meth:`request`.

        Raises:
            ConnectionLost, Unavailable, DeadlineExceeded, WrongProcess, WrongLoop, LocalProtocolError, TooLarge,
            PermissionDenied, Overloaded, OSError, ValueError: as :meth:`request`; nothing was sent.

        Cancel: nothing was sent.
        """
        self.check_place()
        if self._turns.waiting or self._writing_paused:
            await self._wait_turn(deadline)
        self._check_may_call(deadline)
        try:
            data, lenders = self._session.send_notify(method, params, _options(deadline, meta))
        except RpcError as exc:
            _of_this_call(exc)
            raise
        try:
            self._transport.send_packet(data, lenders, functools.partial(_log.debug, "! NOTIFY %s: %s", method))
        except BaseException as exc:
            tell_unsent(lenders)
            error = await self._explain(exc)
            raise error from error.__cause__
        tell_sent(lenders)

    # Answering

    def send_result(self, call_id: int, result: Any) -> list[Lender]:
        """Answer a request; return what lent the descriptors of the result, which may be closed now.

        Raises:
            LocalProtocolError, TooLarge, ValueError: the result cannot be sent; the request is still to be answered,
                and the result to be given up.
            Overloaded: as before, for so many bytes of answers are unsent already.
        """
        if self._writing_paused and result is not None and self._is_over():
            raise Overloaded(f"{self._unsent_bytes()} bytes of answers are not read yet (max_unsent_bytes)")
        data, lenders = self._session.send_result(call_id, result)
        if lenders or len(data) > MAX_PACKET:
            self._send_answer(call_id, data, lenders)
        else:
            try:
                self._transport.send_packet(data)
            except _UNSENT as exc:
                self._answer_refused(call_id, False, exc)
        return lenders

    def send_error(self, call_id: int, code: str, message: str, data: Any = None) -> None:
        """Answer a request with an error; what is in ``data`` is given away.

        With ``max_unsent_bytes`` of answers unsent it goes without ``data``, and with the beginning of its message.

        Raises:
            ValueError: a descriptor in ``data`` is closed; the request is still to be answered, and the data given up.
        """
        if self._is_over():
            if data is not None:
                self.give_up(data)
            data, message = None, message[:_SHORT_TEXT]
            code = code if len(code) <= _SHORT_TEXT else "rpc.Overloaded"
        packet, lenders = self._session.send_error(call_id, code, message, data)
        self._send_answer(call_id, packet, lenders)
        close_all([lender for lender in lenders if isinstance(lender, OwnedFd)])

    def give_up(self, value: Any) -> None:
        """Let go of a result, or the data of an error, that nobody gets, as if its receiver had let go at once.

        Descriptors in it are closed, and so are objects that nobody else holds, streams and channels. It may be done
        again, and from any thread.
        """
        if runs_here(self._loop):
            self._session.give_up(value)
            return
        try:
            self._loop.call_soon_threadsafe(self._session.give_up, value)
        except RuntimeError:  # the loop is closed, and so are the objects that it had
            close_all(descriptors_in(value))

    def _send_answer(self, call_id: int, data: Content, lenders: list[Lender]) -> None:
        failed = None
        if lenders or len(data) > MAX_PACKET:
            failed = functools.partial(self._answer_refused, call_id, bool(lenders))
        try:
            self._transport.send_packet(data, lenders, failed)
        except _UNSENT as exc:
            give_up_lenders(lenders)
            self._answer_refused(call_id, bool(lenders), exc)
        except BaseException:
            give_up_lenders(lenders)
            raise
        else:
            tell_sent(lenders)

    def _answer_refused(
        self,
        call_id: int,
        has_descriptors: bool,  # noqa: FBT001 - not public
        exc: OSError | WrongProcess,
    ) -> None:
        """Answer without what the kernel would not take; if it takes not even that, the connection ends."""
        if isinstance(exc, ConnectionLost | WrongProcess):
            return
        refusal = refusal_of(exc)
        if refusal is None and has_descriptors:
            refusal = DescriptorsLost(f"the descriptors of the answer could not be sent: {exc.strerror}")
        if refusal is None:
            code, message = told_internal(exc, repr(self), "could not send an answer")
        else:
            code, message = refusal.code, refusal.message
            _log.warning("! %r: an answer cannot be sent: %s", self, exc)
        try:
            self._transport.send_packet(*self._session.send_error(call_id, code, message))
        except ConnectionLost:
            return
        except OSError as another:
            self._reason = another
            self._transport.abort()

    def send_closing(self, reason: str) -> None:
        """Say that this side takes no new requests; those that come are refused (protocol 2.8)."""
        packet = self._session.send_closing(reason)
        if packet is not None:
            with contextlib.suppress(*_UNSENT):
                self._transport.send_packet(*packet)

    # Ending

    @property
    def closed(self) -> bool:
        """True once the connection has ended; a copy in a forked child never was one."""
        return self._home is None or self._closed.done()

    def _close_transport(self) -> None:
        self._transport.close()
        if self._close_timer is None and not self.closed:
            self._close_timer = self._loop.call_later(self._limits.close_timeout, self._transport.abort)

    def detach(self) -> socket.socket | None:
        """Give the socket back, owned by the caller, if no call is under way in either direction, else None.

        The connection is over then, without a word to the other side.

        Raises:
            WrongProcess, WrongLoop: the connection belongs to another process, or to another event loop.
        """
        self.check_place()
        session = self._session
        if session.calls or session.given_up or session.requests or session.closing_received is not None:
            return None
        sock = self._transport.detach()
        if sock is not None:
            self._reason = ConnectionLost("the connection was passed on")
            self._handler.connection_lost()
            self._closed.set_result(None)
        return sock

    async def close(self) -> None:
        """End the connection: what is unsent is sent within ``close_timeout``; calls both ways are given up.

        In a forked child this does nothing: the connection is the parent's. If its event loop has ended, there
        is nobody to wait for, and only the socket is closed.

        Raises:
            WrongLoop: the connection belongs to another event loop.

        Cancel: the closing goes on.
        """
        if self.closed:
            return
        if self._loop.is_closed():
            self.abandon()
            return
        check_loop("this connection", self._loop)
        self._begin_close()
        await self.wait_closed()

    def _begin_close(self) -> None:
        if self._reason is None:
            self._reason = ConnectionLost("the connection was closed on this side")
        self._close_transport()

    def abandon(self) -> None:
        """Close without waiting for it; from any thread, and also when the loop runs no more."""
        loop = self._loop
        if self._home is None:
            return
        if not loop.is_running():
            if not loop.is_closed():  # it may run again, and must not watch a number that is somebody else's then
                self._transport.abort()
            self._transport.get_extra_info("socket").close()
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
        await asyncio.shield(self._closed)


def explain_refusal(exc: OSError) -> Exception:
    """Return what to raise for a packet that the kernel does not take."""
    refusal = refusal_of(exc)
    return exc if refusal is None else _of_this_call(refusal)


def _of_this_call(error: RpcError) -> RpcError:
    """Mark an error as one that a call met: in a handler that does not expect it, it is not the handler's answer."""
    error.remote = True
    return error


def _options(deadline: int | None, meta: dict[str, str] | None) -> dict[str, Any] | None:
    if deadline is None and not meta:
        return None
    options: dict[str, Any] = {}
    if deadline is not None:
        options["deadline"] = deadline
    if meta:
        options["meta"] = meta
    return options


def _seconds_until(deadline: int) -> float:
    return min(max(0.0, (deadline - time.monotonic_ns()) / 1e9), LONGEST_TIMER)


def _expire(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_exception(DeadlineExceeded("the deadline passed before the answer came"))
