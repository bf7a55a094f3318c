"""Sending on an event loop: an outbox, the socket that it sends over, and the loop that watches that for room."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from typing import Any, Final, Protocol

from seqrpc.errors import ConnectionLost
from seqrpc.kernel import ancillary
from seqrpc.kernel.closing import Sender
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.pieces import Content
from seqrpc.kernel.sockets import SendRoom
from seqrpc.protocol.outbox import RETRY_DELAY, Outbox, Packet, Verdict, judge

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


class Outlet:
    """Sends packets over one socket; a packet that must wait goes as soon as there is room.

    Most connections have no outlet: they send everything at once by themselves.

    Args:
        loop: the running loop.
        sock: the socket, borrowed.
        owner: is told what becomes of the packets.
        outbox: where packets wait.
    """

    __slots__ = ("_loop", "_owner", "_retry", "_sock", "outbox", "room", "watching")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: Owner, outbox: Outbox) -> None:
        """Begin with nothing to send."""
        self._loop = loop
        self._sock = sock
        self._owner = owner
        self.watching = False
        """Whether the loop watches for room."""
        self._retry: asyncio.TimerHandle | None = None
        self.outbox = outbox
        self.room = SendRoom(sock)
        """How much may wait in the socket: it stays as the last packet wanted it."""

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
        while True:
            try:
                if packet.narrow is not room.narrow:
                    room.change(narrow=packet.narrow)
                numbers = packet.numbers() if packet.fds else packet.lent
                ancillary.send(self._sock, packet.data, numbers)  # type: ignore[arg-type] # data in pieces is spilled
            except OSError as exc:
                verdict, reason = judge(packet, exc, self._owner.too_long)
            else:
                if packet.fds:
                    packet.sent()
                return True
            if verdict is Verdict.WAIT:
                return False
            if verdict is not Verdict.AGAIN:
                packet.unsent()
                if verdict is not Verdict.BROKEN:
                    raise reason
                assert isinstance(reason, OSError)
                self._owner.broke(reason)
                raise ConnectionLost(f"nobody reads the connection any more: {reason.strerror}") from reason

    def flush(self, until: float = math.inf) -> bool:
        """Send what waits until the kernel takes no more; return whether nothing waits any more.

        Args:
            until: when to stop, by the monotonic clock, so that others on the loop can run.
        """
        outbox = self.outbox
        while (packet := outbox.first) is not None and _monotonic() < until:
            try:
                self.room.change(narrow=packet.narrow)
                ancillary.send(self._sock, packet.data, packet.numbers())  # type: ignore[arg-type] # as above
            except Exception as exc:
                if not self.failed(exc):
                    return False
            else:
                outbox.sent()
        if outbox.packets:
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
            self._retry = self._loop.call_later(RETRY_DELAY, self._try_again)
            return False
        if verdict is Verdict.REFUSED:
            self._owner.refused(packet, reason)
        elif verdict is Verdict.BROKEN:
            assert isinstance(reason, OSError)
            self._owner.broke(reason)
        return True

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

    def drop(self) -> None:
        """Let go of what waits; nothing of it is sent."""
        self._unwatch()
        self.outbox.drop()

    def let_go_in_child(self) -> list[Any]:
        """Stop working: this is a copy in a forked child. Return the packets that wait, without telling them."""
        self._retry = None
        self.watching = self.room.narrow = False
        return self.outbox.forget()
