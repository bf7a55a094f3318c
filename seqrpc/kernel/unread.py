"""Closing sockets of ours that others may have sent something to: descriptors that nobody read are closed with them."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from typing import Final

from seqrpc.kernel import ancillary, forks
from seqrpc.kernel.closing import CLOSER, Sender
from seqrpc.kernel.descriptors import OwnedFd, sender_of
from seqrpc.kernel.platforms import PLATFORM

_DISCARDED_PACKETS: Final = 1024
"""Unread packets thrown away at a close, so that the peer is not reset (protocol 1.6)."""

_DISCARDED_AT_ONCE: Final = 16
"""Those of them that are thrown away at once: of hundreds of connections that end together all would take long."""


def close_unread(sock: socket.socket, sender: Sender, *, discard: bool) -> None:
    """Close a connected socket that only this process uses, and wait for nothing that its peer sent and nobody read.

    Args:
        sock: the socket; it is closed, or on its way to be.
        sender: the uid of the peer.
        discard: throw away what is unread first, so that the peer is not reset.
    """
    if sock.fileno() < 0 or forks.was_missed():  # to shut down a copy would shut down the parent's
        sock.close()
        return
    try:
        if _is_emptied(sock, _DISCARDED_AT_ONCE if discard else 0):
            sock.close()
    finally:
        fd = sock.detach()
        if fd >= 0:
            CLOSER.put(fd, sender, functools.partial(_discard, fd) if discard else None)


def close_value(fd: OwnedFd) -> None:
    """Close the socket of a received value that only this process has, so that its peer hears of it at once."""
    if not fd.closed:
        sender = sender_of(fd)
        close_unread(socket.socket(fileno=fd.take()), sender, discard=False)


def _is_emptied(sock: socket.socket, most: int) -> bool:
    """Throw away up to ``most`` packets that bring no descriptors; return whether none is left, nor can come."""
    with contextlib.suppress(OSError):  # it is not connected
        sock.shutdown(socket.SHUT_RD)
        PLATFORM.ask_for_senders(sock)  # which tells an empty packet from the end
    for left in range(most, -1, -1):
        try:
            came, brings, _sender = _peek_after_reset(sock)
        except OSError:  # nothing is there
            return True
        if not came:
            return True
        if brings:
            break
        if left:
            sock.recv(1)
    return False


def _peek_after_reset(sock: socket.socket) -> tuple[bool, bool, object]:
    try:
        return ancillary.peek(sock, names_senders=True)
    except ConnectionResetError:  # it comes before what is there, once
        return ancillary.peek(sock, names_senders=True)


def _discard(fd: int) -> None:
    """Throw away what is unread, and with it its descriptors, for which there is no room; this may wait for them."""
    for _ in range(_DISCARDED_PACKETS):
        os.read(fd, 1)


def close_listening(sock: socket.socket, *, frees_name: bool) -> None:
    """Close a listening socket that only this process uses, with the connections that nobody accepted.

    Args:
        sock: the socket; it is closed, or on its way to be.
        frees_name: whether its name is to be free when this returns. Who waits to be accepted is not reset then, but
            sees the end.
    """
    if forks.was_missed():
        sock.close()
        return
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)  # nobody connects any more
    try:
        while frees_name:
            accepted, _address = sock.accept()
            close_unread(accepted, None, discard=False)
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EINVAL):  # nobody is left
            sock.close()
    fd = sock.detach()
    if fd >= 0:
        CLOSER.put(fd)
