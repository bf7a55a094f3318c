"""Sending on an event loop, which watches the socket for room."""

from __future__ import annotations

import asyncio
import socket
from contextvars import Context, copy_context
from typing import Any, Final
from weakref import WeakSet

from seqrpc.calls.sending import Owner, Sending
from seqrpc.interface.scope import run_in
from seqrpc.kernel.descriptors import OwnedFd, as_value
from seqrpc.limits import KEPT_FILE_BYTES, KEPT_FILE_SECONDS, KEPT_FILES
from seqrpc.protocol.outbox import RETRY_DELAY, Outbox, Packet

_QUICK_BYTES: Final = 1 << 17
"""Bytes of a memory file up to which it makes no difference who frees them."""

_kept: Final[WeakSet[OwnedFd]] = WeakSet()  # what all outlets keep


class Outlet(Sending):
    """Sends packets over one socket; a packet that must wait goes as soon as there is room.

    Args:
        loop: the running loop.
        sock: the socket, borrowed.
        owner: is told what becomes of the packets.
        outbox: where packets wait.
        context: in which the loop calls, whoever's packet it is that has to wait; if it is None, the current one.
        keeps: whether to keep the memory file of a message until the next was sent, for a moment at most.
    """

    __slots__ = ("_context", "_forgetting", "_keeps", "_kept", "_loop", "_retry", "watching")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        owner: Owner,
        outbox: Outbox,
        context: Context | None = None,
        *,
        keeps: bool = False,
    ) -> None:
        """Begin with nothing to send."""
        super().__init__(sock, owner, outbox)
        self._loop = loop
        self._context = copy_context() if context is None else context
        self.watching = False
        """Whether the loop watches for room."""
        self._retry: asyncio.TimerHandle | None = None
        self._keeps = keeps
        self._kept: OwnedFd | None = None
        self._forgetting: asyncio.TimerHandle | None = None

    def _sent(self, packet: Packet) -> None:
        """Close what was its own, but for the memory file of a message, in place of the one before.

        The reader works on the message meanwhile, and has not to free its memory.
        """
        is_one = self._keeps and _QUICK_BYTES < packet.spilled <= KEPT_FILE_BYTES
        if is_one and (self._kept is not None or len(_kept) < KEPT_FILES):
            before, self._kept = self._kept, as_value(packet.fds.pop(0))  # dropped without a word if the loop ends
            _kept.add(self._kept)
            if before is not None:
                _kept.discard(before)  # which the timer may still have
                before.close()
            if self._forgetting is None:
                self._forget_later()
        packet.sent()

    def _forget_later(self) -> None:
        # One timer after the other, and not one for each message.
        self._forgetting = run_in(self._context, self._loop.call_later, KEPT_FILE_SECONDS, self._forget, self._kept)

    def _forget(self, file: OwnedFd | None) -> None:
        """Close the memory file that is kept, unless it is another one by now."""
        self._forgetting = None
        if self._kept is file:
            self._close_kept()
        elif self._kept is not None:
            self._forget_later()

    def _close_kept(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            _kept.discard(kept)
            kept.close()

    def _watch_later(self) -> None:
        self._retry = run_in(self._context, self._loop.call_later, RETRY_DELAY, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._owner.writable()

    def _watch(self) -> None:
        if not self.watching:
            self.watching = True
            run_in(self._context, self._loop.add_writer, self._sock.fileno(), self._owner.writable)

    def _unwatch(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self.watching:
            self.watching = False
            if not self._loop.is_closed():
                self._loop.remove_writer(self._sock.fileno())

    def drop(self) -> None:
        """Let go of what waits, and of what is kept; nothing of it is sent."""
        super().drop()
        self._close_kept()
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None

    def let_go_in_child(self) -> list[Any]:
        """Stop working: this is a copy in a forked child. Return the packets that wait, without telling them."""
        self._retry = self._forgetting = None
        self._close_kept()
        self.watching = self.room.narrow = False
        return self.outbox.forget()
