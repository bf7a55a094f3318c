"""Sending without an event loop: whoever waits watches the socket for room."""

from __future__ import annotations

import socket
import time
from typing import Final

from seqrpc.calls.sending import Owner, Sending
from seqrpc.protocol.outbox import RETRY_DELAY, Outbox

_RETRY_NS: Final = int(RETRY_DELAY * 1e9)


class Outlet(Sending):
    """Sends packets over one socket; one that must wait goes when a thread that waits finds room.

    Args:
        sock: the socket, borrowed.
        owner: is told what becomes of the packets.
        outbox: where packets wait.
    """

    __slots__ = ("retry_at", "wants_room")

    def __init__(self, sock: socket.socket, owner: Owner, outbox: Outbox) -> None:
        """Begin with nothing to send."""
        super().__init__(sock, owner, outbox)
        self.wants_room = False
        """Whether to watch for room."""
        self.retry_at: int | None = None
        """When to try again, in nanoseconds of the monotonic clock."""

    def _watch(self) -> None:
        self.wants_room, self.retry_at = True, None

    def _watch_later(self) -> None:
        self.retry_at = time.monotonic_ns() + _RETRY_NS

    def _unwatch(self) -> None:
        self.wants_room, self.retry_at = False, None

    @property
    def waits(self) -> bool:
        """Whether a packet waits."""
        return bool(self.outbox.packets)
