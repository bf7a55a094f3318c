"""What came in over a socket: packets, each with its descriptors and its sender, or something else that a receive gave.

Nothing here receives or waits. Whoever drives an inbox gives it what a receive call gave, where there was more than a
plain packet: control data, or other flags than :data:`~seqrpc.kernel.ancillary.WHOLE`, or no bytes.
"""

from __future__ import annotations

import errno
import threading
from enum import Enum, auto

from seqrpc.kernel import ancillary
from seqrpc.kernel.ancillary import Control
from seqrpc.kernel.closing import Sender
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import MAX_PACKET

BUFFER_BYTES = MAX_PACKET + 1
"""Bytes of a buffer to receive into: one more than the longest packet, so that what is longer does not look whole."""

_thread = threading.local()


def receive_buffer() -> memoryview:
    """Return this thread's receive buffer: what is read is copied out before anything else runs."""
    buffer: memoryview | None = getattr(_thread, "buffer", None)
    if buffer is None:
        buffer = _thread.buffer = memoryview(bytearray(BUFFER_BYTES))
    return buffer


def hides_packets(exc: OSError) -> bool:
    """Return whether receiving failed in a way that comes once, before packets that are still there (protocol 1.6)."""
    return exc.errno == errno.ECONNRESET


class Trouble(Enum):
    """What came in place of a packet."""

    END = auto()
    """The end of the connection, or an empty packet."""
    TOO_LONG = auto()
    """A packet of more than 65,536 bytes; it is lost."""
    DESCRIPTORS_LOST = auto()
    """A packet some of whose descriptors were lost on the way; the others are closed."""


class Inbox:
    """Tells what came in over one socket.

    Args:
        peer: who is at the other end, if that is known.
        uid: that of whoever is at the other end, if no more is known.
        names_senders: whether each packet tells who sent it; ``peer`` does not count then.
    """

    __slots__ = ("names_senders", "peer", "uid")

    def __init__(self, peer: Credentials | None = None, uid: Sender = None, *, names_senders: bool = False) -> None:
        """Begin with nothing."""
        self.peer = peer
        self.uid = uid if peer is None else peer.uid
        """Who sends what comes, where a packet does not tell."""
        self.names_senders = names_senders

    def take(
        self, size: int, control: Control, flags: int, fds: list[OwnedFd]
    ) -> tuple[int, Credentials | None, Trouble | None]:
        """Take what a receive call gave. Call it before anything else can fail, for there may be descriptors.

        Args:
            size: as received.
            control: as received.
            flags: as received.
            fds: where the descriptors go, if there is a packet; they are the caller's.

        Returns:
            ``(size, sender, trouble)``. ``size``: of the packet, or more than 65,536. ``sender``: who sent it, if that
            is known. ``trouble``: None if there is a packet, which is in the buffer.
        """
        size, sender, lost = ancillary.take_control(size, control, flags, BUFFER_BYTES, fds, uid=self.uid)
        if not self.names_senders:
            sender = self.peer
        elif PLATFORM.credentials_come_once and sender is not None:
            self.peer, self.uid = sender, sender.uid
        elif PLATFORM.credentials_come_once:
            sender = self.peer
        if not lost and 0 < size <= MAX_PACKET:
            return size, sender, None
        close_all(fds)
        if size == 0:
            return size, sender, Trouble.END
        return size, sender, Trouble.TOO_LONG if size > MAX_PACKET else Trouble.DESCRIPTORS_LOST
