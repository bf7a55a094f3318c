"""What the other side is told of an exception."""

from __future__ import annotations

import errno
from typing import Any

from seqrpc.errors import Overloaded, PermissionDenied, RpcError, TooLarge
from seqrpc.limits import MAX_PACKET
from seqrpc.logs import Shortage, get_logger, new_incident, withheld_traceback
from seqrpc.protocol.outbox import TOO_LONG
from seqrpc.protocol.spilled import NoMemoryFile
from seqrpc.text import shown

_log = get_logger("seqrpc.failures")
_shortage = Shortage(_log)


def error_for(exc: BaseException, where: str, *, withheld: bool = False) -> tuple[str, str, Any]:
    """Return code, message and data of an error that was meant to cross, else ``rpc.Internal`` with nothing of it.

    What crosses as ``rpc.Internal`` is logged here, with its traceback. So does a reserved error that a call of this
    side met, which whoever made that call did not foresee.

    Args:
        exc: what was raised.
        where: whose failure it is, for the log.
        withheld: the log is not to have what exceptions say, which may quote a sensitive argument.
    """
    if isinstance(exc, RpcError) and not (exc.remote and exc.code.startswith("rpc.")):
        # A subclass may have called no __init__, anything may have been given as the message, and data may be computed.
        try:
            message, data = str(getattr(exc, "message", "")), getattr(exc, "data", None)
        except Exception as another:
            return *internal_error(another, where, "failed, and its error cannot be told", withheld=withheld), None
        _log.debug("! %r: %s: %r", where, shown(exc.code), "(withheld)" if withheld else shown(message))
        return exc.code, message, data
    return *internal_error(exc, where, "failed", withheld=withheld), None


def answer_for(exc: BaseException, where: str, *, withheld: bool = False) -> tuple[str, str, Any]:
    """Return the same for the answer to a call: it does not say that nothing ran because of what a handler met.

    So it would if a handler reads a stream to where its producer died, which is ``rpc.Unavailable`` for a reader.
    """
    if isinstance(exc, RpcError) and exc.code.startswith("rpc.") and exc.execution is not type(exc).execution:
        return *internal_error(exc, where, "failed", withheld=withheld), None
    return error_for(exc, where, withheld=withheld)


def internal_error(exc: BaseException, where: str, what: str, *, withheld: bool = False) -> tuple[str, str]:
    """Return code and message of a failure that nobody foresaw, and log it.

    Args:
        exc: what was raised.
        where: whose failure it is, for the log.
        what: how it failed, for the log.
        withheld: the log is not to have what exceptions say.
    """
    incident, message = new_incident()
    if withheld:  # whoever formats records looks into exc_info, too
        _log.error("! %r %s (incident %s):\n%s", where, what, incident, withheld_traceback(exc))
    else:
        _log.error("! %r %s (incident %s)", where, what, incident, exc_info=exc)
    return "rpc.Internal", message


def untold_error(exc: BaseException, where: str, *, withheld: bool = False) -> tuple[str, str]:
    """Return the same for what was raised while another exception was looked at, or logged.

    Args:
        exc: what was raised; it may not be fit to be logged either.
        where: whose failure it is, for the log.
        withheld: the log is not to have what exceptions say.
    """
    try:
        return internal_error(exc, where, "failed, and its error cannot be told", withheld=withheld)
    except Exception:  # what raises while it is looked at is in its context
        incident, message = new_incident()
        _log.error("! %r failed, and its error can be neither told nor logged (incident %s)", where, incident)
        return "rpc.Internal", message


def refusal_of(exc: OSError) -> RpcError | None:
    """Return what it means that the kernel does not take a message; None if that is no affair of the other side's."""
    if isinstance(exc, NoMemoryFile):
        return no_memory_file(exc)
    if exc.errno in TOO_LONG:
        return TooLarge(f"the kernel takes no message of this size now: {exc.strerror}")
    if exc.errno == errno.EPERM:
        return PermissionDenied(f"the other side takes no descriptors, nor messages of more than {MAX_PACKET} bytes")
    if exc.errno == errno.ETOOMANYREFS:
        return Overloaded("too many descriptors of this user are under way and not yet received")
    if exc.errno == errno.ENOMEM:
        return Overloaded(f"the kernel has no room for the message: {exc.strerror}")
    return None


def no_memory_file(exc: NoMemoryFile) -> RpcError:
    """Return what it means that a message that is longer than a packet cannot leave."""
    if exc.errno == errno.EFBIG:
        return TooLarge(f"no memory file may be as large as the message: {exc.strerror}")
    _shortage.say("! there is no room for messages that are longer than a packet: %s", exc)
    return Overloaded(f"there is no room for a message that is longer than a packet: {exc.strerror}")


def log_unsent_data(exc: BaseException, where: str, *, withheld: bool) -> None:
    """Log that the data of an error cannot be sent."""
    if withheld:
        _log.error("! %r: the data of its error cannot be sent:\n%s", where, withheld_traceback(exc))
    else:
        _log.error("! %r: the data of its error cannot be sent", where, exc_info=exc)
