"""Who is at the other end, as the kernel vouches for it."""

from __future__ import annotations

from typing import Final, NoReturn, Protocol

from seqrpc.kernel.descriptors import OwnedFd

_MOST_SHOWN: Final = 16  # groups


class Credentials:
    """The kernel's word on a process: who connected, who listens, or who sent one packet.

    Pid, uid and gid are known from the start. The kernel is asked for groups, pidfd and security label
    when they are wanted, as long as the socket is open; they are ``None`` if it has none.

    An unknown id is ``None``. The kernel shows it as the overflow uid or gid (for a user that does not exist in
    this user namespace; "nobody" has the same number, so nobody is unknown too), as pid 0 (for a process of
    another pid namespace), or as -1. Unknown ids match no rule of :mod:`seqrpc.policy`.

    Sources: unix(7) ``SO_PEERCRED``, ``SCM_CREDENTIALS``; user_namespaces(7); FreeBSD unix(4).

    Args:
        pid: the process, or None; only for logs, because the kernel reuses numbers.
        uid: the effective user id, or None; of a packet's sender on Linux, the real one.
        gid: the group id of the same kind, or None.
        groups: the supplementary groups, if they are known already.
        source: answers about the rest; None if there are no answers, as for a packet's sender.
    """

    __slots__ = ("_groups", "_source", "gid", "pid", "uid")

    pid: int | None
    uid: int | None
    gid: int | None
    _groups: tuple[int, ...] | None
    _source: PeerSource | None

    def __init__(
        self,
        *,
        pid: int | None,
        uid: int | None,
        gid: int | None,
        groups: tuple[int, ...] | None = None,
        source: PeerSource | None = None,
    ) -> None:
        """Hold what is known; ask for nothing yet."""
        values = (("pid", pid), ("uid", uid), ("gid", gid), ("_groups", groups), ("_source", source))
        for name, value in values:
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: nobody may change the kernel's word, and one object may stand for many packets."""
        raise AttributeError(f"credentials are read-only, {name} cannot be set")

    @property
    def groups(self) -> tuple[int, ...] | None:
        """The supplementary group ids when the connection was made (``SO_PEERGROUPS``), or None if unknown."""
        if self._groups is None and self._source is not None:
            object.__setattr__(self, "_groups", self._source.groups())
        return self._groups

    def pidfd(self) -> OwnedFd | None:
        """Return a new pidfd of the process (``SO_PEERPIDFD``, Linux 6.5), or None; the caller owns it.

        Unlike a pid, it names the process for good.
        """
        return None if self._source is None else self._source.pidfd()

    @property
    def security_label(self) -> str | None:
        """The label that the security module gave (``SO_PEERSEC``: SELinux, Smack, AppArmor), or None."""
        return None if self._source is None else self._source.security_label()

    def __eq__(self, other: object) -> bool:
        """Compare pid, uid and gid."""
        if not isinstance(other, Credentials):
            return NotImplemented
        return (self.pid, self.uid, self.gid) == (other.pid, other.uid, other.gid)

    def __hash__(self) -> int:
        """Hash pid, uid and gid."""
        return hash((self.pid, self.uid, self.gid))

    def __repr__(self) -> str:
        """Return the three ids and the groups, of very many only some; for groups the kernel is asked, once."""
        groups = self.groups
        if groups is None:
            told = "unknown"
        elif len(groups) > _MOST_SHOWN:
            told = f"({', '.join(map(str, groups[:_MOST_SHOWN]))}, and {len(groups) - _MOST_SHOWN} more)"
        else:
            told = str(groups)
        return f"Credentials(pid={self.pid}, uid={self.uid}, gid={self.gid}, groups={told})"


class PeerSource(Protocol):
    """Answers about the peer of one socket, when somebody asks."""

    def groups(self) -> tuple[int, ...] | None:
        """Return the supplementary groups, or None if the kernel does not say."""
        ...

    def pidfd(self) -> OwnedFd | None:
        """Return a new pidfd, owned by the caller, or None if the kernel has none."""
        ...

    def security_label(self) -> str | None:
        """Return the security label, or None if the kernel has none."""
        ...
