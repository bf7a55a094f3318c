"""Linux: ``SO_PEERCRED`` and what came after it (unix(7), socket(7))."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import struct
from typing import Final

from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd

# include/uapi/asm-generic/socket.h; the standard library has no names for these. Alpha, MIPS, PA-RISC and
# SPARC number some socket options differently, so only machines known to use the generic table get them.
_GENERIC = os.uname().machine.startswith(("x86", "i", "aarch64", "arm", "riscv", "ppc", "s390", "loong"))
SO_PEERGROUPS: Final = 59
SO_PEERPIDFD: Final = 77
SO_PASSRIGHTS: Final = 83
SO_PASSCRED: Final = getattr(socket, "SO_PASSCRED", 16)
SO_PEERCRED: Final = getattr(socket, "SO_PEERCRED", 17)
SO_PEERSEC: Final = getattr(socket, "SO_PEERSEC", 31)
SCM_CREDENTIALS: Final = getattr(socket, "SCM_CREDENTIALS", 2)
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)

_UCRED: Final = struct.Struct("iII")
_OPTION_BYTES: Final = 1024  # the most that socket.getsockopt takes
_KERNEL = "/proc/sys/kernel"


def read_overflow_ids() -> tuple[int, int]:
    """Return the uid and the gid that stand for ids unknown in this user namespace (proc_sys_kernel(5))."""
    ids = []
    for name in ("overflowuid", "overflowgid"):
        text = b"65534"  # the kernel's default, in case /proc is not mounted
        with contextlib.suppress(OSError), open(f"{_KERNEL}/{name}", "rb") as file:
            text = file.read()
        ids.append(int(text))
    return ids[0], ids[1]


# Read now, because a daemon may give up the right to read /proc, or even Python's own files, before its first caller.
OVERFLOW_UID, OVERFLOW_GID = read_overflow_ids()


def parse_ucred(data: bytes) -> tuple[int | None, int | None, int | None] | None:
    """Return pid, uid and gid of a ``struct ucred``, unknown ones as None; None if ``data`` is no such structure."""
    if len(data) != _UCRED.size:
        return None
    pid, uid, gid = _UCRED.unpack(data)
    return (
        pid if pid > 0 else None,
        None if uid in (OVERFLOW_UID, 0xFFFF_FFFF) else uid,
        None if gid in (OVERFLOW_GID, 0xFFFF_FFFF) else gid,
    )


class LinuxPeer:
    """Answers about the peer of ``sock``; each is None once the socket is closed."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        """Remember the socket, borrowed."""
        self._sock = sock

    def groups(self) -> tuple[int, ...] | None:
        """Return the supplementary groups (``SO_PEERGROUPS``) without overflow ids."""
        if not _GENERIC:
            return None
        try:
            data = self._sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _OPTION_BYTES)
        except OSError:
            large = _getsockopt_large(self._sock.fileno(), SO_PEERGROUPS)  # ERANGE: more than 256 groups
            if large is None:
                return None
            data = large
        return tuple(gid for (gid,) in struct.iter_unpack("I", data) if gid != OVERFLOW_GID)

    def pidfd(self) -> OwnedFd | None:
        """Return a pidfd of the peer (``SO_PEERPIDFD``); None before Linux 6.5, and if the peer is long gone."""
        if not _GENERIC:
            return None
        try:
            fd = self._sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except OSError:
            return None
        return OwnedFd(fd)

    def security_label(self) -> str | None:
        """Return the security label (``SO_PEERSEC``); None if no security module gives one."""
        try:
            label = self._sock.getsockopt(socket.SOL_SOCKET, SO_PEERSEC, _OPTION_BYTES)
        except OSError:
            return None
        return label.rstrip(b"\0").decode("utf-8", "backslashreplace")


def _getsockopt_large(fd: int, option: int, *, most_bytes: int = 65_536 * 4) -> bytes | None:
    """Return an option of up to ``most_bytes`` (by default the groups that ``NGROUPS_MAX`` allows)."""
    if fd < 0:
        return None
    import ctypes  # noqa: PLC0415 - it takes long to load, and hardly anybody has so many groups

    buffer = ctypes.create_string_buffer(most_bytes)
    length = ctypes.c_uint32(most_bytes)
    libc = ctypes.CDLL(None)
    if libc.getsockopt(fd, socket.SOL_SOCKET, option, buffer, ctypes.byref(length)) != 0:
        return None
    return buffer.raw[: length.value]


@functools.lru_cache(maxsize=64)
def _sender(data: bytes) -> Credentials | None:
    """Read a ``struct ucred``; cached, because a pair has the same few senders packet after packet."""
    ids = parse_ucred(data)
    if ids is None or ids == (None, None, None):
        return None
    pid, uid, gid = ids
    return Credentials(pid=pid, uid=uid, gid=gid)


class Linux:
    """The Linux half of :class:`seqrpc.kernel.platforms.Platform`."""

    sun_path_bytes = 108
    credentials_come_once = False

    def peer_credentials(self, sock: socket.socket) -> Credentials | None:
        """Return ``SO_PEERCRED``: who connected, or at the connecting end who called ``listen`` (unix(7))."""
        try:
            ids = parse_ucred(sock.getsockopt(socket.SOL_SOCKET, SO_PEERCRED, _UCRED.size))
        except OSError:
            return None
        if ids is None or ids == (None, None, None):  # not connected
            return None
        pid, uid, gid = ids
        return Credentials(pid=pid, uid=uid, gid=gid, source=LinuxPeer(sock))

    def ask_for_senders(self, sock: socket.socket) -> None:
        """Set ``SO_PASSCRED``: the kernel then adds ``SCM_CREDENTIALS`` to each packet that arrives."""
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)

    def asks_for_senders(self, sock: socket.socket) -> bool:
        """Return ``SO_PASSCRED``."""
        return sock.getsockopt(socket.SOL_SOCKET, SO_PASSCRED) != 0

    def sender_credentials(self, level: int, kind: int, data: bytes) -> Credentials | None:
        """Read ``SCM_CREDENTIALS``; None for a packet sent before anyone asked, which names nobody."""
        return _sender(data) if kind == SCM_CREDENTIALS and level == _SOL_SOCKET else None

    def takes_descriptors(self, sock: socket.socket) -> bool:
        """Return ``SO_PASSRIGHTS``; True before Linux 6.16, which has no such option."""
        if not _GENERIC:
            return True
        try:
            return sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) != 0
        except OSError:
            return True

    def accept_descriptors(self, sock: socket.socket) -> None:
        """Undo :meth:`refuse_descriptors`."""
        if not self.takes_descriptors(sock):
            sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 1)

    def refuse_descriptors(self, sock: socket.socket) -> bool:
        """Clear ``SO_PASSRIGHTS`` (Linux 6.16): a sender of descriptors gets ``EPERM`` (protocol 9.3)."""
        if not _GENERIC:
            return False
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError:
            return False
        return True
