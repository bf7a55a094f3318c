"""How many bytes may wait at one end of a tunnel, of all channels together.

What came through the pipe waits until its socket has room, and a memory file in a socket until somebody reads it: of
that the kernel counts a descriptor, whatever is in the file. Both ends count it by the same rule. The sender waits
until there is room, so an end that is sent more than fits knows that the other one does not keep to the rule.

There is a budget for streams, and one for connections and objects: streams that nobody reads must hold up no calls.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
import threading
from collections import deque
from typing import Final

from seqrpc.cli.frames import MOST_BYTES, BrokenTunnel

BUDGET: Final = 2 * MOST_BYTES
"""Bytes of the streams together that may be under way in one direction, and again of all else together."""

SHARE: Final = MOST_BYTES // 4
"""Bytes of one channel beyond which it may have only a single packet under way."""

_LEAST: Final = 256
"""What the kernel still counts while it frees a packet is less; any packet is more."""


class Account:
    """What one channel has sent and the other end has not taken yet.

    Args:
        is_stream: whether it is a stream's.
    """

    def __init__(self, *, is_stream: bool) -> None:
        """Begin with nothing."""
        self.is_stream = is_stream
        self.is_over = False
        """Whether nothing more is to be sent."""
        self.sizes: deque[int] = deque()
        self.under_way = 0


class Room:
    """What the other end has room for."""

    def __init__(self) -> None:
        """Begin with all of it."""
        self._used = [0, 0]
        self._changed = threading.Condition()
        self._is_over = False

    def wait(self, account: Account, size: int) -> bool:
        """Wait until there is room for a packet, and take that; return False if it is not to be sent any more."""
        with self._changed:
            while not (self._is_over or account.is_over or self._fits(account, size)):
                self._changed.wait()
            if self._is_over or account.is_over:
                return False
            account.sizes.append(size)
            account.under_way += size
            self._used[account.is_stream] += size
            return True

    def _fits(self, account: Account, size: int) -> bool:
        if account.under_way and account.under_way + size > SHARE:
            return False
        return self._used[account.is_stream] + size <= BUDGET

    def credit(self, account: Account, number: int) -> None:
        """Hear that the first packets of those that are under way were taken."""
        with self._changed:
            for _ in range(min(number, len(account.sizes))):
                self._give(account, account.sizes.popleft())
            self._changed.notify_all()

    def settle(self, account: Account) -> None:
        """Hear that the other end has nothing of a channel any more, and takes nothing."""
        with self._changed:
            account.is_over = True
            account.sizes.clear()
            self._give(account, account.under_way)
            self._changed.notify_all()

    def _give(self, account: Account, size: int) -> None:
        account.under_way -= size
        self._used[account.is_stream] -= size

    def leave(self, account: Account) -> None:
        """Let a channel send nothing any more; what is under way still takes its room."""
        with self._changed:
            account.is_over = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


class Held:
    """What is held at this end."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._used = [0, 0]
        self._lock = threading.Lock()

    def take(self, size: int, *, is_stream: bool) -> None:
        """Count what came.

        Raises:
            BrokenTunnel: there is no room for it, which the other end knew.
        """
        with self._lock:
            used = self._used[is_stream] + size
            if used > BUDGET:
                raise BrokenTunnel(f"it sent {used} bytes that nobody has read yet, of {BUDGET} that may be under way")
            self._used[is_stream] = used

    def give(self, size: int, *, is_stream: bool) -> None:
        """Count what is held no more."""
        with self._lock:
            self._used[is_stream] -= size


def wait_taken(sock: socket.socket) -> None:
    """Wait until all that was sent through a socket has been received, or its other end is closed."""
    # Without epoll, as on other systems, and on a socket that was closed here nothing can be known.
    with contextlib.suppress(OSError, AttributeError), select.epoll() as poller:
        # By edges: each packet that is received is one.
        poller.register(sock.fileno(), select.EPOLLOUT | select.EPOLLET)
        while _unread(sock) >= _LEAST:
            for _fd, events in poller.poll():
                if events & (select.EPOLLHUP | select.EPOLLERR):
                    return


def _unread(sock: socket.socket) -> int:
    """Return what the kernel counts of packets that were sent and not received."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)
