"""Calls without an event loop: for scripts, web views, GUI programs and threads.

``with seqrpc.blocking.connect("/run/calculator.sock") as connection: connection.call("Calculator.add", 2, 3)``
"""

from typing import TYPE_CHECKING

from seqrpc.blocking.channels import Channel
from seqrpc.blocking.client import connect
from seqrpc.blocking.connection import Connection
from seqrpc.blocking.current import CurrentCall, current_call
from seqrpc.blocking.interceptors import Interceptor
from seqrpc.blocking.marks import Interface, method
from seqrpc.blocking.objects import revoke
from seqrpc.blocking.streams import Stream
from seqrpc.blocking.timeouts import timeout

if TYPE_CHECKING:
    from seqrpc.blocking.worker import Worker

__all__ = (
    "Channel",
    "Connection",
    "CurrentCall",
    "Interceptor",
    "Interface",
    "Stream",
    "Worker",
    "connect",
    "current_call",
    "method",
    "revoke",
    "timeout",
)

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        """Load what starts children when it is asked for: it takes a quarter of the time that all this takes."""
        if name != "Worker":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from seqrpc.blocking.worker import Worker  # noqa: PLC0415

        globals()[name] = Worker
        return Worker

    def __dir__() -> list[str]:
        """Return all names, loaded or not."""
        return sorted({*globals(), *__all__})
