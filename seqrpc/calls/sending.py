"""Sending over one socket: an outbox, and what drives it. How the socket is watched for room is another matter."""

from __future__ import annotations

import math
import socket
import time
from abc import ABC, abstractmethod
from typing import Final, Protocol

from seqrpc.errors import ConnectionLost, not_run
from seqrpc.kernel import ancillary
from seqrpc.kernel.closing import Sender
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.pieces import Content
from seqrpc.kernel.sockets import SendRoom
from seqrpc.protocol.outbox import Outbox, Packet, Verdict, judge

_monotonic: Final = time.monotonic


class Owner(Protocol):
    """Whoever sends through an outlet, and is told what becomes of the packets."""

    def too_long(self, data: Content) -> tuple[bytes, OwnedFd] | None:
        """Return what to send in place of data that is too long; see :data:`~seqrpc.protocol.outbox.Spill`."""
        ...

    def writable(self) -> None:
        """Hear that there may be room again, and flush what waits."""
        ...

    def refused(self, packet: Packet, reason: Exception) -> None:
        """Hear that a packet that waited will never be sent."""
        ...

    def broke(self, reason: OSError) -> None:
        """Hear that nobody reads any more, and drop what waits."""
        ...


class Sending(ABC):
    """Sends packets over one socket; a packet that must wait goes as soon as there is room.

    Most connections have none: they send everything at once by themselves.

    Args:
        sock: the socket, borrowed.
        owner: is told what becomes of the packets.
        outbox: where packets wait.
    """

    __slots__ = ("_owner", "_sock", "outbox", "room")

    def __init__(self, sock: socket.socket, owner: Owner, outbox: Outbox) -> None:
        """Begin with nothing to send."""
        self._sock = sock
        self._owner = owner
        self.outbox = outbox
        self.room = SendRoom(sock)
        """How much may wait in the socket: it stays as the last packet wanted it."""

    @abstractmethod
    def _watch(self) -> None:
        """Have :meth:`flush` called once the socket has room."""

    @abstractmethod
    def _watch_later(self) -> None:
        """Have :meth:`flush` called after :data:`~seqrpc.protocol.outbox.RETRY_DELAY`."""

    @abstractmethod
    def _unwatch(self) -> None:
        """Watch for nothing any more."""

    def send(self, packet: Packet, sender: Sender = None) -> None:
        """Send a packet to which descriptors are lent, now or as soon as there is room; never wait.

        Args:
            packet: the packet.
            sender: see :meth:`~seqrpc.protocol.outbox.Packet.keep`.

        Raises:
            ConnectionLost: nobody reads any more; the owner was told.
            Exception: the packet is refused.
        """
        if not self.outbox.packets and self._sends_at_once(packet):
            return
        packet.keep(sender)
        self.outbox.add(packet)
        self._watch()

    def _sends_at_once(self, packet: Packet) -> bool:
        """Send a packet if that goes at once; return False if it must be kept."""
        room = self.room
        reason: Exception | None = None
        try:
            while True:
                try:
                    if packet.narrow is not room.narrow:
                        room.change(narrow=packet.narrow)
                    numbers = packet.numbers() if packet.fds else packet.lent
                    ancillary.send(self._sock, packet.data, numbers)  # type: ignore[arg-type] # what is in pieces is spilled
                except OSError as exc:
                    verdict, reason = judge(packet, exc, self._owner.too_long)
                else:
                    if packet.fds:
                        self._sent(packet)
                    return True
                if verdict is Verdict.WAIT:
                    return False
                if verdict is not Verdict.AGAIN:
                    packet.unsent()
                    raise self._why(verdict, reason)
        finally:
            del reason  # which refers to this frame, and so to itself and to the packet

    def _sent(self, packet: Packet) -> None:
        """Close what was the own of a packet that was sent at once."""
        packet.sent()

    def _why(self, verdict: Verdict, reason: Exception) -> Exception:
        """Return what to raise in whoever sends; where nobody reads any more, the owner is told."""
        if verdict is not Verdict.BROKEN:
            return reason
        assert isinstance(reason, OSError)
        self._owner.broke(reason)
        lost = not_run(ConnectionLost(f"nobody reads the connection any more: {reason.strerror}"))
        lost.__cause__ = reason
        return lost

    def flush(self, until: float = math.inf) -> bool:
        """Send what waits until the kernel takes no more; return whether nothing waits any more.

        What still waits is watched for.

        Args:
            until: when to stop, by the monotonic clock, so that others on the loop can run; one packet is tried anyway.
        """
        outbox = self.outbox
        while (packet := outbox.first) is not None:
            try:
                self.room.change(narrow=packet.narrow)
                ancillary.send(self._sock, packet.data, packet.numbers())  # type: ignore[arg-type] # as above
            except Exception as exc:
                if not self.failed(exc):
                    return False
            else:
                outbox.sent()
            if _monotonic() >= until:
                break
        if outbox.packets:  # the time is up; nobody watches if this was to try again what the kernel had no room for
            self._watch()
            return False
        self._unwatch()
        return True

    def failed(self, exc: Exception) -> bool:
        """Handle a failure to send the first packet; return whether to go on at once."""
        packet = self.outbox.first
        assert packet is not None
        verdict, reason = self.outbox.failed(exc, self._owner.too_long)
        if verdict is Verdict.WAIT:
            self._watch()
            return False
        if verdict is Verdict.LATER:
            self._unwatch()
            self._watch_later()
            return False
        if verdict is Verdict.REFUSED:
            self._owner.refused(packet, reason)
        elif verdict is Verdict.BROKEN:
            assert isinstance(reason, OSError)
            self._owner.broke(reason)
        return True

    def drop(self) -> None:
        """Let go of what waits; nothing of it is sent."""
        self._unwatch()
        self.outbox.drop()
