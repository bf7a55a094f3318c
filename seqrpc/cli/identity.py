"""Being another user, for root: what that user is answered, root is shown."""

from __future__ import annotations

import os
import pwd
from importlib import import_module
from typing import Final, NamedTuple

from seqrpc.cli.endings import REFUSED, Ending, misused

_LARGEST: Final = 0xFFFF_FFFE

_LOADED_LATER: Final = (
    "base64",
    "ctypes",
    "difflib",
    "inspect",
    "queue",
    "select",
    "seqrpc.kernel.systemd",
    "seqrpc.cli.failures",
    "seqrpc.cli.offers",
    "seqrpc.cli.shell",
    "seqrpc.cli.ssh",
)
"""What is loaded when it is first used, which may lie where another user cannot read."""

_KEPT: Final = ("LANG", "LANGUAGE", "PATH", "TERM", "TZ")

_KEPT_BEGINNINGS: Final = ("LC_", "PYTHON")
"""What tells programs how to speak and where things are."""


class Identity(NamedTuple):
    """A user, with the groups that a login gives."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def identity_of(text: str) -> Identity:
    """Return whom ``text`` names: a name, a number of the user database, or ``UID:GID``.

    Raises:
        Ending: nobody.
    """
    uid, colon, gid = text.partition(":")
    if colon:
        numbers = [int(part) if part.isascii() and part.isdigit() else -1 for part in (uid, gid)]
        if not all(0 <= number <= _LARGEST for number in numbers):
            raise misused(f"--as-user {text}: numbers of 0 to {_LARGEST} are wanted, as in 1000:1000")
        return Identity(numbers[0], numbers[1], ())
    try:
        entry = pwd.getpwuid(int(text)) if text.isascii() and text.isdigit() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        known = "the user database does not know it; a number needs its group there: UID:GID"
        raise misused(f"--as-user {text}: {known}") from None
    return Identity(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)))


_others: list[Identity] = []  # whom this process has become


def is_another() -> bool:
    """Return whether this process has become somebody else."""
    return bool(_others)


def environment() -> dict[str, str]:
    """Return the environment for a program that is started: of somebody else it has nothing of this user's secrets."""
    if not _others:
        return {**os.environ}
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_BEGINNINGS)}
    try:
        entry = pwd.getpwuid(_others[-1].uid)
    except KeyError:
        return {**kept, "HOME": "/"}
    return {**kept, "HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}


def become(who: Identity) -> None:
    """Be somebody else in this process, for good.

    All of it: the kernel tells a listener the effective user of who connects, and of the sender of a packet the real
    one. The session and the terminal stay, unlike in a worker, for Ctrl-C has to arrive.

    Raises:
        Ending: this process may not.
    """
    is_same = (os.getresuid(), os.getresgid()) == ((who.uid,) * 3, (who.gid,) * 3)
    if is_same and (who.uid != 0 or {*os.getgroups()} == {*who.groups}):  # nobody but root can change their groups
        return
    for module in _LOADED_LATER:
        import_module(module)
    try:
        os.setgroups(who.groups)
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
    except PermissionError:
        raise Ending(REFUSED, f"only root can be user {who.uid}: this is user {os.geteuid()}") from None
    if not is_same:
        _others.append(who)
