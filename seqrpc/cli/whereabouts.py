"""Where the file of a socket is that somebody listens at.

The kernel tells what was given to bind(2). Of a relative path, and of one in another mount namespace, that does not say
how to get there; the process that listens does, if this user may look at it (proc(5), ``cwd`` and ``root``). Whether
the file there is the one that was bound is the kernel's word, too (sock_diag(7), ``UDIAG_SHOW_VFS``).
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

_HEAD: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST: Final = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_FOUND: Final = struct.Struct("=BBBBIII")  # struct unix_diag_msg
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_LISTENING: Final = 1 << 10  # TCP_LISTEN, which is used here, too
_SHOW_VFS: Final = 2  # UDIAG_SHOW_VFS
_VFS: Final = 1  # UNIX_DIAG_VFS: the inode of the file and its device, 4 bytes each
_ENDS: Final = (2, 3)  # NLMSG_ERROR, NLMSG_DONE

_PATIENCE: Final = 1.0  # seconds: the kernel answers at once

_SHORT: Final = 0xFFFF_FFFF  # it tells 32 bits of an inode


class Bound(NamedTuple):
    """A socket with a path."""

    inode: int
    """Of the socket, in the kernel's own file system."""

    path: str
    """What was given to bind(2)."""


class Whereabouts(NamedTuple):
    """Where it is."""

    path: str
    """A path that leads there; if none does, what was given to bind(2)."""

    remark: str = ""
    """Why none does."""


def files_of_listeners() -> dict[int, int]:
    """Return the inodes of the files that sockets are bound to, by those of the sockets; nothing if nobody tells."""
    found: dict[int, int] = {}
    with (
        contextlib.suppress(OSError, AttributeError, struct.error),  # another kernel, or one that does not answer
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as sock,
    ):
        sock.settimeout(_PATIENCE)
        request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _LISTENING, 0, _SHOW_VFS, _SHORT, _SHORT)
        sock.send(_HEAD.pack(_HEAD.size + len(request), _BY_FAMILY, _DUMP, 1, 0) + request)
        while found_in(sock.recv(1 << 16), found):
            pass
    return found


def found_in(data: bytes, found: dict[int, int]) -> bool:
    """Add what one answer of the kernel's tells; return whether another follows.

    Raises:
        struct.error: it is none.
    """
    at = 0
    while at < len(data):
        size, kind, _flags, _number, _port = _HEAD.unpack_from(data, at)
        if kind in _ENDS or size < _HEAD.size:
            return False
        fields = _FOUND.unpack_from(data, at + _HEAD.size)
        part, end = at + _HEAD.size + _FOUND.size, at + size
        while part < end:
            length, attribute = _ATTRIBUTE.unpack_from(data, part)
            if attribute == _VFS:
                (found[fields[4]],) = struct.unpack_from("=I", data, part + _ATTRIBUTE.size)
            part += max(_aligned(length), _ATTRIBUTE.size)
        at += _aligned(size)
    return True


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def owners_of(inodes: Container[int]) -> dict[int, list[int]]:
    """Return the processes that have some sockets, as far as this user may know."""
    found: dict[int, list[int]] = {}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        for inode in set(_sockets_of(pid)):
            if inode in inodes:
                found.setdefault(inode, []).append(pid)
    return found


def _sockets_of(pid: int) -> Iterator[int]:
    directory = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                kind, _, number = os.readlink(f"{directory}/{name}").partition(":")
                if kind == "socket":
                    yield int(number.strip("[]"))


def located(sockets: Sequence[Bound], files: Mapping[int, int]) -> list[Whereabouts]:
    """Return where sockets are, in their order.

    Args:
        sockets: those.
        files: as :func:`files_of_listeners` returns them.
    """
    at_hand = [_is_at(each.path, each, files) if each.path.startswith("/") else False for each in sockets]
    lost = {each.inode for each, is_here in zip(sockets, at_hand, strict=True) if is_here is False}
    owners = owners_of(lost) if lost else {}
    return [
        Whereabouts(each.path) if is_here is not False else _searched(each, files, owners.get(each.inode, ()))
        for each, is_here in zip(sockets, at_hand, strict=True)
    ]


def _is_at(path: str, bound: Bound, files: Mapping[int, int]) -> bool | None:
    """Return whether a path leads to a socket; None if this user may not look."""
    try:
        found = os.stat(path)
    except PermissionError:
        return None
    except (OSError, ValueError):
        return False
    wanted = files.get(bound.inode)
    return stat.S_ISSOCK(found.st_mode) and (wanted is None or wanted == found.st_ino & _SHORT)


def _searched(bound: Bound, files: Mapping[int, int], owners: Sequence[int]) -> Whereabouts:
    for path in _candidates(bound, owners):
        if _is_at(path, bound, files):
            return Whereabouts(path)
    if not bound.path.startswith("/"):
        return Whereabouts(bound.path, "bound to a relative path: nobody tells where it begins, or its file is gone")
    if os.path.exists(bound.path):  # in its place, or the same in a file system that gives numbers of its own
        return Whereabouts(bound.path)
    return Whereabouts(bound.path, "its file is gone, or is in a mount namespace that this user may not look into")


def _candidates(bound: Bound, owners: Sequence[int]) -> Iterator[str]:
    if bound.path.startswith("/"):
        for pid in owners:
            yield f"/proc/{pid}/root{bound.path}"
        return
    yield os.path.abspath(bound.path)
    for pid in owners:
        with contextlib.suppress(OSError):
            yield os.path.normpath(os.path.join(os.readlink(f"/proc/{pid}/cwd"), bound.path))
    for pid in owners:
        yield f"/proc/{pid}/cwd/{bound.path}"
