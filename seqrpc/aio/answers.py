"""The answers that leave over one connection."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Protocol

from seqrpc.aio.accounts import UNSENT_BYTES
from seqrpc.aio.calls import Line
from seqrpc.aio.places import runs_here
from seqrpc.calls.failures import internal_error, refusal_of
from seqrpc.errors import ConnectionLost, DescriptorsLost, Overloaded, PermissionDenied, TooLarge, WrongProcess
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.pieces import Content
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.closed import closed_in
from seqrpc.protocol.lenders import Lender, give_up_lenders, tell_sent
from seqrpc.protocol.values import descriptors_in

_log = get_logger("seqrpc.connection")

_SHORT_TEXT = 200  # characters of an error message that a peer that does not read is sent
_PACKET_COST = 256  # bytes that an unsent packet costs besides its content

_GIVEN_AWAY = "what a handler returns is given away: return it open, and not out of its 'with' block"

_UNSENT = (OSError, WrongProcess)
"""What sending raises where a message is of no use any more; in a forked child, whoever goes on there is not told."""


class Check(Protocol):
    """Checks that what a handler returned fits its annotation."""

    exact: type | None
    """The type whose values fit, if there is one; for those :meth:`check` need not be called."""

    def check(self, result: Any) -> None:
        """Raise InvalidResult if it does not."""
        ...


class Answers:
    """Sends answers, and bounds what is kept for a peer that does not read them.

    Args:
        line: the connection.
        limits: ``max_unsent_bytes`` and ``max_message_bytes`` are used.
    """

    __slots__ = ("_limits", "_line", "replaced")

    def __init__(self, line: Line, limits: Limits) -> None:
        """Begin with nothing unsent."""
        self._line = line
        self._limits = limits
        self.replaced: Callable[[int, str], object] | None = None
        """Called with id and code of an error that is sent in place of an answer that the kernel would not take."""

    def send_result(self, call_id: int | None, result: Any, check: Check | None = None) -> list[Lender]:
        """Answer a request, and close the descriptors in the result: a handler gives away what it returns.

        Args:
            call_id: of the request; None for one that wants no answer, whose result is given up.
            result: what the handler returned.
            check: checks that the result fits; None if nothing has to be checked.

        Returns:
            What lent descriptors to the answer.

        Raises:
            InvalidResult, LocalProtocolError, TooLarge, ValueError: the result does not fit, or cannot be sent; the
                request is still to be answered, and the result to be given up.
            Overloaded: as above; too many bytes of answers are unsent already.
        """
        if call_id is None:
            self.give_up(result)
            return []
        if check is not None and type(result) is not check.exact:
            check.check(result)
        line = self._line
        if line.writing_paused and result is not None and self._is_over():
            raise Overloaded(f"{self.unsent_bytes} bytes of answers are not read yet (max_unsent_bytes)")
        data, lenders = line.session.send_result(call_id, result)
        if lenders or len(data) > MAX_PACKET:
            lack = self._lack(data, lenders)
            if lack is not None:
                give_up_lenders(lenders)
                if self.replaced is not None:
                    self.replaced(call_id, "rpc.Overloaded")
                self._send(call_id, *line.session.send_instead(call_id, "rpc.Overloaded", lack))
                return []
            self._send(call_id, data, lenders, result)
        else:
            try:
                line.transport.send_packet(data)
            except _UNSENT as exc:
                self._refused(call_id, False, exc)
        return lenders

    def _lack(self, data: Content, lenders: list[Lender]) -> str | None:
        """Return why a long answer, or one with descriptors, cannot be kept until it is read; None if it can."""
        long_bytes = len(data) if len(data) > MAX_PACKET else 0
        return self._line.in_flight.lack(len(lenders) + (long_bytes > 0), long_bytes)

    def _send(self, call_id: int, data: Content, lenders: list[Lender], result: Any = None) -> None:
        """Send an answer, and close the descriptors that were given away with it.

        Raises:
            ValueError: one is closed; of a result, the message says which.
        """
        failed = None
        long_bytes = len(data) if len(data) > MAX_PACKET else 0
        number = len(lenders) + (long_bytes > 0)
        if number:
            failed = functools.partial(self._refused, call_id, bool(lenders))
        try:
            self._line.transport.send_packet(data, lenders, failed)
        except _UNSENT as exc:
            give_up_lenders(lenders)
            self._refused(call_id, bool(lenders), exc)
        except BaseException as exc:
            closed = closed_in(result, "the result") if isinstance(exc, ValueError) else None
            give_up_lenders(lenders)
            if closed is not None:
                raise ValueError(f"{closed}; {_GIVEN_AWAY}") from None
            raise
        else:
            tell_sent(lenders)
            if number:
                self._line.in_flight.sent(number, long_bytes)
                if long_bytes:
                    self._line.watch_unread()
        close_all([lender for lender in lenders if isinstance(lender, OwnedFd)])

    def send_error(self, call_id: int, code: str, message: str, data: Any = None) -> None:
        """Answer a request with an error; what is in ``data`` is given away.

        If ``max_unsent_bytes`` of answers are unsent, it goes without ``data`` and with a shortened message.

        Raises:
            ValueError: a descriptor in ``data`` is closed; the request is still to be answered, and the data given up.
        """
        if self._is_over():
            if data is not None:
                self.give_up(data)
            data, message = None, message[:_SHORT_TEXT]
            code = code if len(code) <= _SHORT_TEXT else "rpc.Overloaded"
        packet, lenders = self._line.session.send_error(call_id, code, message, data)
        self._send(call_id, packet, lenders)

    def _refused(
        self,
        call_id: int,
        has_descriptors: bool,  # noqa: FBT001 - not public
        exc: OSError | WrongProcess,
    ) -> None:
        """Answer without what the kernel refused; if it refuses even that answer, the connection ends."""
        if isinstance(exc, ConnectionLost | WrongProcess):
            return
        refusal = refusal_of(exc)
        if isinstance(refusal, PermissionDenied):  # which would say that the call did not run
            kind = DescriptorsLost if has_descriptors else TooLarge
            refusal = kind(refusal.message)
        elif refusal is None and has_descriptors:
            refusal = DescriptorsLost(f"the descriptors of the answer could not be sent: {exc.strerror}")
        if refusal is None:
            code, message = internal_error(exc, repr(self._line), "could not send an answer")
        else:
            code, message = refusal.code, refusal.message
            _log.warning("! %r: an answer cannot be sent: %s", self._line, exc)
        if self.replaced is not None:
            self.replaced(call_id, code)
        try:
            self._line.transport.send_packet(*self._line.session.send_instead(call_id, code, message))
        except ConnectionLost:
            return
        except OSError as another:
            self._line.end_by(another)

    def slow_down(self, call_id: int | None) -> None:
        """Bound what is kept for a peer that keeps asking and does not read its answers.

        It is enough not to read its requests, unless this side waits for answers from it: then the connection must end.
        """
        if call_id is None:  # this request is not answered
            return
        session = self._line.session
        if not session.calls and not session.given_up:
            self._line.transport.pause_reading()
            return
        unsent = self.unsent_bytes
        if unsent > self._limits.max_unsent_bytes + self._limits.max_message_bytes:  # one large answer may wait
            self._line.end_by(ConnectionLost(f"the other side left {unsent} bytes of answers unread"))

    @property
    def unsent_bytes(self) -> int:
        """What is kept for a peer that does not read."""
        transport = self._line.transport
        return transport.get_write_buffer_size() + _PACKET_COST * transport.get_write_buffer_packets()

    def _is_over(self) -> bool:
        """Return whether so much is unsent that only a short answer may be added."""
        line = self._line
        if not line.writing_paused:
            return False
        line.book_unsent()
        return self.unsent_bytes > self._limits.max_unsent_bytes or line.account.lack(UNSENT_BYTES, 0) is not None

    def give_up(self, value: Any, kept: Any = None) -> None:
        """Let go of a result, or the data of an error, that nobody gets, as if its receiver had let go at once.

        Descriptors in it are closed, and so are objects that nobody else holds, streams and channels. It may be done
        again, and from any thread. Of what raises while it is taken apart, the rest is left to the garbage collector.

        Args:
            value: what nobody gets.
            kept: what takes its place; what is part of both is left alone.
        """
        line = self._line
        if runs_here(line.loop):
            self._let_go(value, kept)
            return
        try:
            line.loop.call_soon_threadsafe(self._let_go, value, kept)
        except RuntimeError:  # the loop is closed, and so are the objects that belonged to it
            with contextlib.suppress(Exception):  # as below
                close_all(descriptors_in(value))

    def _let_go(self, value: Any, kept: Any) -> None:
        try:
            self._line.session.give_up(value, kept)
        except (KeyboardInterrupt, SystemExit):  # these are for the loop, as in any task
            raise
        except BaseException:  # noqa: S110 - values may raise what they like while they are taken apart
            pass

    def send_closing(self, reason: str) -> None:
        """Say that this side takes no new requests; those that come are refused (protocol 2.8)."""
        packet = self._line.session.send_closing(reason)
        if packet is not None:
            with contextlib.suppress(*_UNSENT):
                self._line.transport.send_packet(*packet)
