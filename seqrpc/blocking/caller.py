"""Making calls over one line, in the thread that calls."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import Any

from seqrpc.blocking.line import Line
from seqrpc.blocking.producers import StreamDeparture
from seqrpc.blocking.waiting import Waiter
from seqrpc.calls.outcomes import check_open, explain_refusal, note_unsent, options_of
from seqrpc.errors import ConnectionLost, DeadlineExceeded, LocalProtocolError, RpcError, not_run
from seqrpc.interface.answers import Finish, result_of
from seqrpc.kernel.ancillary import SEND_FLAGS
from seqrpc.kernel.descriptors import close_all
from seqrpc.kernel.interrupts import Uninterrupted, is_of_handler, release
from seqrpc.kernel.pieces import Content
from seqrpc.limits import MAX_PACKET
from seqrpc.logs import get_logger
from seqrpc.protocol.lenders import Lender, tell_sent, tell_unsent
from seqrpc.protocol.messages import Params

_log = get_logger("seqrpc.connection")


class Caller:
    """Makes calls: each is sent, and waits for its answer.

    Args:
        line: the connection.
    """

    __slots__ = ("__weakref__", "_limits", "_line", "_most", "_session", "guard")

    def __init__(self, line: Line) -> None:
        """Begin with no call."""
        self._line = line
        self._session = line.session
        self._limits = line.limits
        self._most = line.limits.max_calls_in_flight
        self.guard: object | None = None
        """What is to be dropped with this (:class:`~seqrpc.calls.unclosed.Guard`)."""

    def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call, and return what ``finish`` makes of the answer, whose descriptors it then owns.

        A call waits its turn while ``max_calls_in_flight`` are unanswered; with that many unanswered for
        ``stall_timeout`` seconds without any answer it is not sent.

        Args:
            method: ``Service.method``.
            params: by position or by name; descriptors in it are borrowed until this returns or raises.
            deadline: ``CLOCK_MONOTONIC`` in nanoseconds at which to give up, or None.
            meta: for the other side's ``current_call().meta``.
            finish: called with the answer, and the connection's limits; by default it raises an error, or returns a
                result.

        Raises:
            Exception: what ``finish`` raises, or a signal handler: then the other side is told to stop.
            ConnectionLost: the connection ended; the call may have run, unless ``execution`` says that it did not.
            Unavailable: the other side takes no new requests; the call did not run.
            DeadlineExceeded: the deadline passed; the other side was told to stop.
            WrongProcess: the connection belongs to another process.
            LocalProtocolError, TooLarge, PermissionDenied, Overloaded, OSError, ValueError: it could not be sent.
        """
        line = self._line
        waiter = Waiter()
        try:
            if deadline is not None or meta or not self._send_quickly(waiter, method, params):
                self._send_slowly(waiter, method, params, _Options(deadline, meta))
            line.turns.wait(waiter, deadline)
            if waiter.pumps:
                _end([*waiter.pumps])
        except BaseException as exc:
            try:
                self._give_up(waiter)
            except BaseException:  # a second signal handler, which may have come before it began
                self._give_up(waiter)
                raise
            if waiter.call_id is None:
                self._raise_explained(exc, method, params)
            raise
        if waiter.error is not None:
            raise waiter.error
        try:
            return finish(waiter.answer, self._limits)
        except BaseException as exc:
            if not isinstance(exc, RpcError):  # a signal handler came between: nobody gets what came
                close_all(waiter.answer.fds)
            raise

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call a method that may run twice, as :meth:`request`."""
        return self.request(method, params, deadline, meta, finish)

    def _send_quickly(self, waiter: Waiter, method: str, params: Params) -> bool:
        """Send a call if it is nothing special; return False if it must wait."""
        line, session = self._line, self._session
        if line.lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001 - others wait for who holds it
            raise line.reentered()
        with line.lock:
            if line.entered:
                line.check_reentry()
            if not line.is_open or len(session.calls) + len(session.given_up) >= self._most:
                return False
            if not line.sends_at_once and line.unsent_bytes > self._limits.high_water_bytes:
                return False
            line.entered = True
            lenders: list[Lender] = []
            try:
                call_id, (data, lenders) = session.send_request(waiter, method, params)
                if lenders or len(data) > MAX_PACKET or not line.sends_at_once:
                    self._send(waiter, call_id, data, lenders)
                else:
                    waiter.call_id = call_id  # Python looks for signals after calls, and so not before this has left
                    try:
                        line.sock.send(data, SEND_FLAGS)  # type: ignore[arg-type] # pieces are longer
                    except OSError as exc:
                        if is_of_handler(exc):
                            raise
                        self._send(waiter, call_id, data, lenders)
            except BaseException:
                self._failed(waiter, lenders)
                raise
            line.entered = False
            line.turns.take(waiter)
        return True

    def _send_slowly(self, waiter: Waiter, method: str, params: Params, options: _Options) -> None:
        """Send a call that has a deadline, or metadata, or must wait."""
        line = self._line
        line.check_process()
        turn: Waiter | None = None
        try:
            while True:
                if turn is None and line.room.is_full:
                    self._check_may_call(options.deadline)
                    turn = line.room.wait(options.deadline)
                line.wait_for_room(options.deadline)
                with line.lock:
                    line.check_reentry()
                    self._check_may_call(options.deadline)
                    if turn is None and line.room.is_full:  # by another thread, meanwhile
                        continue
                    self._begin(waiter, method, params, options)
                    return
        finally:
            if turn is not None:
                try:
                    line.room.gone(turn)
                except BaseException:  # a signal handler came between; others wait for this
                    line.room.gone(turn)
                    raise

    def _begin(self, waiter: Waiter, method: str, params: Params, options: _Options) -> None:
        """Send a call, under the lock."""
        self._line.entered = True
        lenders: list[Lender] = []
        try:
            call_id, (data, lenders) = self._session.send_request(waiter, method, params, options.sent)
            self._send(waiter, call_id, data, lenders)
        except BaseException:
            self._failed(waiter, lenders)
            raise

    def _failed(self, waiter: Waiter, lenders: list[Lender]) -> None:
        """Clean up under the lock after sending failed, or was interrupted: no other thread is to find it half done."""
        with Uninterrupted():
            self._line.entered = False
            if waiter.call_id is None:  # it has not left
                calls = self._session.calls
                for call_id in [call_id for call_id, other in calls.items() if other is waiter]:
                    del calls[call_id]
                tell_unsent(lenders)  # those that were not told when it was refused
        release()

    def _send(self, waiter: Waiter, call_id: int, data: Content, lenders: list[Lender]) -> None:
        """Send a request in the slow way, with all that goes with it."""
        line = self._line
        failed = None
        if lenders or len(data) > MAX_PACKET:
            failed = functools.partial(line.request_refused, call_id, waiter)
        with Uninterrupted():  # what is raised at its end finds a call that was sent
            waiter.call_id = call_id
            try:
                line.send(data, lenders, failed)
            except BaseException:
                waiter.call_id = None
                told, lenders[:] = [*lenders], []
                tell_unsent(told)
                raise
            streams = [lender for lender in lenders if isinstance(lender, StreamDeparture)]
            for stream in streams:  # they go on in this thread only, and as long as the call does
                stream.keep_apart()
            tell_sent(lenders)
            waiter.pumps = [stream.producer for stream in streams]
            line.entered = False
        release()

    def _check_may_call(self, deadline: int | None) -> None:
        if self._line.is_lost:
            raise not_run(self._line.lost_error())
        if self._session.closing_received is not None:
            raise self._line.unavailable()
        if deadline is not None and deadline <= time.monotonic_ns():
            raise not_run(DeadlineExceeded("the deadline passed before the call was sent"))

    def _give_up(self, waiter: Waiter) -> None:
        """Clean up after a call that ends without its answer being used. It may be repeated."""
        line = self._line
        with Uninterrupted():
            line.turns.leave(waiter)  # it may have been about to read
            with line.lock:
                if line.forked or waiter.call_id is None:
                    return
                if waiter.answer is not None:
                    close_all(waiter.answer.fds)  # the answer came as well
                if self._session.calls.get(waiter.call_id) is waiter:
                    self._cancel(waiter.call_id)
        if waiter.pumps:
            _end([*waiter.pumps])  # code of the application's runs in it

    def _cancel(self, call_id: int) -> None:
        packet = self._session.send_cancel(call_id)
        if packet is not None:
            with contextlib.suppress(OSError):  # a cancel is a hint, and may get lost
                self._line.send(*packet)
        self._line.room.next()

    def _raise_explained(self, exc: BaseException, method: str, params: Params) -> None:
        """Raise what is to be raised for a call that could not be sent, if that is not ``exc`` itself."""
        line = self._line
        if isinstance(exc, RpcError | LocalProtocolError) and not isinstance(exc, DeadlineExceeded):
            note_unsent(exc, method, params)
            return
        if isinstance(exc, ConnectionLost):
            if not line.closing and line.broken is not None:  # what the other side sent before it went is still unread
                line.read_rest()
            has_closed = self._session.closing_received is not None
            error = line.unavailable() if has_closed else not_run(line.lost_error())
            raise error from error.__cause__
        if isinstance(exc, OSError | ValueError):
            check_open(exc, method, params)
            explained = explain_refusal(exc) if isinstance(exc, OSError) else exc
            if explained is not exc:
                raise explained from explained.__cause__

    def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer; return when the call has left. Arguments as for :meth:`request`.

        Raises:
            ConnectionLost, Unavailable, DeadlineExceeded, WrongProcess, LocalProtocolError, TooLarge, PermissionDenied,
            Overloaded, OSError, ValueError: as :meth:`request`; nothing was sent.
        """
        line = self._line
        line.check_process()
        try:
            line.wait_for_room(deadline)
            with line.lock:
                line.check_reentry()
                self._check_may_call(deadline)
                self._notify(method, params, options_of(deadline, meta))
        except Exception as exc:
            self._raise_explained(exc, method, params)
            raise
        line.flush_all(deadline)

    def _notify(self, method: str, params: Params, options: dict[str, Any] | None) -> None:
        """Send a call that wants no answer, under the lock."""
        line = self._line
        line.entered = True
        lenders: list[Lender] = []
        try:
            data, lenders = self._session.send_notify(method, params, options)
            with Uninterrupted():  # what is raised at its end finds a call that was sent
                sending, lenders = lenders, []
                try:
                    line.send(data, sending, functools.partial(_log.debug, "! NOTIFY %s: %s", method))
                except BaseException:
                    tell_unsent(sending)
                    raise
                tell_sent(sending)
        finally:
            line.entered = False
            tell_unsent(lenders)  # a signal handler came before
            release()

    def let_go(self) -> None:
        """Do nothing: a connection is held by whoever made it, not by its proxies."""

    def __repr__(self) -> str:
        """Return the state of the connection, and who is at the other end."""
        return repr(self._line)


class _Options:
    """What a call has besides a method and arguments."""

    __slots__ = ("deadline", "sent")

    def __init__(self, deadline: int | None, meta: dict[str, str] | None) -> None:
        self.deadline = deadline
        self.sent = options_of(deadline, meta)


def _end(pumps: list[Any]) -> None:
    """End the streams that were produced for a call, all of them, whatever their sources raise at their ends."""
    try:
        pumps.pop().end("the call that it was given to has ended")
    finally:
        if pumps:
            _end(pumps)
