"""What a process gives up before it works for others: user, groups, limits, priority.

Standard library only, for it runs in a child that loads little else.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import resource
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION: Final = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
_KEYCTL: Final = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "i686": 288, "ppc64le": 271, "s390x": 280}
"""The number of keyctl(2), for which libc has no function."""

_NEVER: Final = 0xFFFFFFFF  # (uid_t) -1, which the system calls take for "as it is"

Bounds = tuple[int, int]
"""The soft and the hard limit of a resource."""


class Restraints(NamedTuple):
    """What a process gives up. What is None, empty or 0 stays as it is."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    """The supplementary groups."""

    limits: tuple[tuple[int, int, int], ...] = ()
    """Resources (getrlimit(2)), each with its soft and hard limit."""

    nice: int = 0
    """What is added to its nice value (nice(2))."""

    no_new_privileges: bool = False
    """Whether programs that it executes gain nothing by being set-user-ID (prctl(2))."""

    cwd: str | None = None
    """The working directory; entered with the rights from before."""


def restraints(
    *,
    user: int | str | None = None,
    group: int | str | None = None,
    groups: Iterable[int | str] | None = None,
    limits: Mapping[str | int, int | Bounds] | None = None,
    nice: int = 0,
    no_new_privileges: bool = False,
    cwd: str | os.PathLike[str] | None = None,
) -> Restraints:
    """Return restraints, with names looked up in the user database.

    Args:
        user: the user, by name or number.
        group: the group; by default that of the user.
        groups: the supplementary groups; by default none, if there is a user.
        limits: by name, such as ``"nofile"`` or ``"as"``, or number: one limit, or the soft and the hard one.
        nice: what is added to the nice value.
        no_new_privileges: see :class:`Restraints`.
        cwd: the working directory.

    Raises:
        ValueError: there is no such user, group or resource, or a user is given without a group that can be found.
        TypeError: one is of another type.
    """
    uid = None if user is None else _id_of("user", user, lambda name: pwd.getpwnam(name).pw_uid)
    gid = None if group is None else _id_of("group", group, lambda name: grp.getgrnam(name).gr_gid)
    if uid is not None and gid is None:
        gid = _group_of(uid)
    others: tuple[int, ...] | None
    if groups is None:
        others = None if uid is None else ()
    elif isinstance(groups, str):
        raise TypeError(f"groups= takes several, as [{groups!r}]")
    else:
        others = tuple(_id_of("groups", each, lambda name: grp.getgrnam(name).gr_gid) for each in groups)
    bounds = tuple((_resource_of(each), *_bounds_of(each, value)) for each, value in (limits or {}).items())
    if type(nice) is not int:
        raise TypeError(f"nice= takes a whole number, got {nice!r}")
    directory = None if cwd is None else os.path.abspath(cwd)
    return Restraints(uid, gid, others, bounds, nice, no_new_privileges, directory)


def _id_of(what: str, value: int | str, look_up: Any) -> int:
    if isinstance(value, str):
        try:
            return int(look_up(value))
        except KeyError:
            raise ValueError(f"{what}= names {value!r}, whom the user database does not know") from None
    if type(value) is not int:
        raise TypeError(f"{what}= takes a name or a number, got {value!r}")
    if not 0 <= value < _NEVER:
        raise ValueError(f"{what}={value} is no id: they go from 0 to {_NEVER - 1}")
    return value


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        text = f"user={uid} has no group in the user database: give one with group="
        raise ValueError(text) from None


def _resource_of(what: str | int) -> int:
    if type(what) is int:
        return what
    number = getattr(resource, f"RLIMIT_{what.upper()}", None) if isinstance(what, str) else None
    if number is None:
        known = sorted(name[7:].lower() for name in dir(resource) if name.startswith("RLIMIT_"))
        raise ValueError(f"limits= has {what!r}, which is no resource; there are {', '.join(known)}")
    return int(number)


def _bounds_of(what: str | int, value: int | Bounds) -> Bounds:
    bounds = (value, value) if type(value) is int else value
    are_bounds = isinstance(bounds, tuple | list) and [type(each) for each in bounds] == [int, int]
    if not are_bounds:
        raise TypeError(f"limits={{{what!r}: ...}} takes a whole number, or two, got {value!r}")
    soft, hard = bounds  # type: ignore[misc] # it was looked at
    return soft, hard


def give_up(what: Restraints) -> None:
    """Give up what is said, in this process and for good.

    The order is that in which each is still allowed: limits and priority, which may have to be raised, come before the
    user; groups before it, too, for afterwards they cannot be set.

    Raises:
        OSError: the system does not allow it. The process may be half way, and should end.
    """
    if what.nice:
        os.nice(what.nice)
    for number, soft, hard in what.limits:
        resource.setrlimit(number, (soft, hard))
    if what.cwd is not None:
        os.chdir(what.cwd)
    if what.groups is not None:
        os.setgroups(what.groups)
    if what.gid is not None:
        os.setresgid(what.gid, what.gid, what.gid)
    if what.uid is not None:
        _leave_session()
        os.setresuid(what.uid, what.uid, what.uid)
        if what.uid:
            _drop_capabilities()
    if what.no_new_privileges:
        _no_new_privileges()
    _check(what)


def _leave_session() -> None:
    """Leave the terminal, which is everybody's in its session, and the keys of the session (session-keyring(7))."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        _libc().syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)  # a kernel without keyrings has none to leave


def _drop_capabilities() -> None:
    """Keep no capability: the kernel takes them only from who was root, and not always (capabilities(7)).

    Raises:
        OSError: some are left.
    """
    import ctypes  # noqa: PLC0415 - few need it

    libc = _libc()
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    if libc.capset(header, none) != 0:
        raise _failed("capset")
    left = (ctypes.c_uint32 * 6)()
    if libc.capget(header, left) != 0:
        raise _failed("capget")
    if any(left):
        raise OSError(errno.EPERM, "the process has capabilities left")


def _no_new_privileges() -> None:
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _failed("PR_SET_NO_NEW_PRIVS")


def _libc() -> Any:
    import ctypes  # noqa: PLC0415 - few need it

    return ctypes.CDLL(None, use_errno=True)


def _failed(what: str) -> OSError:
    import ctypes  # noqa: PLC0415 - few need it

    number = ctypes.get_errno() or errno.EINVAL
    return OSError(number, f"{what}: {os.strerror(number)}")


def _check(what: Restraints) -> None:
    """Check that nothing of it is left.

    Raises:
        OSError: the process still has another user, or another group.
    """
    uids, gids = os.getresuid(), os.getresgid()
    if what.uid is not None and set(uids) != {what.uid}:
        raise OSError(errno.EPERM, f"user {what.uid} was wanted, and the process has {uids}")
    if what.gid is not None and set(gids) != {what.gid}:
        raise OSError(errno.EPERM, f"group {what.gid} was wanted, and the process has {gids}")
    if what.groups is not None and set(os.getgroups()) - {*what.groups, what.gid}:
        raise OSError(errno.EPERM, f"groups {what.groups} were wanted, and the process has {os.getgroups()}")
