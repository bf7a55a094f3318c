"""Descriptors that were sent and that nobody has received yet, and the memory behind them.

The kernel counts the descriptors for the user who sent them, in all processes, and refuses more than ``RLIMIT_NOFILE``
(``ETOOMANYREFS``, unix(7)). So peers that do not read what they asked for could keep a server from sending any to
others. The memory files of long messages are among them, which nobody counts: in a socket's queue each takes as little
room as a short packet. What a peer has not received is booked on the account of its user.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import sys
import termios
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Final

from seqrpc.aio.accounts import CONNECTIONS, IN_FLIGHT, UNSENT_BYTES, Account
from seqrpc.kernel import forks

_LOOK_AT: Final = 64
"""So many on one connection from which on it is asked after each whether they were received, which is a system call."""

_LEAST_BYTES: Final = 512 if sys.platform == "linux" else 1
"""What a packet in a socket's queue counts for at least: Linux counts 768 bytes for an empty one, others its data."""

_RESTS: Final = 10
"""So many times as long as a look at all connections of a user took, until the next: of a thousand it takes 1 ms."""

_MOST_LONG: Final = 8
"""Long messages of one connection that may be unread at most, besides those that wait on this side: fewer go into a
socket's queue while memory files do (:class:`~seqrpc.kernel.sockets.SendRoom`)."""

_HELD_UP_DELAY: Final = 0.25
_HELD_UP_SHARE: Final = 0.001
"""Seconds between looks of one that is held up: at least so many, and so many for each with something in flight. A look
with its timer takes some 10 us, so a user keeps the loop busy with them for a hundredth of the time."""

_FIRST_DELAY: Final = 0.01
_LAST_DELAY: Final = 1.0
"""Seconds between looks at what is left of a connection that has ended."""


def unread_bytes(fd: int) -> int:
    """Return how much that was sent over a socket its peer has not received; 0 if nothing is left (``SIOCOUTQ``)."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0])
    except (OSError, ValueError):  # it is closed
        return 0


class InFlight:
    """The descriptors that were sent over one connection.

    Args:
        sock: the connection's, borrowed until :meth:`end`.
        account: of the user at the other end.
        waits: how many packets wait on this side to be sent.
    """

    __slots__ = (
        "__weakref__", "_account", "_long", "_number", "_packets", "_sock", "_timer", "_waits", "long_bytes", "times",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, account: Account, waits: Callable[[], int]) -> None:
        """Begin with none."""
        self._sock = sock
        self._account = account
        self._waits = waits
        self._number = 0
        # Most connections never have any, and an empty deque has room for sixty.
        self._packets: deque[int] | None = None  # descriptors of each packet that had any, the oldest first
        self._long: deque[int] | None = None  # bytes of each long message, the oldest first
        self.long_bytes = 0
        """Bytes of long messages that were sent, or wait to be."""
        self.times = 0
        """How often something left at once, which it does a few times only while nothing is read."""
        self._timer: asyncio.TimerHandle | None = None  # once the connection has ended

    def lack(self, number: int, long_bytes: int = 0) -> str | None:
        """Return why so many more descriptors, with a long message of so many bytes, cannot be sent, or None."""
        if (self.long_bytes and long_bytes) or self._number >= _LOOK_AT:  # before this one is sent, and unread
            self.look()
        account, ledger = self._account, self._account.ledger
        lack = self._lack(number, long_bytes)
        if lack is not None and account.may_look(_RESTS * account.look_seconds, began := time.monotonic()):
            account.look()
            account.look_seconds = time.monotonic() - began
            lack = self._lack(number, long_bytes)
        interval = _RESTS * ledger.look_seconds  # everybody pays for the time
        if lack is not None and lack.startswith("all ") and ledger.may_look(interval, began := time.monotonic()):
            ledger.look()
            ledger.look_seconds = time.monotonic() - began
            lack = self._lack(number, long_bytes)
        return lack

    def _lack(self, number: int, long_bytes: int) -> str | None:
        account = self._account
        return account.lack(IN_FLIGHT, number) or (account.lack(UNSENT_BYTES, long_bytes) if long_bytes else None)

    def holds_up(self) -> bool:
        """Return whether something here is unread, while the user leaves unread a quarter of what it may.

        Whoever can wait until it is read then should, rather than send more: others of the user have as much to send.
        """
        if not self._number:
            return False
        account = self._account
        for kind in (IN_FLIGHT, UNSENT_BYTES):
            if 4 * account.held[kind] > account.most(kind)[0]:
                self.look()
                return self._number > 0
        return False

    @property
    def look_again_after(self) -> float:
        """Seconds that whoever is held up should wait at most before it asks again.

        A user whose streams are held up by the thousand waits longer: together they ask as often as a few hundred do.
        """
        return max(_HELD_UP_DELAY, _HELD_UP_SHARE * len(self._account.in_flight))

    def sent(self, number: int, long_bytes: int = 0) -> None:
        """Hear that so many, with a long message of so many bytes, were sent, or wait to be."""
        self._number += number
        if self._packets is None:
            self._packets = deque()
        self._packets.append(number)
        self._account.book(IN_FLIGHT, number)
        self.times += not self._waits()
        if long_bytes:
            if self._long is None:
                self._long = deque()
            self._long.append(long_bytes)
            more = long_bytes - (self._long.popleft() if len(self._long) > _MOST_LONG else 0)
            self.long_bytes += more
            self._account.book(UNSENT_BYTES, more)
        self._account.in_flight.add(self)
        if self._number >= _LOOK_AT:
            self.look()

    @property
    def progress(self) -> tuple[int, int]:
        """What changes as something is received, and not as something more has to wait."""
        return self.times, unread_bytes(self._sock.fileno())

    def look(self) -> None:
        """Take off the account what was received: of packets those that cannot be unread, of long bytes all or none."""
        packets = self._packets
        if not self._number or packets is None:
            return
        waiting, unread = self._waits(), unread_bytes(self._sock.fileno())
        if not waiting and not unread:
            self.forget()
            return
        # Packets are received in their order. One more may be about to leave.
        unread_packets, received = waiting + unread // _LEAST_BYTES + 1, 0
        while len(packets) > unread_packets:
            received += packets.popleft()
        self._number -= received
        self._account.release(IN_FLIGHT, received)

    def forget(self) -> None:
        """Take off the account what there is, and look no more."""
        self._account.release(IN_FLIGHT, self._number)
        self._account.release(UNSENT_BYTES, self.long_bytes)
        self._account.in_flight.discard(self)
        self._number = self.long_bytes = 0
        self._packets = self._long = None
        if self._timer is not None:
            self._timer.cancel()
            self._account.release(CONNECTIONS)
            self._account.ledger.left_in_flight.discard(self)
            self._sock.close()

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear that the connection ends: what its peer has not received stays booked until that is gone as well."""
        self._waits = _nothing  # what waited is dropped
        self.look()
        if not self._number or loop.is_closed():
            self.forget()
            return
        ledger = self._account.ledger
        try:
            sock = socket.socket(fileno=os.dup(self._sock.fileno()))
        except OSError:
            self.forget()
            return
        self._sock = sock
        self._account.book(CONNECTIONS)  # it has a descriptor here still
        forks.register(self, InFlight._let_go_in_child)
        with suppress(OSError):  # the peer is to see the end behind what is there
            sock.shutdown(socket.SHUT_RDWR)
        ledger.left_in_flight.add(self)
        self._look_again(loop, _FIRST_DELAY)
        if ledger.closed:
            self.forget()

    def _let_go_in_child(self) -> None:
        """Close the copy of the socket: this is a forked child."""
        self._sock.close()

    def _look_again(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        self._timer = loop.call_later(delay, self._look_at_rest, loop, min(2 * delay, _LAST_DELAY), context=Context())

    def _look_at_rest(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        self.look()
        if self._number:
            self._look_again(loop, delay)


def _nothing() -> int:
    return 0
