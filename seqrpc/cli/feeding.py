"""Streams that this side produces: in a thread of their own, for what they come from may let one wait.

The thread has one end of a pair, over which it serves the stream; it is fetched at the other end and passed on. So a
call is answered, and given up, while a line of standard input is waited for, and its stream may outlive it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

from seqrpc.blocking.client import connect
from seqrpc.interface.methods import method
from seqrpc.interface.policy import anyone
from seqrpc.interface.service import Service
from seqrpc.kernel.sockets import socket_pair


class _Source(Service, name="Source", allow=anyone):
    """Gives what an iterator yields."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    @method
    async def items(self) -> AsyncIterator[Any]:
        for item in self._items:
            yield item


def stream_of(items: Iterator[Any], keep: ExitStack) -> Any:
    """Return a stream of what an iterator yields, to be sent.

    Args:
        items: runs in a thread of its own; what it raises ends the stream.
        keep: ends the thread when it is closed, as soon as the iterator yields.
    """
    ours, theirs = socket_pair()
    threading.Thread(target=_produce, args=(theirs, items), name="seqrpc-feeding", daemon=True).start()
    connection = keep.enter_context(connect(sock=ours))
    return keep.enter_context(connection.call("Source.items"))


def _produce(sock: socket.socket, items: Iterator[Any]) -> None:
    with contextlib.suppress(OSError, ValueError), connect(sock=sock, services=[_Source(items)]) as connection:
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN)
        while not connection.closed:
            poller.poll()
            connection.process()
