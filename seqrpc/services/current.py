"""The call that a handler answers."""

from __future__ import annotations

from collections.abc import Mapping

from seqrpc.kernel.credentials import Credentials
from seqrpc.protocol.messages import Request
from seqrpc.services.context import Scope, scope
from seqrpc.services.peer import Connection


class CurrentCall(Scope, kw_only=True, eq=False):
    """The call that a handler answers; nothing in it is to be changed."""

    request: Request
    """What came, for those who want to see it."""

    caller: Credentials
    """Who calls, by the kernel's word: whoever made the connection, or on a socket pair the packet's sender."""

    connection: Connection
    """The connection that the call came on, to call back."""

    @property
    def method(self) -> str:
        """Its name on the wire, ``Service.method``."""
        return self.request.method

    @property
    def meta(self) -> Mapping[str, str]:
        """What the caller sent along with :func:`seqrpc.metadata`."""
        return self.request.options.meta or {}

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, in seconds of ``time.monotonic()``, or None."""
        nanoseconds = self.request.options.deadline
        return None if nanoseconds is None else nanoseconds / 1e9


def current_call() -> CurrentCall:
    """Return the call that the running handler answers, also in a plain function's thread.

    Raises:
        LookupError: no handler is running here.
    """
    here: Scope | None = scope.get()
    while here is not None:
        if isinstance(here, CurrentCall):
            return here
        here = here.outer
    raise LookupError("current_call() works inside a handler only")
