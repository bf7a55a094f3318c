"""Somebody else, as the kernel would tell of them: for tests that are to be another user without being root."""

from __future__ import annotations

import grp
import os
import sys
from collections.abc import Iterable
from typing import Final

from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import HasFileno, OwnedFd
from seqrpc.text import shown

_MOST: Final = 0xFFFF_FFFE

_SAME: Final = object()


class _Told:
    """Answers about a caller who was made up: what the test said."""

    __slots__ = ("_label", "_pidfd")

    def __init__(self, pidfd: int | HasFileno | None, label: str | None) -> None:
        self._pidfd = pidfd
        self._label = label

    def groups(self) -> tuple[int, ...] | None:
        return None  # only asked where the test said that they are unknown

    def pidfd(self) -> OwnedFd | None:
        return None if self._pidfd is None else OwnedFd.dup(self._pidfd)

    def security_label(self) -> str | None:
        return self._label


def caller(
    *,
    uid: int | None,
    gid: int | str | None = _SAME,  # type: ignore[assignment] # None means something
    groups: Iterable[int | str] | None = (),
    pid: int | None = _SAME,  # type: ignore[assignment] # likewise
    pidfd: int | HasFileno | None = None,
    security_label: str | None = None,
) -> Credentials:
    """Return the credentials of somebody else, as the kernel would tell of one who connected.

    They are for :func:`~seqrpc.testing.serve_in_memory` and :func:`~seqrpc.testing.admits`, and no server at an
    address takes them. None is what the kernel does not know, as for a user of another user namespace: it matches no
    rule of :mod:`seqrpc.policy`.

    Args:
        uid: the effective user id.
        gid: the group, by number or by its name on this machine; by default of the same number as ``uid``.
        groups: the supplementary groups, likewise; by default there are none, and None is "unknown".
        pid: the process; by default this one, so that a handler that looks at ``/proc`` finds something.
        pidfd: a descriptor that ``Credentials.pidfd()`` duplicates; by default it returns None.
        security_label: by default there is none.

    Raises:
        ValueError: a number that no user or group can have, or that the kernel would tell as unknown; or a group that
            this machine does not have.
        TypeError: something is no number.
    """
    uid = None if uid is None else _checked(uid, "uid")
    group = uid if gid is _SAME else None if gid is None else _number_of(gid, "gid")
    known = None if groups is None else tuple(_number_of(each, "groups") for each in _listed(groups))
    process = os.getpid() if pid is _SAME else pid
    if process is not None and (type(process) is not int or process <= 0):
        raise ValueError(f"pid= takes the number of a process, or None, got {shown(repr(process))}")
    return Credentials(pid=process, uid=uid, gid=group, groups=known, source=_Told(pidfd, security_label))


def _listed(groups: Iterable[int | str]) -> Iterable[int | str]:
    if isinstance(groups, str | int):
        raise TypeError(f"groups= takes a list, got {shown(repr(groups))}: write [{shown(repr(groups))}]")
    return groups


def _number_of(group: int | str, name: str) -> int:
    if not isinstance(group, str):
        return _checked(group, name)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"{name}= names the group {shown(group)!r}, which this machine does not have") from None


def _checked(number: int, name: str) -> int:
    if type(number) is not int:
        raise TypeError(f"{name}= takes a number, got {shown(repr(number))}")
    if not 0 <= number <= _MOST:
        raise ValueError(f"{name}= takes a number of 0 to {_MOST}, got {number}")
    if sys.platform == "linux":
        from seqrpc.kernel import linux  # noqa: PLC0415 - only there

        if number == (linux.OVERFLOW_UID if name == "uid" else linux.OVERFLOW_GID):
            raise ValueError(f"{name}={number} stands for an unknown one, of which the kernel says nothing: write None")
    return number
