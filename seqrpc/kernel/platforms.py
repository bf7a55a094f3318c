"""Which kernel this is, and what differs between kernels."""

from __future__ import annotations

import socket
import sys
from typing import Protocol

from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.linux import Linux


class Platform(Protocol):
    """What differs between kernels about identity and addresses."""

    sun_path_bytes: int
    """Bytes of a socket address's path, its final NUL included where one is needed."""

    credentials_come_once: bool
    """True if :meth:`ask_for_senders` makes only the first packet carry credentials."""

    def peer_credentials(self, sock: socket.socket) -> Credentials | None:
        """Return who is at the other end of a connected socket, or None if the kernel does not say."""
        ...

    def ask_for_senders(self, sock: socket.socket) -> None:
        """Make packets that arrive at ``sock`` carry their true sender (protocol 9.2)."""
        ...

    def asks_for_senders(self, sock: socket.socket) -> bool:
        """Return whether :meth:`ask_for_senders` was called on this socket, by anyone."""
        ...

    def sender_credentials(self, level: int, kind: int, data: bytes) -> Credentials | None:
        """Return the sender that a control message tells of, or None if it tells of something else."""
        ...

    def takes_descriptors(self, sock: socket.socket) -> bool:
        """Return whether descriptors may come with packets; False only if the kernel refuses them."""
        ...

    def refuse_descriptors(self, sock: socket.socket) -> bool:
        """Make the kernel refuse descriptors sent to ``sock`` and what it accepts; False if it cannot."""
        ...

    def accept_descriptors(self, sock: socket.socket) -> None:
        """Undo :meth:`refuse_descriptors`."""
        ...


def choose(name: str) -> Platform:
    """Return the platform for a value of ``sys.platform``.

    Raises:
        ImportError: this system has no Unix sockets of type SOCK_SEQPACKET that seqrpc knows; macOS has none.
    """
    if name == "linux":
        return Linux()
    if name.startswith("freebsd"):
        from seqrpc.kernel.freebsd import FreeBSD  # noqa: PLC0415 - needed only there

        return FreeBSD()
    raise ImportError(f"seqrpc needs SOCK_SEQPACKET Unix sockets and knows those of Linux and FreeBSD, not {name!r}")


PLATFORM: Platform = choose(sys.platform)
