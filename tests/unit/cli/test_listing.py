"""The command ``list``."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import Done, at_terminal, seqrpc_command, started
from support.processes import AS_ROOT
from support.waiting import PATIENCE

from seqrpc.cli.asking import Sighting
from seqrpc.cli.endings import LATE
from seqrpc.cli.listing import _user, as_data
from seqrpc.kernel.addresses import PathAddress

Run = Callable[..., Done]


def test_a_service_is_a_line_of_json(desk: Path, seqrpc_run: Run) -> None:
    done = seqrpc_run("list", desk)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out) == {
        "address": str(desk),
        "status": "answers",
        "uid": os.getuid(),
        "pid": os.getpid(),
        "services": ["Desk", "Other"],
        "connections": 0,
        "remark": None,
    }


def test_all_of_this_machine_are_asked(desk: Path, seqrpc_run: Run) -> None:
    done = seqrpc_run("list", "--json")
    assert done.status == 0
    assert str(desk) in [json.loads(line)["address"] for line in done.out.splitlines()]


def test_paths_that_do_not_answer_decide_the_status(desk: Path, seqrpc_run: Run) -> None:
    done = seqrpc_run("list", desk, "/nothing/here")
    assert done.status == 3
    assert [json.loads(line)["status"] for line in done.out.splitlines()] == ["answers", "failed"]


def test_a_terminal_gets_a_table(desk: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(f"{desk}.silent")
        silent.listen()
        status, text = at_terminal("list", desk, f"{desk}.silent", "--timeout", "0.5")
        assert status == 5
        heads, first, second = text.splitlines()
        assert heads.split() == ["ADDRESS", "OWNER", "PID", "CONNECTIONS", "SERVICES"]
        assert first.split() == [str(desk), pwd.getpwuid(os.getuid()).pw_name, str(os.getpid()), "0", "Desk,", "Other"]
        assert "(silent: " in second
        status, text = at_terminal("list", "--timeout", "0.5")
        assert status == 0
        assert f"{desk} " in text
        assert f"{desk}.silent" not in text
        assert " not answer as seqrpc does (--all)" in text
        assert f"{desk}.silent" in at_terminal("list", "--timeout", "0.5", "--all")[1]


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_who_is_refused_is_told_so(desk: Path, seqrpc_run: Run) -> None:
    desk.parent.chmod(0o711)
    desk.chmod(0o666)
    done = seqrpc_command("list", desk, "--as-user", "54321:54321")
    assert done.status == 4
    assert json.loads(done.out)["status"] == "refused"
    desk.chmod(0o600)
    done = seqrpc_command("list", desk, "--as-user", "54321:54321")
    assert done.status == 4
    assert "ConnectDenied" in json.loads(done.out)["remark"]


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_one_of_a_directory_that_refuses_does_not_decide_the_status(desk: Path) -> None:
    desk.parent.chmod(0o755)
    desk.chmod(0o600)
    done = seqrpc_command("list", desk.parent, "--as-user", "54321:54321")
    assert (done.status, json.loads(done.out)["status"]) == (0, "refused")


def test_a_sighting_is_data() -> None:
    told = as_data(Sighting(PathAddress("/x"), LATE, "no answer"))
    assert told == {
        "address": "/x",
        "status": "silent",
        "uid": None,
        "pid": None,
        "services": None,
        "connections": None,
        "remark": "no answer",
    }


def test_nobody_can_be_asked_as_who_is_not_there(seqrpc_run: Run) -> None:
    assert seqrpc_run("list", "--as-user", "nobody here").status == 2


def test_a_user_without_an_account_is_a_number() -> None:
    assert _user(4_000_000_000) == "4000000000"


def test_a_directory_without_sockets_is_nothing(tmp_path: Path) -> None:
    assert at_terminal("list", tmp_path) == (0, "no socket is there\n")


def test_of_a_directory_what_is_no_service_is_left_out_unless_all_is_wanted(desk: Path, seqrpc_run: Run) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(f"{desk}.stream")
        other.listen()
        done = seqrpc_run("list", desk.parent)
        assert done.status == 0
        assert [json.loads(line)["address"] for line in done.out.splitlines()] == [str(desk)]
        done = seqrpc_run("list", desk.parent, "--all")
        assert done.status == 2
        assert "WrongSocketType" in [json.loads(line)["remark"] for line in done.out.splitlines()][1]
        status, text = at_terminal("list", f"{desk}.stream")
        assert status == 2
        assert "(failed: WrongSocketType: the socket there is not of type SOCK_SEQPACKET" in text


@pytest.fixture
def far_away(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Serve a desk at a relative path, in a directory of its own; return what removes that."""
    with started("serve", "support.desk:Desk", "relative.sock", cwd=tmp_path) as process:
        assert process.stderr.readline().startswith(b"serving Desk at relative.sock")
        yield (tmp_path / "relative.sock").unlink
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_a_socket_that_was_bound_to_a_relative_path_is_found(
    far_away: Callable[[], None], tmp_path: Path, seqrpc_run: Run
) -> None:
    def told() -> dict[str, Any]:
        lines = map(json.loads, seqrpc_run("list").out.splitlines())
        return {line["address"]: (line["status"], line["services"], line["remark"]) for line in lines}

    path = str(tmp_path / "relative.sock")
    assert told()[path] == ("answers", ["Desk"], None)
    assert "relative.sock" not in told()
    far_away()
    status, services, remark = told()["relative.sock"]
    assert (status, services) == ("failed", None)
    assert remark.startswith("bound to a relative path: ")
    assert path not in told()
