"""What interceptors are told of calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqrpc.kernel.credentials import Credentials


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
