"""Receiving with care while this process has, or is closing, more descriptors from others than it should."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextvars import Context
from typing import Final

from seqrpc.kernel import ancillary
from seqrpc.kernel.ancillary import Received
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.unread import close_unread
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.inbox import BUFFER_BYTES, Inbox

_TEND_SECONDS: Final = 1.0
"""Seconds after which the closer is to try again to start a thread, if it could not: nothing else may ask it to."""


class Gate:
    """Makes packets that bring descriptors over one socket wait while there is no room for these.

    It is asked before each packet, as long as :data:`~seqrpc.kernel.closing.CLOSER` is careful.

    Args:
        loop: the running loop.
        sock: the socket, borrowed.
        inbox: tells whose its packets are, and what one is that was received elsewhere.
        reopened: called once there is room again.
        arrived: called with a packet that was received elsewhere, and the bytes that it has, or with a failure to.
    """

    __slots__ = ("_arrived", "_elsewhere", "_inbox", "_left", "_loop", "_reopened", "_sock", "_tending", "shut")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        inbox: Inbox,
        *,
        reopened: Callable[[], object],
        arrived: Callable[[Received | OSError, bytes], object],
    ) -> None:
        """Begin open."""
        self._loop = loop
        self._sock = sock
        self._inbox = inbox
        self._reopened = reopened
        self._arrived = arrived
        self._left = False
        self._elsewhere = False  # whether a thread receives, or is about to
        self._tending: asyncio.TimerHandle | None = None
        self.shut = False
        """Whether nothing is to be received until one of the two was called."""

    def is_open(self) -> bool:
        """Return whether the next packet may be received now; if not, ``reopened`` or ``arrived`` is called later.

        Raises:
            ConnectionResetError: as receiving would have: it comes once, and whoever receives would not see it.
        """
        if self.shut:
            return False
        try:
            _came, brings, sender = ancillary.peek(self._sock, names_senders=self._inbox.names_senders)
        except ConnectionResetError:
            raise
        except OSError:  # whoever receives will see
            return True
        if not brings:
            return True
        uid = self._inbox.uid if sender is None else sender.uid
        if not CLOSER.has_room(uid, self, self._tell):
            self.shut = True
        elif CLOSER.is_table_short():
            # The kernel closes descriptors for which it finds no number, in the thread that receives.
            self.shut = self._elsewhere = True
            CLOSER.put(-1, uid, self._receive)
        if self.shut:
            self._tend_later()
        return not self.shut

    def _tend_later(self) -> None:
        self._tending = self._loop.call_later(_TEND_SECONDS, self._tend, context=Context())  # nobody's

    def _tend(self) -> None:
        CLOSER.tend()
        self._tend_later()

    def _tend_no_more(self) -> None:
        if self._tending is not None:
            self._tending.cancel()
            self._tending = None

    def leave(self) -> bool:
        """Call nothing any more; return whether a thread still uses the socket, which is closed once it does not."""
        CLOSER.forget(self)
        self._left = True
        if not self._elsewhere:
            self._tend_no_more()
        return self._elsewhere

    @property
    def receives(self) -> bool:
        """Whether a thread receives the next packet."""
        return self._elsewhere

    def _tell(self) -> None:
        self._loop.call_soon_threadsafe(self._reopen)

    def _reopen(self) -> None:
        self._tend_no_more()
        self.shut = False
        if not self._left:
            self._reopened()

    def _receive(self) -> None:
        """Receive a packet, in a thread that may wait for it."""
        buffer = memoryview(b"")
        try:
            buffer = memoryview(bytearray(BUFFER_BYTES))
            received: Received | OSError = ancillary.receiver(self._sock, buffer)()
        except OSError as exc:
            received = exc
        except MemoryError:  # nobody else would tell the loop that this is over
            received = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        size = 0 if isinstance(received, OSError) else received[0]
        try:
            self._loop.call_soon_threadsafe(self._arrive, received, buffer[: min(size, MAX_PACKET)].tobytes())
        except RuntimeError:  # the loop is closed
            self._drop(received)

    def _arrive(self, received: Received | OSError, data: bytes) -> None:
        self._tend_no_more()
        self.shut = self._elsewhere = False
        if self._left:
            self._drop(received)
        else:
            self._arrived(received, data)

    def _drop(self, received: Received | OSError) -> None:
        """Close what nobody wants any more."""
        if not isinstance(received, OSError):
            fds: list[OwnedFd] = []
            self._inbox.take(*received[:3], fds)
            close_all(fds)
        if self._left:
            close_unread(self._sock, self._inbox.uid, discard=False)
