"""Closing our sockets without waiting for what others sent to them: closing one closes unread descriptors, too."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from typing import Final

from seqrpc.kernel import ancillary, forks
from seqrpc.kernel.closing import CLOSER, Sender
from seqrpc.kernel.descriptors import OwnedFd, sender_of, socket_of
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.kernel.platforms import PLATFORM

_DISCARDED_PACKETS: Final = 1024
"""The most unread packets that are thrown away at a close, so that the peer is not reset (protocol 1.6)."""

_DISCARDED_AT_ONCE: Final = 16
"""The most of these that are thrown away at once: if hundreds of connections end together, more would take long."""


def close_unread(sock: socket.socket, sender: Sender, *, discard: bool) -> None:
    """Close a connected socket that only this process uses, without waiting for anything unread that its peer sent.

    Args:
        sock: the socket; when this returns it is closed, or a thread is about to close it.
        sender: the uid of the peer.
        discard: throw away unread packets first, so that the peer is not reset.
    """
    if sock.fileno() < 0 or forks.was_missed():  # shutting down a copy would shut down the parent's socket
        sock.close()
        return
    with Uninterrupted():
        try:
            if _is_emptied(sock, _DISCARDED_AT_ONCE if discard else 0):
                with contextlib.suppress(OSError):  # a thread may close it, and its peer is to notice now
                    sock.shutdown(socket.SHUT_WR)
                sock.close()
        finally:
            fd = sock.detach()
            if fd >= 0:
                CLOSER.put(fd, sender, functools.partial(_discard, fd) if discard else None)


def close_value(fd: OwnedFd) -> None:
    """Close the socket of a received value that only this process has, so that its peer notices at once."""
    if not fd.closed:
        sender = sender_of(fd)
        with Uninterrupted():
            close_unread(socket_of(fd), sender, discard=False)


def _is_emptied(sock: socket.socket, most: int) -> bool:
    """Throw away up to ``most`` packets without descriptors; return whether none is left and none can come."""
    with contextlib.suppress(OSError):  # it is not connected
        sock.shutdown(socket.SHUT_RD)
        PLATFORM.ask_for_senders(sock)  # so that an empty packet differs from the end
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
    except ConnectionResetError:  # comes once, before the packets that are there
        return ancillary.peek(sock, names_senders=True)


def _discard(fd: int) -> None:
    """Throw away unread packets and, as there is no room for them, their descriptors; closing these may take long."""
    for _ in range(_DISCARDED_PACKETS):
        os.read(fd, 1)


def close_listening(sock: socket.socket, *, frees_name: bool) -> None:
    """Close a listening socket that only this process uses, with the connections that nobody accepted.

    Args:
        sock: the socket; when this returns it is closed, or a thread is about to close it.
        frees_name: whether its name must be free when this returns. Those who wait to be accepted are then not reset,
            but see the end.
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
