"""What interceptors are told of calls, and how."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from seqrpc.interface.entries import bounded_name
from seqrpc.interface.scope import scope
from seqrpc.kernel.credentials import Credentials
from seqrpc.logs import get_logger
from seqrpc.protocol.messages import NO_OPTIONS, Options

_log = get_logger("seqrpc.dispatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """A request that has ended, as :meth:`Interceptor.ended` is told."""

    method: str | None
    """Its name on the wire as the caller wrote it, cut after 200 characters; such a method need not exist. It is empty
    for a name of thousands of bytes, and None where the message was lost before its method was read."""

    caller: Credentials | None
    """Who called, by the kernel's word; None where that does not say."""

    code: str | None
    """None if the call succeeded, else the code of the error that was sent, such as ``rpc.PermissionDenied``; for a
    one-way call the code that would have been sent."""

    duration: float
    """Seconds from when the handler was started until it was answered; 0.0 where none ran. Of a method that streams,
    until the stream was handed out."""

    oneway: bool
    """Whether the caller wanted no answer."""

    meta: Mapping[str, str]
    """What the caller sent along with :func:`seqrpc.metadata`; empty where the request was refused unread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingCall:
    """A call that this side is about to make, as :meth:`Interceptor.request` is told."""

    method: str
    """Its name on the wire, ``Service.method``."""

    oneway: bool
    """Whether no answer is wanted."""

    deadline: float | None
    """When it is given up, in seconds of ``time.monotonic()``, or None."""

    meta: Mapping[str, str]
    """What is sent along."""


def outgoing_call(method: str, *, oneway: bool) -> OutgoingCall:
    """Return what an interceptor is told of a call: what is said around it there and then goes along."""
    here = scope.get()
    deadline = None if here.deadline_ns is None else here.deadline_ns / 1e9
    return OutgoingCall(method=method, oneway=oneway, deadline=deadline, meta=here.outgoing_meta or {})


class Hearing(Protocol):
    """An interceptor that is told of requests that have ended."""

    def ended(self, call: CallRecord, /) -> None:
        """Hear of one."""
        ...


def tell_ended(
    hearing: Iterable[Hearing],
    method: str | None,
    caller: Credentials | None,
    code: str | None,
    *,
    oneway: bool,
    duration: float = 0.0,
    options: Options = NO_OPTIONS,
) -> None:
    """Tell interceptors of a request that has ended, and log what they raise.

    Args:
        hearing: the interceptors.
        method: its name on the wire, of any length.
        caller: see :class:`CallRecord`, as for the rest.
        code: the code of the error that it was answered with.
        oneway: whether no answer was wanted.
        duration: seconds.
        options: what came along.
    """
    name = None if method is None else bounded_name(method)
    meta, around = options.meta or {}, sys.exception()
    record = CallRecord(method=name, caller=caller, code=code, duration=duration, oneway=oneway, meta=meta)
    for interceptor in hearing:
        try:
            interceptor.ended(record)
        except Exception as exc:
            _cut_context(exc, around)
            _log.error("! %s.ended failed", type(interceptor).__qualname__, exc_info=exc)


def _cut_context(exc: BaseException, around: BaseException | None) -> None:
    """Part an exception from the one that was being handled around: that is about the call, and may quote it."""
    found: BaseException | None = exc
    while found is not None and found.__context__ is not around:
        found = found.__context__
    if found is not None:
        found.__context__ = None
