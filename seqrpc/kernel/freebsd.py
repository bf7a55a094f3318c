"""FreeBSD: ``LOCAL_PEERCRED`` and ``LOCAL_CREDS`` (FreeBSD unix(4), sys/ucred.h, sys/socket.h).

This is tested against the byte layouts of the structures, not on a FreeBSD machine.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from seqrpc.kernel.credentials import Credentials

SOL_LOCAL: Final = 0
LOCAL_PEERCRED: Final = 1
LOCAL_CREDS: Final = 2
SCM_CREDS: Final = 3

# struct xucred { u_int cr_version; uid_t cr_uid; short cr_ngroups; gid_t cr_groups[16];
#                 union { void *_cr_unused1; pid_t cr_pid; }; }
_XUCRED: Final = struct.Struct("@IIh2x16I")
_XUCRED_PID: Final = struct.Struct("@IIh2x16I0Pi")  # 0P: aligned as the union with a pointer is
_XUCRED_BYTES: Final = struct.calcsize("@IIh2x16I0PP")
_XUCRED_VERSION: Final = 0
_XUCRED_GROUPS: Final = 16

# struct sockcred { uid_t sc_uid, sc_euid; gid_t sc_gid, sc_egid; int sc_ngroups; gid_t sc_groups[]; }
_SOCKCRED: Final = struct.Struct("@IIIIi")

_UNKNOWN: Final = (65_534, 0xFFFF_FFFF)  # "nobody" and "nogroup", and -1


def _known(number: int) -> int | None:
    return None if number in _UNKNOWN else number


def parse_xucred(data: bytes) -> Credentials | None:
    """Return the credentials of a ``struct xucred``; None if ``data`` is none, or has another version."""
    if len(data) < _XUCRED.size:
        return None
    version, uid, count, *groups = _XUCRED.unpack_from(data)
    if version != _XUCRED_VERSION or not 0 < count <= _XUCRED_GROUPS:
        return None
    pid = _XUCRED_PID.unpack_from(data)[-1] if len(data) >= _XUCRED_PID.size else 0
    # The first group is the effective gid (sys/ucred.h: cr_gid is cr_groups[0]).
    return Credentials(
        pid=pid if pid > 0 else None, uid=_known(uid), gid=_known(groups[0]), groups=_groups(groups[1:count])
    )


def parse_sockcred(data: bytes) -> Credentials | None:
    """Return the credentials of a ``struct sockcred``, which has no pid; None if ``data`` is none."""
    if len(data) < _SOCKCRED.size:
        return None
    _uid, euid, _gid, egid, count = _SOCKCRED.unpack_from(data)
    if count < 0 or len(data) < _SOCKCRED.size + 4 * count:
        return None
    groups = struct.unpack_from(f"@{count}I", data, _SOCKCRED.size)
    return Credentials(pid=None, uid=_known(euid), gid=_known(egid), groups=_groups(groups))


def _groups(numbers: list[int] | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(number for number in numbers if number not in _UNKNOWN)


class FreeBSD:
    """The FreeBSD half of :class:`seqrpc.kernel.platforms.Platform`."""

    sun_path_bytes = 104
    credentials_come_once = True

    def peer_credentials(self, sock: socket.socket) -> Credentials | None:
        """Return ``LOCAL_PEERCRED``: who connected, or at the connecting end who called ``listen``."""
        try:
            return parse_xucred(sock.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, _XUCRED_BYTES))
        except OSError:
            return None

    def ask_for_senders(self, sock: socket.socket) -> None:
        """Set ``LOCAL_CREDS``: the first packet that arrives then carries its sender's credentials."""
        sock.setsockopt(SOL_LOCAL, LOCAL_CREDS, 1)

    def asks_for_senders(self, sock: socket.socket) -> bool:
        """Return ``LOCAL_CREDS``."""
        return sock.getsockopt(SOL_LOCAL, LOCAL_CREDS) != 0

    def sender_credentials(self, level: int, kind: int, data: bytes) -> Credentials | None:
        """Read ``SCM_CREDS``; with ``LOCAL_CREDS`` set the kernel drops those that a sender made up."""
        if level != socket.SOL_SOCKET or kind != SCM_CREDS:
            return None
        return parse_sockcred(data)

    def takes_descriptors(self, sock: socket.socket) -> bool:  # noqa: ARG002 - the signature of Platform
        """Return True: FreeBSD cannot refuse them."""
        return True

    def refuse_descriptors(self, sock: socket.socket) -> bool:  # noqa: ARG002 - the signature of Platform
        """Return False: seqrpc closes descriptors that nobody asked for after they came."""
        return False

    def accept_descriptors(self, sock: socket.socket) -> None:
        """Do nothing: FreeBSD never refuses them."""
