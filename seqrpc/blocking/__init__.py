"""Calls without an event loop: for scripts, web views, GUI programs and threads.

``with seqrpc.blocking.connect("/run/calculator.sock") as connection: connection.call("Calculator.add", 2, 3)``
"""

from seqrpc.blocking.channels import Channel
from seqrpc.blocking.client import connect
from seqrpc.blocking.connection import Connection
from seqrpc.blocking.current import CurrentCall, current_call
from seqrpc.blocking.interceptors import Interceptor
from seqrpc.blocking.marks import method
from seqrpc.blocking.objects import revoke
from seqrpc.blocking.streams import Stream
from seqrpc.blocking.timeouts import timeout

__all__ = (
    "Channel",
    "Connection",
    "CurrentCall",
    "Interceptor",
    "Stream",
    "connect",
    "current_call",
    "method",
    "revoke",
    "timeout",
)
