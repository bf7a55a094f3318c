"""Sockets: connected to an address, inherited, or in pairs."""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import stat
import sys

from seqrpc.errors import AddressError, ConnectDenied, ConnectError, NobodyListens, WrongSocketType
from seqrpc.kernel.addresses import AbstractAddress, Address, FdAddress, PathAddress
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.text import shown

_AUTOBIND = rb"\0[0-9a-f]{5}"  # unix(7), "Autobind feature"

_DENIED = (
    "permission denied: this needs write permission on the socket file, for which the daemon's mode= and group= are,"
    " and search permission on its directories"
)

_REASONS: dict[int, tuple[type[ConnectError], str]] = {
    errno.ENOENT: (NobodyListens, "there is no such file: the daemon has not started yet, or listens elsewhere"),
    errno.ECONNREFUSED: (NobodyListens, "nobody listens there: the daemon has ended, or has not started yet"),
    errno.EPROTOTYPE: (WrongSocketType, "the socket there is not of type SOCK_SEQPACKET: it is another program's"),
    errno.EACCES: (ConnectDenied, _DENIED),
    errno.EPERM: (ConnectDenied, "permission denied, by a security module or a filter"),
    errno.ENOTDIR: (ConnectError, "a part of the path is no directory"),
}


def new_socket() -> socket.socket:
    """Return a fresh SEQPACKET socket, non-blocking and close-on-exec; the caller owns it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    return sock


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected ends whose packets carry their true sender (protocol 9.2); the caller owns both.

    Give one to another process (as ``fd:N``, through ``pass_fds``) and keep the other.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        PLATFORM.ask_for_senders(end)
    return ours, theirs


_NARROW_BYTES = 2_048  # Linux makes it at least 4,608: room for six or seven packets with a memory file


_DOUBLED = 2 if sys.platform == "linux" else 1  # getsockopt returns twice what was set (socket(7))


class SendRoom:
    """How much may wait in a socket that the peer has not read yet: as much as usual, or very little.

    The kernel counts the bytes of packets, but not those of memory files that leave with them: some 280 memory files
    would fit into the usual buffer, however large they are. So the room is narrow while memory files leave.

    Args:
        sock: the socket, borrowed.
    """

    __slots__ = ("_sock", "_usual_bytes", "narrow")

    def __init__(self, sock: socket.socket) -> None:
        """Leave the room as it is."""
        self._sock = sock
        self._usual_bytes = 0
        self.narrow = False
        """Whether only little may wait now."""

    def change(self, *, narrow: bool) -> None:
        """Let only little wait, or as much as usual; does nothing if that is so already."""
        if narrow == self.narrow:
            return
        self.narrow = narrow
        option = socket.SOL_SOCKET, socket.SO_SNDBUF
        if narrow:
            self._usual_bytes = self._sock.getsockopt(*option)
            self._sock.setsockopt(*option, _NARROW_BYTES)
            return
        self._sock.setsockopt(*option, self._usual_bytes // _DOUBLED)


def never_wait(sock: socket.socket) -> None:
    """Let Python not wait for a socket before it asks the kernel, as it does where sockets have a default time-out."""
    if sock.gettimeout():
        sock.setblocking(False)


def adopt(owned_fd: OwnedFd, name: str) -> socket.socket:
    """Return an inherited descriptor as a socket, close-on-exec; the caller owns it.

    This takes the descriptor, and closes it if it does not fit. It leaves the blocking mode alone, which
    other processes may share.

    Raises:
        AddressError: it is not open, no socket, or no SEQPACKET Unix socket; the message says which.
    """
    fd = owned_fd.detach()
    try:
        os.set_inheritable(fd, False)
    except OSError:
        raise AddressError(f"{name}: the descriptor is not open") from None
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise AddressError(f"{name}: the descriptor is not a socket") from None
    try:
        check_socket(sock, name)
    except BaseException:
        sock.close()
        raise
    return sock


def check_socket(sock: socket.socket, name: str) -> None:
    """Check that a socket that somebody hands us is a SEQPACKET Unix socket.

    Raises:
        AddressError: it is not; the message says what it is.
    """
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
        raise AddressError(
            f"{name}: a Unix socket of type SOCK_SEQPACKET was expected, got {sock.family!r} {sock.type!r}"
        )


def is_connected_seqpacket(owned_fd: OwnedFd) -> bool:
    """Return whether a descriptor, borrowed, is a connected SEQPACKET Unix socket."""
    fd = owned_fd.fileno()
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        sock.getpeername()
    except OSError:
        return False
    else:
        return sock.family == socket.AF_UNIX and sock.type == socket.SOCK_SEQPACKET
    finally:
        sock.detach()


def is_listening(sock: socket.socket) -> bool:
    """Return whether ``listen`` was called on the socket (``SO_ACCEPTCONN``)."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0


def somebody_waits(sock: socket.socket) -> bool:
    """Return whether somebody waits to be accepted from a listening socket, by any process that has it (poll(2))."""
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(0))


def inherited_socket(address: Address) -> socket.socket | None:
    """Return the socket of an ``fd:`` or ``systemd:`` address, owned by the caller; None for other addresses.

    Raises:
        AddressError: there is no such socket, or it does not fit.
    """
    if isinstance(address, PathAddress | AbstractAddress):
        return None
    if not isinstance(address, FdAddress):
        from seqrpc.kernel.systemd import take_passed_socket  # noqa: PLC0415 - only daemons need it

        return adopt(take_passed_socket(address.name), str(address))
    try:
        duplicate = OwnedFd.dup(address.fd)
    except OSError:
        raise AddressError(f"{address}: the descriptor is not open") from None
    # A wrong number may belong to somebody else, such as the event loop: take the descriptor only once it fits.
    adopt(duplicate, str(address)).close()
    return adopt(OwnedFd(address.fd), str(address))


def connect(address: Address) -> socket.socket:
    """Return a connected socket, owned by the caller, without waiting.

    Raises:
        BlockingIOError: the listener's backlog is full and *nothing is in progress*: try again later.
            (Waiting for the socket to become writable would end at once, with an unconnected socket.)
        ConnectError: connecting failed; class and message say why.
        AddressError: an inherited descriptor does not fit.
    """
    inherited = inherited_socket(address)
    if inherited is not None:
        return _check_connected(inherited, address)
    try:
        sock = new_socket()
    except OSError as exc:
        raise _explain(exc, address) from None
    try:
        if isinstance(address, PathAddress):
            connect_path(sock, address.path)
        else:
            assert isinstance(address, AbstractAddress)
            sock.connect(abstract_name(address))
    except BlockingIOError:
        sock.close()
        raise
    except OSError as exc:
        sock.close()
        raise _explain(exc, address) from None
    except BaseException:
        sock.close()
        raise
    return sock


def _check_connected(sock: socket.socket, address: Address) -> socket.socket:
    try:
        sock.getpeername()
    except OSError:
        what = "listens" if is_listening(sock) else "is not connected"
        sock.close()
        raise AddressError(f"{address}: a connected socket was expected, this one {what}") from None
    distrust_names(sock)
    return sock


def distrust_names(sock: socket.socket) -> None:
    """Make a connected socket that others made ask for senders, unless ``accept`` returned it.

    Neither an end of a pair nor a socket that called ``connect`` has a name of its own, and the peer's
    name proves nothing: the holder of the other end of a pair may bind it to a name, and would then
    pass for the pair's maker (see :func:`names_senders`).
    """
    if not _is_chosen(sock.getsockname()):
        PLATFORM.ask_for_senders(sock)


def connect_path(sock: socket.socket, path: str) -> None:
    """Connect to a socket file with a path of any length; raises the errors that :func:`connect` explains."""
    if fits(path):
        sock.connect(path)
        return
    if sys.platform != "linux":
        raise OSError(errno.ENAMETOOLONG, f"paths of sockets have less than {PLATFORM.sun_path_bytes} bytes here")
    with OwnedFd(os.open(path, os.O_PATH | os.O_CLOEXEC)) as file:
        sock.connect(f"/proc/self/fd/{file.fileno()}")


def fits(path: str) -> bool:
    """Return whether a path with its final NUL fits into a socket address."""
    return len(os.fsencode(path)) < PLATFORM.sun_path_bytes


def abstract_name(address: AbstractAddress) -> bytes:
    """Return the name in the kernel's form.

    Raises:
        AddressError: this kernel has no abstract namespace.
    """
    if sys.platform != "linux":
        raise AddressError(f"{address}: abstract names exist on Linux only")
    return b"\0" + address.name


def _explain(exc: OSError, address: Address) -> ConnectError:
    number = exc.errno or errno.EIO
    kind, reason = _REASONS.get(number) or (ConnectError, exc.strerror or str(exc))
    if number == errno.ECONNREFUSED and isinstance(address, PathAddress) and not _is_socket_file(address.path):
        kind, reason = WrongSocketType, "the file there is not a socket"
    return kind(number, f"cannot connect to {shown(address)}: {reason}")


def _is_socket_file(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return True  # gone meanwhile


def names_senders(sock: socket.socket) -> bool:
    """Return whether each packet on this connected socket, and not the socket, tells who calls.

    This is so on a socket pair, whose ``SO_PEERCRED`` names the pair's maker at both ends (protocol 9.2),
    and on a socket that somebody set to ask for senders. A pair has no names, or only those that the
    kernel gave it when credentials were first sent (unix(7), "Autobind feature"). The peer of a pair may
    give its end a name at any time, so a socket from elsewhere goes through :func:`distrust_names` first.
    """
    return PLATFORM.asks_for_senders(sock) or not is_named(sock)


def is_named(sock: socket.socket) -> bool:
    """Return whether somebody gave a name to one end of a connected socket, as whoever listens does."""
    return _is_chosen(sock.getsockname()) or _is_chosen(sock.getpeername())


def _is_chosen(name: str | bytes) -> bool:
    if isinstance(name, bytes) and name.startswith(b"\0"):
        return re.fullmatch(_AUTOBIND, name) is None
    return bool(name)
