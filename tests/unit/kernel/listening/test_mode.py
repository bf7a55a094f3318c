"""Mode and group of the file."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.listening import contents, listen_at, needs_root
from support.processes import OTHER_GID, OTHER_UID, in_child

from seqrpc.errors import AddressError, ListenError
from seqrpc.kernel import listening as module
from seqrpc.kernel.addresses import parse_address
from seqrpc.kernel.listening import listen


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_the_mode_is_as_asked_whatever_the_umask(mask: int, socket_path: Path) -> None:
    for mode in (0o600, 0o660, 0o666, 0o777, 0o200, 0o000):
        with umask(mask):
            listening = listen_at(socket_path, mode=mode)
        assert stat.S_IMODE(socket_path.stat().st_mode) == mode
        listening.close()
    with umask(mask):
        listening = listen_at(socket_path)
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    listening.close()


@pytest.mark.parametrize("mode", [0o1000, 0o4755, -1])
def test_a_mode_is_permission_bits(mode: int, socket_path: Path) -> None:
    with pytest.raises(AddressError, match="permission bits"):
        listen_at(socket_path, mode=mode)


@pytest.mark.parametrize("mode", [600, 660, 666, 777])
def test_a_mode_that_is_written_without_its_0o_is_told_as_what_was_meant(mode: int, socket_path: Path) -> None:
    text = (
        f"mode= takes permission bits up to 0o777, got {mode:#o}, which is {mode} without its 0o: write mode=0o{mode}"
    )
    with pytest.raises(AddressError, match=f"^{text}$"):
        listen_at(socket_path, mode=mode)


@pytest.mark.parametrize("mode, meant", [("600", "0o600"), ("0o600", "0o660"), (6.6, "0o660")])
def test_a_mode_is_a_number(mode: Any, meant: str, socket_path: Path) -> None:
    with pytest.raises(TypeError, match=f"^mode= takes a number, got {mode!r}: write mode={meant}$"):
        listen_at(socket_path, mode=mode)


@needs_root
def test_a_group_by_number_and_by_name(socket_path: Path) -> None:
    known = next(entry for entry in grp.getgrall() if entry.gr_gid != os.getegid())
    for group, gid in ((OTHER_GID, OTHER_GID), (known.gr_name, known.gr_gid), (os.getegid(), os.getegid())):
        listening = listen_at(socket_path, mode=0o660, group=group)
        status = socket_path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, gid)
        listening.close()


@pytest.mark.parametrize("group", ["no such group", -1, 0xFFFF_FFFF, 2**40])
def test_a_group_that_is_none_is_an_error(group: int | str, socket_path: Path) -> None:
    with pytest.raises(AddressError, match=f"group= .*{group}"):
        listen_at(socket_path, group=group)
    assert contents(socket_path.parent) == []


@pytest.mark.parametrize("mode, needed", [(None, 0o660), (0o600, 0o660), (0o640, 0o660), (0o755, 0o775)])
def test_a_group_that_the_mode_keeps_out_is_an_error(mode: int | None, needed: int, socket_path: Path) -> None:
    text = f"^group= has no effect with mode {mode or 0o600:#o}, .*: write mode={needed:#o}, too$"
    with pytest.raises(AddressError, match=text):
        listen_at(socket_path, mode=mode, group=os.getgid())
    assert contents(socket_path.parent) == []


@needs_root
def test_a_mode_may_keep_out_a_group_alone(socket_path: Path) -> None:
    listening = listen_at(socket_path, mode=0o602, group=OTHER_GID)
    status = socket_path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o602, OTHER_GID)
    listening.close()


@needs_root
def test_a_group_that_the_server_is_not_in_is_an_error_that_leaves_nothing(socket_path: Path) -> None:
    socket_path.parent.chmod(0o777)

    def work() -> str:
        with pytest.raises(ListenError) as caught:
            listen_at(socket_path, mode=0o660, group=0)
        assert caught.value.errno == errno.EPERM
        return str(caught.value)

    assert "a file's group may be one of its owner's only" in in_child(work, uid=OTHER_UID)
    assert contents(socket_path.parent) == []


@needs_root
def test_a_user_may_give_a_group_that_it_is_in(socket_path: Path) -> None:
    socket_path.parent.chmod(0o777)

    def work() -> tuple[int, int]:
        listening = listen_at(socket_path, mode=0o660, group=OTHER_GID)
        status = socket_path.stat()
        listening.close()
        return stat.S_IMODE(status.st_mode), status.st_gid

    assert in_child(work, uid=OTHER_UID, groups=[OTHER_GID]) == (0o660, OTHER_GID)
    assert contents(socket_path.parent) == []


@needs_root
def test_other_kernels_get_mode_and_group_too(monkeypatch: pytest.MonkeyPatch, socket_path: Path) -> None:
    """What a kernel without fchmod on sockets is given; all of these calls exist here as well."""
    monkeypatch.setattr(sys, "platform", "freebsd14")
    for mode in (0o602, 0o660, 0o777):
        with umask(0o027):
            listening = listen_at(socket_path, mode=mode, group=OTHER_GID)
            assert os.umask(0o027) == 0o027
        status = socket_path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (mode, OTHER_GID)
        listening.close()
    listen_at(socket_path).close()
    with pytest.raises(OSError, match="less than 108 bytes here"):
        listen_at(socket_path.with_name("n" * 200))
    assert contents(socket_path.parent) == []


def test_only_the_file_that_was_made_is_given_a_mode(socket_path: Path) -> None:
    """Whoever may write to the directory could put another file in its place at once."""
    victim = socket_path.with_name("victim")
    victim.touch(0o600)
    directory = os.open(socket_path.parent, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            module._identity(directory, "victim")
        with pytest.raises(FileExistsError):
            module._dress(directory, "victim", (0, 0), 0o666, None)
    finally:
        os.close(directory)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "address, asked, reason",
    [
        ("systemd:web", {"mode": 0o660}, r"systemd:web: mode= cannot be given here: .* SocketMode= and SocketGroup="),
        ("systemd:web", {"mode": 0o600, "group": 0}, r"systemd:web: mode= and group= cannot be given here: "),
        ("fd:999", {"group": "root"}, r"fd:999: group= cannot be given here: .* whoever binds it sets the mode"),
    ],
)
def test_who_asks_for_the_mode_of_a_socket_that_others_made_is_told_who_sets_it(
    address: str, asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AddressError, match=reason) as caught:
        listen(parse_address(address), **asked)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
