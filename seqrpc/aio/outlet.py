"""Sending on an event loop, which watches the socket for room."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from seqrpc.calls.sending import Owner, Sending
from seqrpc.protocol.outbox import RETRY_DELAY, Outbox


class Outlet(Sending):
    """Sends packets over one socket; a packet that must wait goes as soon as there is room.

    Args:
        loop: the running loop.
        sock: the socket, borrowed.
        owner: is told what becomes of the packets.
        outbox: where packets wait.
    """

    __slots__ = ("_loop", "_retry", "watching")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: Owner, outbox: Outbox) -> None:
        """Begin with nothing to send."""
        super().__init__(sock, owner, outbox)
        self._loop = loop
        self.watching = False
        """Whether the loop watches for room."""
        self._retry: asyncio.TimerHandle | None = None

    def _watch_later(self) -> None:
        self._retry = self._loop.call_later(RETRY_DELAY, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._owner.writable()

    def _watch(self) -> None:
        if not self.watching:
            self.watching = True
            self._loop.add_writer(self._sock.fileno(), self._owner.writable)

    def _unwatch(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self.watching:
            self.watching = False
            if not self._loop.is_closed():
                self._loop.remove_writer(self._sock.fileno())

    def let_go_in_child(self) -> list[Any]:
        """Stop working: this is a copy in a forked child. Return the packets that wait, without telling them."""
        self._retry = None
        self.watching = self.room.narrow = False
        return self.outbox.forget()
