"""Making calls over one connection."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from asyncio import get_running_loop
from collections.abc import Coroutine
from typing import Any, NoReturn

from seqrpc.aio.calls import Line, Waiter
from seqrpc.calls.outcomes import check_open, explain_refusal, note_unsent, of_this_call, options_of
from seqrpc.errors import ConnectionLost, DeadlineExceeded, LocalProtocolError, RpcError, not_run
from seqrpc.interface.answers import Finish, result_of
from seqrpc.kernel.descriptors import close_all
from seqrpc.kernel.pieces import Content
from seqrpc.limits import LONGEST_TIMER, MAX_PACKET, Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.lenders import Lender, tell_sent, tell_unsent
from seqrpc.protocol.messages import Params

_log = get_logger("seqrpc.connection")


class Caller:
    """Makes calls: each waits its turn, is sent, and waits for its answer.

    Everything that can call over a connection holds this: the connection as its users see it, proxies, and calls under
    way. The machinery does not, so this goes when nobody can call any more.

    Args:
        line: the connection.
        limits: ``max_calls_in_flight`` is used, and the rest is passed on.
    """

    __slots__ = ("__weakref__", "_calls", "_limits", "_line", "_loop", "_max_calls", "_session", "guard", "turns")

    def __init__(self, line: Line, limits: Limits) -> None:
        """Begin with no call."""
        self._line = line
        self._loop = line.loop
        self._session = line.session
        self._limits = limits
        self._max_calls = limits.max_calls_in_flight
        self._calls = line.calls
        self.turns = line.calls.turns
        """The line of calls that wait to be sent."""
        self.guard: object | None = None
        """What is to be dropped with this (:class:`~seqrpc.calls.unclosed.Guard`)."""

    async def request(  # noqa: C901, PLR0912, PLR0915 - calling a function would take longer than the check of the loop
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
            ConnectionLost: the connection ended; the call may have run, unless ``execution`` says that it did not.
            Unavailable: the other side takes no new requests; the call did not run.
            DeadlineExceeded: the deadline passed; the other side was told to stop.
            WrongProcess, WrongLoop: the connection belongs to another process, or to another event loop.
            LocalProtocolError, TooLarge, PermissionDenied, Overloaded, OSError, ValueError: it could not be sent.

        Cancel: the other side is told to stop; a call that was not yet sent is never sent.
        """
        line = self._line
        lane = line.lane
        if lane is not None and not meta and (sent := lane.call(method, params, deadline)) is not None:
            try:
                await sent
                response = sent.waiter.result()
            except BaseException:
                if sent.alarm is not None:
                    sent.alarm.cancel()
                self._give_up(sent.call_id, sent.waiter)
                del sent  # as below
                raise
            if sent.alarm is not None:
                sent.alarm.cancel()
            return finish(response, self._limits)
        try:
            is_home = get_running_loop() is line.home
        except RuntimeError:  # no loop runs: in a forked child, or where coroutines are driven by hand
            is_home = False
        if not is_home:
            raise line.misuse()
        session = self._session
        if self.turns.waiting or line.writing_paused or len(session.calls) >= self._max_calls or session.given_up:
            await self._wait_turn(deadline)
        options = timer = None
        if deadline is not None or meta or session.closing_received is not None:
            self._check_may_call(deadline)
            options = options_of(deadline, meta)
        waiter: Waiter = self._loop.create_future()
        try:
            call_id, (data, lenders) = session.send_request(waiter, method, params, options)
        except (RpcError, LocalProtocolError) as exc:
            note_unsent(exc, method, params)
            raise
        try:
            if lenders or len(data) > MAX_PACKET:
                self._send_request(call_id, waiter, data, lenders)
            else:
                line.transport.send_packet(data)
        except BaseException as exc:
            session.calls.pop(call_id, None)
            tell_unsent(lenders)
            del waiter
            await self._raise_explained(exc, method, params)
        del data, lenders  # do not keep a large message until it is answered
        if deadline is not None:
            timer = line.alarms.set(_seconds_until(deadline), expire, waiter)
        try:
            response = await waiter
        except BaseException:
            self._give_up(call_id, waiter)
            del waiter  # its error refers to this frame, which holds the connection
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return finish(response, self._limits)

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Do what :meth:`request` does: a connection that ended is not made anew, so nothing is called again."""
        return self.request(method, params, deadline, meta, finish)

    @property
    def line(self) -> Line:
        """The connection."""
        return self._line

    def _send_request(self, call_id: int, waiter: Waiter, data: Content, lenders: list[Lender]) -> None:
        """Send a request with descriptors."""
        self._line.transport.send_packet(data, lenders, functools.partial(self._calls.request_refused, call_id, waiter))
        tell_sent(lenders)

    def _check_may_call(self, deadline: int | None) -> None:
        if self._session.closing_received is not None:
            raise self._calls.unavailable()
        if deadline is not None and deadline <= time.monotonic_ns():
            raise not_run(DeadlineExceeded("the deadline passed before the call was sent"))

    async def _raise_explained(self, exc: BaseException, method: str, params: Params) -> NoReturn:
        """Raise what is to be raised for a call that could not be sent."""
        error = exc
        if isinstance(exc, ConnectionLost):
            if not self._line.transport.is_closing():  # what the other side sent before it went is still being read
                await self._line.wait_lost()
            has_closed = self._session.closing_received is not None
            error = self._calls.unavailable() if has_closed else not_run(self._line.lost_error())
        elif isinstance(exc, OSError):
            error = explain_refusal(exc)
        try:
            check_open(exc, method, params)
            raise error from error.__cause__
        finally:
            del error, exc  # they refer to this frame, which holds the connection

    async def _wait_turn(self, deadline: int | None) -> None:
        """Wait while there is no room for one more call, or others wait for it."""
        if not self.turns.waiting and self._calls.has_room(0):
            return
        self._check_may_call(deadline)
        try:
            async with asyncio.timeout(None if deadline is None else _seconds_until(deadline)):
                await self.turns.wait()
        except TimeoutError:
            raise not_run(DeadlineExceeded("the deadline passed before the call could be sent")) from None

    def _give_up(self, call_id: int, waiter: Waiter) -> None:
        """Clean up after a call that ends without its answer being used."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            close_all(waiter.result().fds)  # the answer came, and the task was cancelled before it took it
        packet = self._session.send_cancel(call_id)
        if packet is not None:
            with contextlib.suppress(OSError):  # a cancel is a hint, and may get lost
                self._line.transport.send_packet(*packet)
        self.turns.next()

    async def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer; return when the call is on its way. Arguments as for :meth:`request`.

        Raises:
            ConnectionLost, Unavailable, DeadlineExceeded, WrongProcess, WrongLoop, LocalProtocolError, TooLarge,
            PermissionDenied, Overloaded, OSError, ValueError: as :meth:`request`; nothing was sent.

        Cancel: nothing was sent.
        """
        self._line.check_place()
        if self.turns.waiting or self._line.writing_paused:
            await self._wait_turn(deadline)
        self._check_may_call(deadline)
        try:
            data, lenders = self._session.send_notify(method, params, options_of(deadline, meta))
        except RpcError as exc:
            of_this_call(exc)
            raise
        try:
            refused = functools.partial(_log.debug, "! NOTIFY %s: %s", method)
            self._line.transport.send_packet(data, lenders, refused)
        except BaseException as exc:
            tell_unsent(lenders)
            await self._raise_explained(exc, method, params)
        tell_sent(lenders)

    async def let_go(self) -> None:
        """Do nothing: a connection is held by whoever made it, not by its proxies."""

    def __repr__(self) -> str:
        """Return the state of the connection, and who is at the other end."""
        return repr(self._line)


def _seconds_until(deadline: int) -> float:
    return min(max(0.0, (deadline - time.monotonic_ns()) / 1e9), LONGEST_TIMER)


def expire(waiter: Waiter) -> None:
    """End a call that waits for its answer: the deadline has passed."""
    if not waiter.done():
        waiter.set_exception(DeadlineExceeded("the deadline passed before the answer came"))
