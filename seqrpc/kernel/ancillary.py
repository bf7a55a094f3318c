"""The only calls of ``sendmsg`` and ``recvmsg``: packets with descriptors and credentials (unix(7), cmsg(3))."""

from __future__ import annotations

import functools
import socket
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Final

from seqrpc.kernel.closing import CLOSER, Sender
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all, received_fd, tell_senders
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import MAX_DESCRIPTORS

_INT_BYTES: Final = array("i").itemsize
_SCM_PIDFD: Final = 4  # linux/socket.h; a socket gets one only if somebody set its SO_PASSPIDFD

# Room for as many descriptors as there can be, credentials, a pidfd and a security label.
CONTROL_BYTES: Final = (
    socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT_BYTES) + 2 * socket.CMSG_SPACE(256) + socket.CMSG_SPACE(_INT_BYTES)
)

# MSG_EOR: FreeBSD 15 merges records without it. MSG_NOSIGNAL: SEQPACKET raises SIGPIPE there.
SEND_FLAGS: Final = int(socket.MSG_EOR | socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)

# On Linux MSG_TRUNC as an input makes the returned size the packet's true one (recv(2)).
RECEIVE_FLAGS: Final = int(
    getattr(socket, "MSG_CMSG_CLOEXEC", 0) | socket.MSG_DONTWAIT | (socket.MSG_TRUNC if sys.platform == "linux" else 0)
)

# Plain numbers, because arithmetic with the socket module's enumerations takes longer than the system call.
TRUNCATED: Final = int(socket.MSG_TRUNC)
"""The flag of a packet that is too long."""
_MSG_CTRUNC: Final = int(socket.MSG_CTRUNC)

WHOLE: Final = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
"""The flags of a packet that came whole and alone: Linux returns this flag as it was passed."""

_MSG_DONTWAIT: Final = int(socket.MSG_DONTWAIT)
_PEEK_FLAGS: Final = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_SENDER_ROOM: Final = socket.CMSG_SPACE(12)  # for a struct ucred, but not for a descriptor besides

_PLAIN_FLAGS: Final = int(socket.MSG_DONTWAIT | (socket.MSG_TRUNC if sys.platform == "linux" else 0))
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_SCM_RIGHTS: Final = int(socket.SCM_RIGHTS)

Control = list[tuple[int, int, bytes]]
NOTHING: Final[Control] = []
"""What comes with a packet that nothing comes with; not to be changed."""

Received = tuple[int, Control, int, object]
"""Size in bytes, control data, flags, address: what ``recvmsg_into`` returns."""


def receiver(sock: socket.socket, buffer: memoryview) -> Callable[[], Received]:
    """Return a function that receives one packet into ``buffer`` without waiting.

    The caller sees at a glance whether more than a packet came: control data, or other flags than :data:`WHOLE`. It
    must then call :func:`take_control` before anything else can fail, because there may be descriptors. Every
    descriptor is close-on-exec from the start.

    Args:
        sock: a connected socket.
        buffer: where packets go; one byte longer than the longest packet that is allowed. A packet that would fill it
            is cut, and so never looks whole.

    Raises (the function):
        BlockingIOError: there is no packet.
        OSError: the socket is broken; ``ECONNRESET`` may come before packets that are still there.
    """
    return functools.partial(sock.recvmsg_into, (buffer[:-1],), CONTROL_BYTES, RECEIVE_FLAGS)


def waiting_receiver(sock: socket.socket, buffer: memoryview) -> Callable[[], Received]:
    """Return what a :func:`receiver` is, but waits for a packet, unless the socket is non-blocking."""
    return functools.partial(sock.recvmsg_into, (buffer[:-1],), CONTROL_BYTES, RECEIVE_FLAGS & ~_MSG_DONTWAIT)


def plain_receiver(sock: socket.socket, buffer: memoryview) -> Callable[[], int]:
    """Return what is quicker than a :func:`receiver`, for a socket that neither takes descriptors nor asks for senders.

    Nothing comes with a packet but its size, of which :func:`plain` makes what a receiver gives. The kernel drops what
    still comes with one, such as descriptors sent before they were refused.
    """
    return functools.partial(sock.recv_into, buffer, len(buffer), _PLAIN_FLAGS)


def plain(size: int, room: int) -> Received:
    """Return what a :func:`receiver` gives of a packet of which a :func:`plain_receiver` gave the size.

    Args:
        size: as received.
        room: bytes of the buffer; a packet that fills it is too long.
    """
    return size, NOTHING, WHOLE if size < room else TRUNCATED, None


def peek(sock: socket.socket, *, names_senders: bool) -> tuple[bool, bool, Credentials | None]:
    """Look at the next packet without receiving it.

    Args:
        sock: a connected socket.
        names_senders: whether the socket asks for senders.

    Returns:
        ``(came, brings, sender)``. ``came``: there is a packet, and not the end; an empty packet differs from the end
        only if the socket asks for senders. ``brings``: descriptors may come with it. ``sender``: who sent it, if it
        tells.

    Raises:
        BlockingIOError, OSError: as :func:`receiver`.
    """
    # There is no room for descriptors, so that none are made; the kernel says whether there were any.
    room = _SENDER_ROOM if names_senders else 0
    data, control, flags, _address = sock.recvmsg(1, room, _PEEK_FLAGS)
    brings = bool(flags & _MSG_CTRUNC)
    return bool(data or control or brings), brings or sys.platform != "linux", _read_sender(control)


def take_control(
    size: int, control: Control, flags: int, most: int, fds: list[OwnedFd], *, uid: Sender = None
) -> tuple[int, Credentials | None, bool]:
    """Own the descriptors that came with a packet, and see who sent it.

    If some were lost (``MSG_CTRUNC``: the table is full, or a security module refused), this closes those that came,
    so the list is always complete or empty.

    Args:
        size: as received.
        control: as received.
        flags: as received.
        most: the length of the buffer.
        fds: the list to which the descriptors are appended.
        uid: whose they are, if the packet does not tell.

    Returns:
        ``(size, sender, lost)``. ``size`` is 0 at the end of the connection, and ``most`` or more if the packet was
        cut. ``sender`` is None unless the socket asks for senders
        (:meth:`~seqrpc.kernel.platforms.Platform.ask_for_senders`). ``lost``: whether descriptors were lost.
    """
    if flags & TRUNCATED:
        size = max(size, most)
    if not control and not flags & _MSG_CTRUNC:
        return size, None, False
    try:
        complete = _own_descriptors(control, fds)
        sender = _read_sender(control)  # comes first in the control data, but owning the descriptors is more urgent
    except BaseException:
        close_all(fds)
        raise
    if fds:
        tell_senders(fds, uid if sender is None else sender.uid)
        CLOSER.saw(fds[-1].fileno())
    if flags & _MSG_CTRUNC or not complete:
        close_all(fds)
        return size, sender, True
    return size, sender, False


def receive(sock: socket.socket, buffer: memoryview) -> Received:
    """Receive one packet into ``buffer`` without waiting, as the function of :func:`receiver` does, to be used once."""
    return sock.recvmsg_into((buffer[:-1],), CONTROL_BYTES, RECEIVE_FLAGS)


def numbers_in(control: Control) -> list[int]:
    """Return the numbers of the descriptors that came with a packet and that nobody owns yet."""
    kinds = (_SCM_RIGHTS, _SCM_PIDFD) if sys.platform == "linux" else (_SCM_RIGHTS,)
    rights = [data for level, kind, data in control if level == _SOL_SOCKET and kind in kinds]
    return [number for data in rights for number in _numbers(data) if number >= 0]


def _own_descriptors(control: Control, fds: list[OwnedFd]) -> bool:
    """Append the descriptors in ``control`` to ``fds``; return whether none was denied."""
    complete = True
    for level, kind, data in control:
        if level != _SOL_SOCKET:
            continue
        if kind == _SCM_RIGHTS:
            for fd in _numbers(data):
                if fd >= 0:
                    fds.append(received_fd(fd))
                else:  # Linux 7.3, SO_RIGHTS_NOTRUNC: a denied descriptor is a negative number in its place
                    complete = False
        elif kind == _SCM_PIDFD and sys.platform == "linux":
            for fd in _numbers(data):
                if fd >= 0:
                    OwnedFd(fd).close()
    return complete


def _read_sender(control: Control) -> Credentials | None:
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
        OSError: nothing was sent. ``EPIPE``: nobody reads any more, also after a reset. ``EMSGSIZE``, ``ENOBUFS``: the
            packet is too large for the kernel. ``ETOOMANYREFS``: too many descriptors of this user are under way.
            ``EPERM``: the receiver takes no descriptors. ``EBADF``: one of ``fds`` is not open.
    """
    try:
        _send(sock, data, fds)
    except ConnectionResetError:  # the kernel tells one call of that, whichever is the first, and the others EPIPE
        _send(sock, data, fds)


def _send(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int]) -> None:
    if fds:
        sock.sendmsg((data,), ((_SOL_SOCKET, _SCM_RIGHTS, array("i", fds)),), SEND_FLAGS)
    else:
        sock.send(data, SEND_FLAGS)
