"""Somebody else, as the kernel would tell of them."""

from __future__ import annotations

import grp
import os
from types import SimpleNamespace
from typing import Any

import pytest
from support.descriptors import same_file

from seqrpc import policy
from seqrpc.kernel import linux
from seqrpc.testing import caller


def test_who_is_told_has_what_was_said() -> None:
    who = caller(uid=1000, gid=100, groups=[4, 27], pid=77)
    assert (who.uid, who.gid, who.groups, who.pid) == (1000, 100, (4, 27), 77)
    assert who.pidfd() is None
    assert who.security_label is None
    assert repr(who) == "Credentials(pid=77, uid=1000, gid=100, groups=(4, 27))"


def test_what_is_not_said_is_as_with_an_ordinary_user_of_this_machine() -> None:
    who = caller(uid=1000)
    assert (who.uid, who.gid, who.groups, who.pid) == (1000, 1000, (), os.getpid())


def test_what_the_kernel_does_not_know_is_none() -> None:
    who = caller(uid=None, gid=None, groups=None, pid=None)
    assert (who.uid, who.gid, who.groups, who.pid) == (None, None, None, None)
    assert caller(uid=None).gid is None
    for rule in (policy.uid(1000), policy.gid(1000), ~policy.uid(1000), ~policy.gid(1000), policy.root):
        assert not rule.admits(who)


def test_groups_may_be_told_by_their_names() -> None:
    group = grp.getgrall()[-1]
    who = caller(uid=1000, gid=group.gr_name, groups=[group.gr_name])
    assert (who.gid, who.groups) == (group.gr_gid, (group.gr_gid,))
    assert policy.group(group.gr_name).admits(caller(uid=1000, groups=[group.gr_gid]))
    assert not policy.group(group.gr_name).admits(caller(uid=1000, gid=1000))


def test_a_test_may_give_the_machine_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grp.getgrnam", lambda name: SimpleNamespace(gr_gid={"netcfg": 4_242}[name]))
    assert policy.group("netcfg").admits(caller(uid=1000, groups=["netcfg"]))
    assert not policy.group("netcfg").admits(caller(uid=1000, groups=[4_243]))


def test_a_pidfd_is_a_duplicate_each_time(pipe: tuple[int, int]) -> None:
    who = caller(uid=1000, pidfd=pipe[0], security_label="unconfined")
    assert who.security_label == "unconfined"
    for _ in range(2):
        pidfd = who.pidfd()
        assert pidfd is not None
        with pidfd:
            assert pidfd.fileno() != pipe[0]
            assert same_file(pidfd, pipe[0])


@pytest.mark.parametrize(
    "options, kind, text",
    [
        ({"uid": -1}, ValueError, "uid= takes a number of 0 to 4294967294, got -1"),
        ({"uid": 2**32 - 1}, ValueError, "uid= takes a number of 0 to"),
        ({"uid": "root"}, TypeError, "uid= takes a number, got 'root'"),
        ({"uid": True}, TypeError, "uid= takes a number, got True"),
        ({"uid": linux.OVERFLOW_UID}, ValueError, "stands for an unknown one, of which the kernel says nothing"),
        ({"uid": 1, "gid": linux.OVERFLOW_GID}, ValueError, "stands for an unknown one"),
        ({"uid": 1, "gid": 1.5}, TypeError, "gid= takes a number, got 1.5"),
        ({"uid": 1, "groups": [1, -1]}, ValueError, "groups= takes a number of 0 to"),
        ({"uid": 1, "groups": 5}, TypeError, r"groups= takes a list, got 5: write \[5\]"),
        ({"uid": 1, "groups": "adm"}, TypeError, r"groups= takes a list, got 'adm': write \['adm'\]"),
        ({"uid": 1, "groups": ["no such group"]}, ValueError, "the group 'no such group', which this machine does not"),
        ({"uid": 1, "pid": 0}, ValueError, "pid= takes the number of a process, or None, got 0"),
        ({"uid": 1, "pid": "me"}, ValueError, "pid= takes the number of a process, or None, got 'me'"),
    ],
)
def test_who_cannot_be_is_refused(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        caller(**options)
