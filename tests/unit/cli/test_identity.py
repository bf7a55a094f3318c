"""Being another user."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import pytest
from support.commands import seqrpc_command
from support.desk import Desk
from support.processes import AS_ROOT, OTHER_GID, OTHER_UID, in_child
from support.sync import served

import seqrpc
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
def test_root_without_groups_has_none() -> None:
    def work() -> object:
        os.setgroups([OTHER_GID])
        become(Identity(0, 0, ()))
        return os.getgroups(), os.getuid(), is_another()

    assert in_child(work) == ([], 0, False)


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
    become(Identity(os.getuid(), os.getgid(), tuple(os.getgroups())))


@as_root
@pytest.mark.parametrize(
    "words, status, err",
    [
        (("ssh://host/x", "add"), 3, "seqrpc: ENOENT: No such file or directory: ssh\n"),
        (("{desk}", "fail_with", "7"), 1, "seqrpc: desk.Empty: nothing there; data: 7\n"),
        (("{desk}", "--shell"), 1, "seqrpc: desk.Empty: nothing there; data: 7\n"),
    ],
)
def test_what_runs_as_another_was_loaded_before(
    socket_path: Path, tmp_path: Path, words: tuple[str, ...], status: int, err: str
) -> None:
    """The package is where nobody else can read it, as in root's home."""
    copy = tmp_path / "lib"
    copy.mkdir(mode=0o700)
    shutil.copytree(Path(seqrpc.__file__).parent, copy / "seqrpc", ignore=shutil.ignore_patterns("__pycache__"))
    socket_path.parent.chmod(0o711)
    env = {"PYTHONPATH": str(copy), "PATH": "/nothing/here"}
    args = [word.format(desk=socket_path) for word in words]
    with served(socket_path, Desk(), mode=0o666, allow=seqrpc.policy.anyone):
        done = seqrpc_command(
            "call", *args, "--as-user", f"{OTHER_UID}:{OTHER_GID}", given=b"fail_with 7\n", env=env, cwd=tmp_path
        )
    lines = [line for line in done.err.splitlines(keepends=True) if line.startswith("seqrpc: ")]
    assert (done.status, "".join(lines)) == (status, err)
