from __future__ import annotations

import os
import socket

import pytest

from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.linux import LinuxPeer


class Source:
    """A kernel that gives everything, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def groups(self) -> tuple[int, ...] | None:
        self.asked += 1
        return (4, 27)

    def pidfd(self) -> OwnedFd | None:
        return OwnedFd(os.pidfd_open(os.getpid()))

    def security_label(self) -> str | None:
        return "system_u:system_r:init_t"


def test_ids_are_as_given() -> None:
    credentials = Credentials(pid=10, uid=20, gid=None)
    assert (credentials.pid, credentials.uid, credentials.gid) == (10, 20, None)


def test_without_a_source_the_rest_is_unknown() -> None:
    credentials = Credentials(pid=1, uid=2, gid=3)
    assert credentials.groups is None
    assert credentials.pidfd() is None
    assert credentials.security_label is None


def test_groups_that_are_known_are_not_asked_for() -> None:
    source = Source()
    credentials = Credentials(pid=1, uid=2, gid=3, groups=(), source=source)
    assert credentials.groups == ()
    assert source.asked == 0


def test_groups_are_asked_for_once_and_when_wanted() -> None:
    source = Source()
    credentials = Credentials(pid=1, uid=2, gid=3, source=source)
    assert source.asked == 0
    assert credentials.groups == (4, 27)
    assert credentials.groups == (4, 27)
    assert source.asked == 1


def test_every_pidfd_is_new_and_the_caller_s() -> None:
    credentials = Credentials(pid=1, uid=2, gid=3, source=Source())
    first, second = credentials.pidfd(), credentials.pidfd()
    assert first is not None
    assert second is not None
    with first, second:
        assert first.fileno() != second.fileno()


def test_the_label_comes_from_the_source() -> None:
    assert Credentials(pid=1, uid=2, gid=3, source=Source()).security_label == "system_u:system_r:init_t"


def test_groups_that_were_asked_for_outlive_the_socket() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        seen = Credentials(pid=1, uid=2, gid=3, source=LinuxPeer(ours))
        late = Credentials(pid=1, uid=2, gid=3, source=LinuxPeer(ours))
        assert seen.groups == tuple(os.getgroups())
    assert seen.groups == tuple(os.getgroups())
    assert late.groups is None
    assert late.pidfd() is None
    assert late.security_label is None


def test_equality_and_hash_are_those_of_the_three_ids() -> None:
    one = Credentials(pid=1, uid=2, gid=3, groups=(4,))
    same = Credentials(pid=1, uid=2, gid=3)
    assert one == same
    assert len({one, same}) == 1
    for other in (
        Credentials(pid=9, uid=2, gid=3),
        Credentials(pid=1, uid=9, gid=3),
        Credentials(pid=1, uid=2, gid=9),
        Credentials(pid=1, uid=2, gid=None),
    ):
        assert one != other
    assert one != (1, 2, 3)


@pytest.mark.parametrize(
    "groups, told",
    [
        (None, "unknown"),
        ((), "()"),
        ((4,), "(4,)"),
        ((4, 27), "(4, 27)"),
        (tuple(range(16)), str(tuple(range(16)))),
        (tuple(range(65_536)), f"({str(tuple(range(16)))[1:-1]}, and 65520 more)"),
    ],
)
def test_repr_shows_the_three_ids_and_groups_as_far_as_they_are_known(
    groups: tuple[int, ...] | None, told: str
) -> None:
    assert repr(Credentials(pid=1, uid=None, gid=3, groups=groups)) == (
        f"Credentials(pid=1, uid=None, gid=3, groups={told})"
    )


def test_repr_asks_for_groups_once() -> None:
    source = Source()
    credentials = Credentials(pid=1, uid=2, gid=3, source=source)
    assert {repr(credentials) for _ in range(2)} == {"Credentials(pid=1, uid=2, gid=3, groups=(4, 27))"}
    assert source.asked == 1


def test_nothing_can_be_added() -> None:
    credentials = Credentials(pid=1, uid=2, gid=3)
    with pytest.raises(AttributeError):
        setattr(credentials, "admin", True)  # noqa: B010 - type checkers know better
