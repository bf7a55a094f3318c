"""The call that a handler answers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from seqrpc.kernel.credentials import Credentials
from seqrpc.services.context import scope
from seqrpc.services.peer import Connection


class CurrentCall(msgspec.Struct, frozen=True, eq=False):
    """The call that a handler answers."""

    method: str
    """Its name on the wire, ``Service.method``."""

    caller: Credentials
    """Who calls, by the kernel's word: whoever made the connection, or on a socket pair the packet's sender."""

    deadline_ns: int | None
    """When the caller stops waiting, in nanoseconds of ``CLOCK_MONOTONIC`` (``time.monotonic_ns``), or None."""

    meta: Mapping[str, str]
    """What the caller sent along with :func:`metadata`."""

    connection: Connection
    """The connection that the call came on, to call back."""

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, in seconds of ``time.monotonic()``, or None."""
        return None if self.deadline_ns is None else self.deadline_ns / 1e9


def current_call() -> CurrentCall:
    """Return the call that the running handler answers, also in a plain function's thread.

    Raises:
        LookupError: no handler is running here.
    """
    call: CurrentCall | None = scope.get().call
    if call is None:
        raise LookupError("current_call() works inside a handler only")
    return call
