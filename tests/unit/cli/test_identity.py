"""Being another user."""

from __future__ import annotations

import os
import pwd

import pytest
from support.processes import AS_ROOT, OTHER_GID, OTHER_UID, in_child

from seqrpc.cli.endings import Ending
from seqrpc.cli.identity import Identity, become, environment, identity_of, is_another

as_root = pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")


def test_a_user_is_a_name_a_number_or_both_numbers() -> None:
    entry = pwd.getpwuid(0)
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    assert identity_of("0") == identity_of(entry.pw_name) == Identity(0, entry.pw_gid, groups)
    assert identity_of("54321:12") == Identity(54_321, 12, ())


@pytest.mark.parametrize("text", ["nobody here", "4111222333", "1:", ":1", "1:x", "-1:1", "4294967295:1", "9" * 30])
def test_what_names_nobody_is_misuse(text: str) -> None:
    with pytest.raises(Ending, match="--as-user") as raised:
        identity_of(text)
    assert raised.value.status == 2


@as_root
def test_root_becomes_somebody_wholly() -> None:
    def work() -> object:
        change = os.setresuid  # with a way back, for whoever saves what was covered; tests of the program see the rest
        os.setresuid = lambda real, effective, _saved: change(real, effective, 0)
        become(Identity(OTHER_UID, OTHER_GID, (OTHER_GID, 7)))
        return os.getresuid()[:2], os.getresgid(), sorted(os.getgroups()), is_another(), environment()["HOME"]

    assert in_child(work) == ((OTHER_UID,) * 2, (OTHER_GID,) * 3, sorted((OTHER_GID, 7)), True, "/")
    assert not is_another()


@as_root
def test_others_cannot_become_anybody() -> None:
    def work() -> object:
        try:
            become(Identity(0, 0, ()))
        except Ending as exc:
            return exc.status, str(exc)
        return None

    assert in_child(work, uid=OTHER_UID) == (4, f"only root can be user 0: this is user {OTHER_UID}")


def test_being_oneself_takes_nothing() -> None:
    become(Identity(os.getuid(), os.getgid(), ()))
