"""The sending half of a line: packets that leave at once, and those that wait until some thread finds room for them."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from seqrpc.blocking.family import Family
from seqrpc.blocking.outlet import Outlet
from seqrpc.blocking.turns import Turns
from seqrpc.blocking.waiting import Bystander, Waiter
from seqrpc.errors import ConnectionLost, DeadlineExceeded, not_run
from seqrpc.kernel.ancillary import SEND_FLAGS
from seqrpc.kernel.descriptors import HasFileno, OwnedFd
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.kernel.pieces import Content
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.inbox import Inbox
from seqrpc.protocol.outbox import Outbox, Packet, lending
from seqrpc.protocol.session import Session
from seqrpc.protocol.spilled import write_spilled

_PACKET_COST: Final = 256  # bytes that an unsent packet costs besides its content


class SendingLine(ABC):
    """One end of a connection, as far as it sends.

    Args:
        sock: a connected socket; the line owns it.
        limits: bounds of this line.
        inbox: knows who is at the other end.
        session: what is owed in either direction.
    """

    __slots__ = (
        "_flushers", "_inbox", "_outlet", "broken", "closing", "fd", "limits", "lock", "sends_at_once", "session",
        "sock", "turns",
    )  # fmt: skip

    family: Family
    """What goes on while a thread waits."""

    turns: Turns
    """The threads that wait."""

    def __init__(self, sock: socket.socket, limits: Limits, inbox: Inbox, session: Session[Waiter, Any]) -> None:
        """Begin with nothing to send."""
        self.sock = sock
        self.fd = sock.fileno()
        self.limits = limits
        self._inbox = inbox
        self.session = session
        self.lock = threading.RLock()
        """Held while session, outbox and what is below are looked at or changed."""
        self._flushers: dict[Waiter, None] = {}  # those that wait until everything is sent
        self._outlet: Outlet | None = None
        self.sends_at_once = True
        """Whether nothing waits, and neither end has begun to close."""
        self.broken: OSError | None = None
        """Why nothing can be sent any more; what was sent to us is still read."""
        self.closing = False
        """Whether this end has begun to close."""

    @abstractmethod
    def end_by(self, exc: Exception | None) -> None:
        """End the connection now, and tell the reason to those who wait; None if there is no more to tell."""

    # All of it under the lock

    def send(
        self,
        data: Content,
        lenders: Sequence[HasFileno] = (),
        failed: Callable[[OSError], object] | None = None,
    ) -> None:
        """Send a packet now if the kernel takes it, else when a thread that waits finds room.

        Raises:
            ConnectionLost: the connection is closing, or ended; nothing was sent.
            ValueError, OSError, RpcError: the packet cannot be sent.
        """
        if self.sends_at_once and not lenders and len(data) <= MAX_PACKET:
            try:
                self.sock.send(data, SEND_FLAGS)  # type: ignore[arg-type] # data in pieces is longer
                return
            except OSError:  # rare enough to be tried again in the slow way
                pass
        if self.closing or self.broken is not None:
            raise not_run(ConnectionLost("the connection is closed")) from self.broken
        with Uninterrupted():
            packet = lending(data, lenders, self.too_long, failed, own=self.fd)
            outlet = self._outlet
            if outlet is None:
                outbox = Outbox(self.limits.high_water_bytes, self.limits.low_water_bytes)
                outlet = self._outlet = Outlet(self.sock, self, outbox)
            try:
                outlet.send(packet, self._inbox.uid)
            finally:
                if outlet.waits:
                    self.sends_at_once = False
                    self.turns.wake_leader()
                elif outlet.room.narrow:
                    outlet.room.change(narrow=False)

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        outlet = self._outlet
        if outlet is None or not outlet.waits:
            return
        with self.lock, Uninterrupted():
            if not outlet.flush() or self.broken is not None:  # then whoever waits for it hears of the end
                self.family.tell_watches()  # it may be tried again later now, and not when there is room, or vice versa
                return
            if outlet.room.narrow:
                outlet.room.change(narrow=False)
            self.sends_at_once = not self.closing
            while self._flushers:
                self._flushers.popitem()[0].finish()

    def wants_room(self) -> tuple[bool, int | None]:
        """Return whether the socket is to be watched for room, and when to try again without that."""
        outlet = self._outlet
        if outlet is None or not outlet.waits:
            return False, None
        return outlet.wants_room, outlet.retry_at

    @property
    def unsent_bytes(self) -> int:
        """What is kept because the other side does not read."""
        outbox = None if self._outlet is None else self._outlet.outbox
        return 0 if outbox is None else outbox.unsent_bytes + _PACKET_COST * len(outbox.packets)

    @property
    def unsent_packets(self) -> int:
        """How many packets wait to be sent."""
        return 0 if self._outlet is None else len(self._outlet.outbox.packets)

    def flush_all(self, deadline: int | None) -> None:
        """Wait until nothing waits to be sent.

        Raises:
            DeadlineExceeded: the deadline passed before.
            ConnectionLost: the connection ended before.
        """
        if self.sends_at_once:
            return
        waiter = Bystander()
        with self.lock:
            if self._outlet is None or not self._outlet.waits:
                return
            self._flushers[waiter] = None
        try:
            self.turns.wait(waiter, deadline)
        finally:
            self._flushers.pop(waiter, None)  # in one step: else those of a peer that does not read would add up
        if waiter.error is not None:
            raise waiter.error

    def wait_for_room(self, deadline: int | None) -> None:
        """Wait before sending more, if too much waits to be sent already.

        Raises:
            DeadlineExceeded: the deadline passed before.
            ConnectionLost: the connection ended before.
        """
        while self.unsent_bytes > self.limits.high_water_bytes:
            try:
                self.flush_all(deadline)
            except DeadlineExceeded:
                raise not_run(DeadlineExceeded("the deadline passed before the call could be sent")) from None

    # What the outlet tells

    def too_long(self, data: Content) -> tuple[bytes, OwnedFd]:
        """Send a message that does not fit in a packet as a memory file (protocol section 5)."""
        return self.session.spill(data), write_spilled(data)

    def writable(self) -> None:
        """Send what waits."""
        self.flush()

    def refused(self, packet: Packet, reason: Exception) -> None:
        """Tell the sender of a packet that waited, or end: nothing else would notice."""
        if packet.failed is not None and isinstance(reason, OSError):
            packet.failed(reason)
        else:
            self.end_by(reason)

    def broke(self, reason: OSError) -> None:
        """Send nothing any more; what was sent to us is still read."""
        self.broken = self.broken or reason
        self.sends_at_once = False
        if self._outlet is not None:
            self._outlet.drop()
