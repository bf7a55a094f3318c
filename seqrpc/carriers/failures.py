"""What the other side is told of an exception."""

from __future__ import annotations

from typing import Any

from seqrpc.errors import RpcError
from seqrpc.logs import get_logger
from seqrpc.text import shown

_log = get_logger("seqrpc.failures")


def told(exc: BaseException, where: str) -> tuple[str, str, Any]:
    """Return code, message and data of an error that was meant to cross, else ``rpc.Internal`` with nothing of it.

    What crosses as ``rpc.Internal`` is logged here, with its traceback. So does a reserved error that a call of this
    side met, which whoever made that call did not foresee.

    Args:
        exc: what was raised.
        where: whose failure it is, for the log.
    """
    if isinstance(exc, RpcError) and not (exc.remote and exc.code.startswith("rpc.")):
        # A subclass may have called no __init__, anything may have been given as the message, and data may be computed.
        try:
            message, data = str(getattr(exc, "message", "")), getattr(exc, "data", None)
        except Exception:
            _log.exception("! %r: its error cannot be told", where)
            return "rpc.Internal", "", None
        _log.debug("! %r: %s: %r", where, shown(exc.code), shown(message))
        return exc.code, message, data
    _log.error("! %r failed", where, exc_info=exc)
    return "rpc.Internal", "", None
