from __future__ import annotations

import ctypes
import os
import pwd
import resource
from pathlib import Path
from typing import Any

import pytest
from support.daemons import needs_root
from support.processes import OTHER_GID, OTHER_UID, in_child

from seqrpc.kernel import privileges
from seqrpc.kernel.privileges import Restraints, give_up, restraints


def test_without_a_word_nothing_is_given_up() -> None:
    assert restraints() == Restraints()


def test_names_are_looked_up() -> None:
    root = pwd.getpwuid(0).pw_name
    found = restraints(user=root, groups=[root, 5], limits={"nofile": 10, resource.RLIMIT_CORE: (0, 1)}, nice=3)
    assert (found.uid, found.gid, found.groups) == (0, 0, (0, 5))
    assert found.limits == ((resource.RLIMIT_NOFILE, 10, 10), (resource.RLIMIT_CORE, 0, 1))
    assert found.nice == 3
    assert restraints(user=0).groups == (), "a user has no other groups, if nothing is said"
    assert restraints(group=7) == Restraints(gid=7)
    assert restraints(cwd=Path("x")).cwd == os.path.abspath("x")


@pytest.mark.parametrize(
    "options, kind, text",
    [
        ({"user": "no-such-user"}, ValueError, "user= names 'no-such-user', whom the user database does not know"),
        ({"user": 1.5}, TypeError, "user= takes a name or a number, got 1.5"),
        ({"user": True}, TypeError, "user= takes a name or a number, got True"),
        ({"user": 2**32 - 1}, ValueError, "is no id"),
        ({"user": 3_999_999_999}, ValueError, "has no group in the user database: give one with group="),
        ({"group": "no-such-group"}, ValueError, "group= names 'no-such-group'"),
        ({"groups": "adm"}, TypeError, r"groups= takes several, as \['adm'\]"),
        ({"groups": [-1]}, ValueError, "groups=-1 is no id"),
        ({"limits": {"files": 1}}, ValueError, "'files', which is no resource; there are .*nofile"),
        ({"limits": {"nofile": "many"}}, TypeError, "takes a whole number, or two, got 'many'"),
        ({"limits": {"nofile": (1, 2, 3)}}, TypeError, "takes a whole number, or two"),
        ({"nice": 1.5}, TypeError, "nice= takes a whole number"),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        restraints(**options)


def test_limits_priority_and_directory_can_be_given_up_by_anybody(tmp_path: Path) -> None:
    def work() -> tuple[Any, ...]:
        give_up(restraints(limits={"nofile": (20, 30)}, nice=1, no_new_privileges=True, cwd=tmp_path))
        status = Path("/proc/self/status").read_text()
        return resource.getrlimit(resource.RLIMIT_NOFILE), os.nice(0), os.getcwd(), "NoNewPrivs:\t1" in status

    before = os.nice(0)
    assert in_child(work) == ((20, 30), min(before + 1, 19), str(tmp_path), True)


@needs_root
def test_a_user_is_become_for_good() -> None:
    def work() -> tuple[Any, ...]:
        give_up(restraints(user=OTHER_UID, group=OTHER_GID, groups=[OTHER_GID + 1]))
        try:
            os.setuid(0)
        except PermissionError:
            return os.getresuid(), os.getresgid(), os.getgroups()
        return ()

    assert in_child(work) == ((OTHER_UID,) * 3, (OTHER_GID,) * 3, [OTHER_GID + 1])


@needs_root
def test_the_directory_is_entered_with_the_rights_from_before(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    def work() -> str:
        give_up(restraints(user=OTHER_UID, group=OTHER_GID, cwd=tmp_path))
        return os.readlink("/proc/self/cwd")

    assert in_child(work) == str(tmp_path)


@needs_root
def test_no_capability_is_left_whatever_the_kernel_would_leave() -> None:
    """With the secure bit SECBIT_NO_SETUID_FIXUP a change of user takes none (capabilities(7))."""

    def work() -> list[str]:
        assert ctypes.CDLL(None).prctl(28, 4, 0, 0, 0) == 0  # PR_SET_SECUREBITS
        give_up(restraints(user=OTHER_UID, group=OTHER_GID))
        status = Path("/proc/self/status").read_text().splitlines()
        return [line.split()[1] for line in status if line.startswith(("CapInh", "CapPrm", "CapEff", "CapAmb"))]

    assert in_child(work) == ["0" * 16] * 4


@needs_root
def test_the_session_is_left_and_with_it_the_terminal() -> None:
    def work() -> bool:
        give_up(restraints(user=OTHER_UID, group=OTHER_GID))
        return os.getsid(0) == os.getpid()

    assert in_child(work)


@pytest.mark.parametrize(
    "left",
    [{"getresuid": (5, 0, 0)}, {"getresgid": (7, 7, 0)}, {"getgroups": [7, 0]}],
    ids=["user", "group", "groups"],
)
def test_what_is_not_given_up_is_noticed(left: dict[str, Any]) -> None:
    def work() -> None:
        for name in ("setgroups", "setresgid", "setresuid"):
            setattr(os, name, lambda *_ids: None)
        found = {"getresuid": (5, 5, 5), "getresgid": (7, 7, 7), "getgroups": [7], **left}
        for name, value in found.items():
            setattr(os, name, lambda value=value: value)
        with pytest.raises(PermissionError, match="wanted, and the process has"):
            give_up(Restraints(uid=5, gid=7, groups=()))

    in_child(work)


class Refusing:
    """A C library whose functions fail, but for those that are said."""

    def __init__(self, *works: str) -> None:
        self._works = works

    def __getattr__(self, name: str) -> Any:
        def function(*args: Any) -> int:
            if name == "capget":
                args[1][0] = 1
            return 0 if name in self._works else -1

        return function


@pytest.mark.parametrize(
    "restrained, works, text",
    [
        (Restraints(no_new_privileges=True), (), "PR_SET_NO_NEW_PRIVS"),
        (Restraints(uid=5), (), "capset"),
        (Restraints(uid=5), ("capset",), "capget"),
        (Restraints(uid=5), ("capset", "capget"), "capabilities left"),
    ],
)
def test_a_kernel_that_refuses_is_told(restrained: Restraints, works: tuple[str, ...], text: str) -> None:
    def work() -> None:
        setattr(ctypes, "CDLL", lambda *_args, **_options: Refusing(*works))  # noqa: B010 - mypy knows its type
        setattr(os, "setresuid", lambda *_ids: None)  # noqa: B010 - likewise
        with pytest.raises(OSError, match=text):
            give_up(restrained)

    in_child(work)


def test_one_that_leads_its_session_has_no_other_to_leave() -> None:
    def work() -> None:
        os.setsid()
        setattr(os, "setresuid", lambda *_ids: None)  # noqa: B010 - as above
        setattr(os, "getresuid", lambda: (0, 0, 0))  # noqa: B010 - as above
        give_up(Restraints(uid=0))

    in_child(work)


def test_a_machine_whose_number_of_keyctl_is_not_known_keeps_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "_KEYCTL", {})

    def work() -> None:
        setattr(os, "setresuid", lambda *_ids: None)  # noqa: B010 - as above
        setattr(os, "getresuid", lambda: (0, 0, 0))  # noqa: B010 - as above
        give_up(Restraints(uid=0))

    in_child(work)
