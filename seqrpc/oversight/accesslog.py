"""A log of who called what, how it ended and how long it took."""

from __future__ import annotations

import functools
import logging
from typing import Any, Final

from seqrpc.aio.interceptors import Interceptor
from seqrpc.calls.records import CallRecord
from seqrpc.logs import Meter
from seqrpc.text import shown

_MOST: Final = 1_000
"""Lines a second, of one user: more than a person reads, and no more than 100 KB."""


class AccessLog(Interceptor):
    """Logs each request that has ended: ``seqrpc.serve(..., interceptors=[AccessLog()])``.

    A line says it to people. Its record has for programs ``method`` (None if it is not known), ``uid``, ``gid`` and
    ``pid`` (None where the kernel does not say), ``duration`` in seconds, ``outcome``, ``code`` of the error or None,
    and ``oneway``. The outcome is ``ok``, ``error``, or ``refused`` if no handler ran. There are no arguments, results,
    messages of errors and metadata in it. Requests that are refused are logged, too: so of each user only so many lines
    are written, and then one that counts the rest, in ``left_out`` of its record.

    Args:
        logger: where to log; by default that of the name ``seqrpc.access``.
        level: the level of the lines.
        most_per_second: lines of one user.
    """

    def __init__(
        self, logger: logging.Logger | None = None, *, level: int = logging.INFO, most_per_second: int = _MOST
    ) -> None:
        """Begin with nothing counted."""
        if most_per_second < 1:
            raise ValueError(f"most_per_second= is a positive number, got {most_per_second!r}")
        self._logger = logging.getLogger("seqrpc.access") if logger is None else logger
        self._level = level
        self._meter = Meter(most_per_second, 1.0)

    def ended(self, record: CallRecord) -> None:
        """Log a request that has ended."""
        if not self._logger.isEnabledFor(self._level):
            return
        caller = record.caller
        uid, gid, pid = (None, None, None) if caller is None else (caller.uid, caller.gid, caller.pid)
        if not self._meter.admits(uid, functools.partial(self._tell_left_out, uid)):
            return
        extra: dict[str, Any] = {
            "method": None if record.method is None else shown(record.method),
            "uid": uid,
            "gid": gid,
            "pid": pid,
            "duration": record.duration,
            "outcome": _outcome(record),
            "code": None if record.code is None else shown(record.code),
            "oneway": record.oneway,
        }
        self._logger.log(
            self._level,
            "%s %s uid=%s pid=%s %.6f s",
            extra["method"],
            extra["outcome"] if record.code is None else f"{extra['outcome']} {extra['code']}",
            uid,
            pid,
            record.duration,
            extra=extra,
        )

    def _tell_left_out(self, uid: int | None, count: int) -> None:
        text = "%d more calls of user %s were left out"
        self._logger.log(self._level, text, count, uid, extra={"left_out": count, "uid": uid})


def _outcome(record: CallRecord) -> str:
    """Return how a request ended, in a word."""
    if record.code is None:
        return "ok"
    return "error" if record.duration else "refused"
