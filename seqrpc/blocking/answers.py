"""The answers that leave over one line."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Final

from seqrpc.blocking.line import Line
from seqrpc.calls.failures import internal_error, refusal_of
from seqrpc.errors import ConnectionLost, DescriptorsLost, Overloaded, PermissionDenied, TooLarge
from seqrpc.interface.results import ResultCheck
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.interrupts import Uninterrupted, release
from seqrpc.kernel.pieces import Content
from seqrpc.logs import get_logger
from seqrpc.protocol.closed import closed_in
from seqrpc.protocol.lenders import Lender, Packed, give_up_lenders, tell_sent

_log = get_logger("seqrpc.connection")

GIVEN_AWAY: Final = "what a handler returns is given away: return it open, and not out of its 'with' block"


class Answers:
    """Sends answers, and bounds what is kept for a peer that does not read them.

    Args:
        line: the line.
    """

    __slots__ = ("_line", "began", "sent_code")

    def __init__(self, line: Line) -> None:
        """Begin with nothing unsent."""
        self._line = line
        self.sent_code: str | None = None
        """The code of the error that was sent last, or None for a result."""
        self.began: float | None = None
        """When the handler was started, by the monotonic clock; None if none was."""

    def send_result(self, call_id: int | None, result: Any, check: ResultCheck | None = None) -> None:
        """Answer a request, and close the descriptors in the result: a handler gives away what it returns.

        Raises:
            InvalidResult, LocalProtocolError, TooLarge, ValueError, Overloaded: the result does not fit, or cannot be
                sent; the request is still to be answered, and the result to be given up.
        """
        line = self._line
        self.sent_code = None
        if call_id is None:
            self.give_up(result)
            return
        if check is not None and type(result) is not check.exact:
            check.check(result)
        gone: list[Lender] = []
        try:
            with line.lock, Uninterrupted():
                line.check_reentry()
                is_lost = line.is_lost
                if not is_lost:
                    unsent = line.unsent_bytes
                    if result is not None and unsent > line.limits.max_unsent_bytes:
                        raise Overloaded(f"{unsent} bytes of answers are not read yet (max_unsent_bytes)")
                    self._send(call_id, lambda: line.session.send_result(call_id, result), gone, result)
        finally:
            give_up_lenders(gone)  # code of the application's may run in it, and so without the lock
        if is_lost:
            self.give_up(result)

    def send_error(self, call_id: int | None, code: str, message: str, data: Any = None) -> None:
        """Answer a request with an error; what is in ``data`` is given away.

        Raises:
            ValueError: a descriptor in ``data`` is closed; the request is still to be answered, and the data given up.
        """
        line = self._line
        self.sent_code = code
        if call_id is None or line.is_lost:
            self.give_up(data)
            return
        gone: list[Lender] = []
        unsent: list[Any] = []  # code of the application's may run where it is given up, and so without the lock
        try:
            with line.lock, Uninterrupted():
                line.check_reentry()
                self._send(call_id, lambda: line.session.send_error(call_id, code, message, data, unsent), gone)
        finally:
            give_up_lenders(gone)
            for value in unsent:
                line.session.give_up(value)

    def _send(self, call_id: int, pack: Callable[[], Packed], gone: list[Lender], result: Any = None) -> None:
        """Send an answer, and close the descriptors in it; ``gone`` gets what lent them if it does not leave."""
        line = self._line
        line.entered = True  # what encodes it, or lends a descriptor, cannot call meanwhile
        try:
            data, lenders = pack()
            self._send_packed(call_id, data, lenders, gone, result)
        finally:
            line.entered = False
        line.bound_unsent()

    def _send_packed(self, call_id: int, data: Content, lenders: list[Lender], gone: list[Lender], result: Any) -> None:
        line = self._line
        refused = functools.partial(self._refused, call_id, bool(lenders))
        try:
            line.send(data, lenders, refused)
        except OSError as exc:
            gone += lenders
            refused(exc)
        except BaseException as exc:
            closed = closed_in(result, "the result") if isinstance(exc, ValueError) else None
            gone += lenders
            if closed is not None:
                raise ValueError(f"{closed}; {GIVEN_AWAY}") from None
            raise
        else:
            tell_sent(lenders)
            close_all([lender for lender in lenders if isinstance(lender, OwnedFd)])

    def _refused(self, call_id: int, has_descriptors: bool, exc: OSError) -> None:  # noqa: FBT001 - not public
        """Answer without what the kernel refused; if it refuses even that answer, the connection ends."""
        if isinstance(exc, ConnectionLost):
            return
        line = self._line
        refusal = refusal_of(exc)
        if isinstance(refusal, PermissionDenied):  # which would say that the call did not run
            kind = DescriptorsLost if has_descriptors else TooLarge
            refusal = kind(refusal.message)
        elif refusal is None and has_descriptors:
            refusal = DescriptorsLost(f"the descriptors of the answer could not be sent: {exc.strerror}")
        if refusal is None:
            code, message = internal_error(exc, repr(line), "could not send an answer")
        else:
            code, message = refusal.code, refusal.message
            _log.warning("! %r: an answer cannot be sent: %s", line, exc)
        self.sent_code = code
        try:
            line.send(*line.session.send_instead(call_id, code, message))
        except ConnectionLost:
            return
        except OSError as another:
            line.end_by(another)

    def give_up(self, value: Any, kept: Any = None) -> None:
        """Let go of a result, or the data of an error, that nobody gets, as if its receiver had let go at once.

        In a forked child it does nothing: what its handler gives away is the parent's to give.
        """
        if self._line.forked:
            return
        try:
            with contextlib.suppress(Exception):  # values may raise what they like while they are taken apart
                self._line.session.give_up(value, kept)
        finally:
            release()  # what made a departure has put signals off until its message leaves, and none does
