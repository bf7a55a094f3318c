"""The only ``sendmsg`` and ``recvmsg``: packets with their descriptors and credentials (unix(7), cmsg(3))."""

from __future__ import annotations

import socket
import sys
from array import array
from collections.abc import Sequence
from typing import Final

from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import MAX_DESCRIPTORS

_INT_BYTES: Final = array("i").itemsize
_SCM_PIDFD: Final = 4  # linux/socket.h; only a socket whose SO_PASSPIDFD somebody set gets one

# Room for all the descriptors there can be, credentials, a pidfd and a security label.
CONTROL_BYTES: Final = (
    socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT_BYTES) + 2 * socket.CMSG_SPACE(256) + socket.CMSG_SPACE(_INT_BYTES)
)

# MSG_EOR: FreeBSD 15 merges records without it. MSG_NOSIGNAL: SEQPACKET raises SIGPIPE there.
SEND_FLAGS: Final = int(socket.MSG_EOR | socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)

# On Linux MSG_TRUNC as an input makes the returned size the packet's true one (recv(2)).
RECEIVE_FLAGS: Final = int(
    getattr(socket, "MSG_CMSG_CLOEXEC", 0) | socket.MSG_DONTWAIT | (socket.MSG_TRUNC if sys.platform == "linux" else 0)
)

# Plain numbers: arithmetic with the socket module's enumerations takes longer than the system call.
_MSG_TRUNC: Final = int(socket.MSG_TRUNC)
_MSG_CTRUNC: Final = int(socket.MSG_CTRUNC)
_MSG_CUT: Final = _MSG_TRUNC | _MSG_CTRUNC
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_SCM_RIGHTS: Final = int(socket.SCM_RIGHTS)

_Control = list[tuple[int, int, bytes]]

Received = tuple[int, list[OwnedFd], Credentials | None, bool]
"""Size in bytes, descriptors, sender, and whether descriptors were lost on the way."""


def receive(sock: socket.socket, buffer: memoryview) -> Received:
    """Receive one packet into ``buffer`` without waiting, and own the descriptors that came with it.

    Every descriptor is close-on-exec from the start and has an owner before anything else can fail.
    If some were lost (``MSG_CTRUNC``: the table is full, or a security module said no), those that
    came are closed here, so the list is always complete or empty.

    Args:
        sock: a connected socket.
        buffer: where the packet goes; one byte longer than the longest packet that is welcome.

    Returns:
        ``(size, fds, sender, lost)``. ``size`` is 0 at the end of the connection and above
        ``len(buffer)``, or equal to it, if the packet was cut. ``sender`` is None unless the
        socket asks for senders (:meth:`~seqrpc.kernel.credentials.Platform.ask_for_senders`).

    Raises:
        BlockingIOError: nothing is there.
        OSError: the socket is broken; ``ECONNRESET`` may come before packets that are still there.
    """
    size, control, flags, _address = sock.recvmsg_into((buffer,), CONTROL_BYTES, RECEIVE_FLAGS)
    if not control and not flags & _MSG_CUT:
        return size, [], None, False
    if flags & _MSG_TRUNC:
        size = max(size, len(buffer))
    fds: list[OwnedFd] = []
    try:
        complete = _own_descriptors(control, fds)
        sender = _read_sender(control)  # it comes first in the control data, but it can wait
    except BaseException:
        close_all(fds)
        raise
    if flags & _MSG_CTRUNC or not complete:
        close_all(fds)
        return size, fds, sender, True
    return size, fds, sender, False


def _own_descriptors(control: _Control, fds: list[OwnedFd]) -> bool:
    """Append the descriptors in ``control`` to ``fds``; return whether none was denied."""
    complete = True
    for level, kind, data in control:
        if level != _SOL_SOCKET:
            continue
        if kind == _SCM_RIGHTS:
            for fd in _numbers(data):
                if fd >= 0:
                    fds.append(OwnedFd(fd))
                else:  # Linux 7.3, SO_RIGHTS_NOTRUNC: a denied descriptor is a negative number in its place
                    complete = False
        elif kind == _SCM_PIDFD and sys.platform == "linux":
            for fd in _numbers(data):
                if fd >= 0:
                    OwnedFd(fd).close()
    return complete


def _read_sender(control: _Control) -> Credentials | None:
    sender = None
    for level, kind, data in control:
        sender = PLATFORM.sender_credentials(level, kind, data) or sender
    return sender


def _numbers(data: bytes) -> array[int]:
    numbers = array("i")
    numbers.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    return numbers


def send(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int] = ()) -> None:
    """Send one packet, whole or not at all, without waiting; ``fds`` are borrowed.

    Args:
        sock: a connected socket.
        data: 1 to :data:`~seqrpc.limits.MAX_PACKET` bytes.
        fds: 0 to :data:`~seqrpc.limits.MAX_DESCRIPTORS` descriptors.

    Raises:
        BlockingIOError: the socket's buffer is full; nothing was sent.
        OSError: nothing was sent. ``EPIPE``: nobody reads any more. ``EMSGSIZE``, ``ENOBUFS``: the kernel
            takes no packet that large. ``ETOOMANYREFS``: too many descriptors of this user are under way.
            ``EPERM``: the receiver takes no descriptors. ``EBADF``: one of ``fds`` is not open.
    """
    if fds:
        sock.sendmsg((data,), ((_SOL_SOCKET, _SCM_RIGHTS, array("i", fds)),), SEND_FLAGS)
    else:
        sock.send(data, SEND_FLAGS)
