"""What is raised in calls that are not answered, whoever makes them: with an event loop or without."""

from __future__ import annotations

import errno
from typing import Any

from seqrpc.calls.failures import refusal_of
from seqrpc.errors import (
    ConnectionLost,
    DeadlineExceeded,
    LocalProtocolError,
    Overloaded,
    RpcError,
    SeqrpcError,
    ServerBusy,
    Unavailable,
    not_run,
)
from seqrpc.protocol.closed import closed_in
from seqrpc.protocol.messages import Params
from seqrpc.text import shown


def options_of(deadline: int | None, meta: dict[str, str] | None) -> dict[str, Any] | None:
    """Return the options of a request (protocol 2.4); None if there are none."""
    if deadline is None and not meta:
        return None
    options: dict[str, Any] = {}
    if deadline is not None:
        options["deadline"] = deadline
    if meta:
        options["meta"] = meta
    return options


def explain_refusal(exc: OSError) -> Exception:
    """Return what to raise for a packet that the kernel does not take."""
    refusal = refusal_of(exc)
    return exc if refusal is None else of_this_call(refusal)


def of_this_call(error: RpcError) -> RpcError:
    """Mark an error as met by a call that was not sent: a handler that does not catch it does not answer with it."""
    error.remote = True
    return not_run(error)


def unavailable(said: str | None) -> RpcError:
    """Return what to raise in a call that the other side does not take any more.

    Args:
        said: the reason that it gave.
    """
    error = Unavailable(f"the other side takes no new requests: {shown(said)}")
    error.reason = said
    return of_this_call(error)


def stalled(in_flight: int, stall_timeout: float) -> RpcError:
    """Return what to raise in a call that waited for room while no other one was answered."""
    text = (
        f"{in_flight} calls of this connection are unanswered (max_calls_in_flight), and no answer came for"
        f" {stall_timeout:g} s (stall_timeout)"
    )
    return of_this_call(Overloaded(text))


def lost(cause: Exception | None, said: str | None) -> ConnectionLost:
    """Return what to raise because a connection ended, made anew: one raised repeatedly keeps all its tracebacks.

    Args:
        cause: why it ended, if that is known.
        said: why the other side took no new requests, if it said so.
    """
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


def closed_here(block: str) -> ConnectionLost:
    """Return what to raise because a connection was closed on this side; ``block`` is the statement that surrounds."""
    return ConnectionLost(f"the connection was closed on this side: use it within its '{block}', or connect again")


def server_busy(address: str, waited: float) -> ServerBusy:
    """Return what to raise because a listener accepts nobody.

    Args:
        address: where.
        waited: seconds that it was waited for, 0 if it was not.
    """
    state = f"was full for {waited:g} s" if waited else "is full"
    text = f"cannot connect to {shown(address)}: its backlog {state}: the daemon is overloaded, or hangs"
    return ServerBusy(errno.EAGAIN, text)


def no_connection_in_time(trouble: SeqrpcError) -> RpcError:
    """Return what to raise in a call whose deadline passed while there was no connection, because of ``trouble``."""
    return of_this_call(DeadlineExceeded(f"the deadline passed before there was a connection: {trouble}"))


def too_many_wait(waiting: int, stall_timeout: float) -> RpcError:
    """Return what to raise in a call that found too many others waiting for a connection."""
    text = (
        f"{waiting} calls wait for a connection already (max_calls_in_flight), and there was none for"
        f" {stall_timeout:g} s (stall_timeout)"
    )
    return of_this_call(Overloaded(text))


def note_unsent(exc: RpcError | LocalProtocolError, method: str, params: Params) -> None:
    """Note that a call could not be packed, and say so otherwise if that is because of something closed."""
    if isinstance(exc, RpcError):
        of_this_call(exc)
    else:
        check_open(exc, method, params)


def check_open(exc: BaseException, method: str, params: Params) -> None:
    """Say which argument is closed, if that may be why a call could not be sent.

    Raises:
        ValueError: a descriptor is, or a buffer, which is sealed where it is packed.
    """
    closed = closed_in(params, "params") if ValueError in (type(exc), type(exc.__cause__)) else None
    if closed is not None:
        raise ValueError(f"{method}: cannot send {closed}; lend it open, until {method} returns") from None
