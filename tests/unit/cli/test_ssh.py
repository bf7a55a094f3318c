"""Sockets of other machines, by way of a program that is called ``ssh`` and stays here."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Done

from seqrpc import blocking
from seqrpc.cli import identity, ssh
from seqrpc.cli.endings import Ending
from seqrpc.cli.places import bounded, connected, place_of
from seqrpc.cli.ssh import through_ssh

Run = Callable[..., Done]

FAKE = """#!/bin/sh
printf '%s\\n' "$*" > "$0.args"
while [ "$1" != -- ]; do shift; done
shift 2
exec sh -c "$1"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory on the path with an ``ssh`` that stays here, and with ``seqrpc``."""
    directory = tmp_path / "bin"
    directory.mkdir()
    put(directory / "ssh", FAKE)
    put(directory / "seqrpc", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -W error -m seqrpc "$@"\n')
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return directory


def put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_calls_go_through_ssh(desk: Path, programs: Path, seqrpc_run: Run) -> None:
    assert seqrpc_run("call", f"ssh://me@host:22{desk}", "Desk.add", "1", "2") == Done(0, "3\n", "")
    assert (programs / "ssh.args").read_text() == f"-T -p 22 -- me@host seqrpc relay {desk}\n"
    assert seqrpc_run("call", f"ssh://host{desk}", "count", "3") == Done(0, "0\n1\n2\n", "")
    assert seqrpc_run("call", f"ssh://host{desk}", "box", "a", "--", "put", "x") == Done(0, "null\n", "")
    done = seqrpc_run("call", f"ssh://host{desk}", "Desk.open", "/dev/null")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("seqrpc: rpc.DescriptorsLost: a descriptor cannot cross ssh: ")


def test_for_somebody_else_it_has_neither_the_terminal_nor_secrets(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hush")
    monkeypatch.setattr(identity, "_others", [identity.Identity(os.getuid(), os.getgid(), ())])
    put(programs / "ssh", f'#!/bin/sh\nps -o sid= -p $$ > {tmp_path}/sid\necho "[$SECRET]" > {tmp_path}/secret\n')
    with pytest.raises(Ending, match="it ended"), through_ssh("host", None, "/x"):
        pass
    assert (tmp_path / "secret").read_text() == "[]\n"
    assert int((tmp_path / "sid").read_text()) != os.getsid(0)


@pytest.mark.usefixtures("programs")
def test_what_is_elsewhere_can_be_listed(desk: Path, seqrpc_run: Run) -> None:
    done = seqrpc_run("list", f"ssh://me@host:22{desk}", "ssh://host/@nobody-here")
    first, second = map(json.loads, done.out.splitlines())
    assert first == {
        "address": f"ssh://me@host:22{desk}",
        "status": "answers",
        "uid": None,
        "pid": None,
        "services": ["Desk", "Other"],
        "connections": 0,
        "remark": None,
    }
    assert (second["address"], second["status"]) == ("ssh://host/@nobody-here", "failed")
    assert "NobodyListens" in second["remark"]
    assert (done.status, done.err) == (3, "")
    done = seqrpc_run("list", "exec:x")
    assert done.status == 2
    assert "is no place that is listed: only paths, @names and ssh://HOST/PATH are" in done.err


@pytest.mark.usefixtures("programs")
def test_what_is_wrong_there_is_told_here(seqrpc_run: Run) -> None:
    done = seqrpc_run("call", "ssh://host/nothing/here; exit 9", "x")
    assert (done.status, done.out) == (3, "")
    assert done.err.startswith("seqrpc: ssh host: NobodyListens: cannot connect to /nothing/here; exit 9: ")


def test_the_program_there_may_be_named(
    desk: Path, programs: Path, seqrpc_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "seqrpc").rename(programs / "elsewhere")
    done = seqrpc_run("call", f"ssh://me@host{desk}", "Desk.add", "1", "2")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1] == (
        "seqrpc: ssh me@host: it ended; its status is 127: 'seqrpc' is no program in the PATH that ssh has there;"
        " SEQRPC_REMOTE=/path/to/seqrpc names it"
    )
    monkeypatch.setenv("SEQRPC_REMOTE", "env A=b elsewhere")
    assert seqrpc_run("call", f"ssh://me@host{desk}", "Desk.add", "1", "2") == Done(0, "3\n", "")
    assert (programs / "ssh.args").read_text() == f"-T -- me@host env A=b elsewhere relay {desk}\n"


def test_another_program_is_told(programs: Path) -> None:
    put(programs / "ssh", "#!/bin/sh\necho Welcome, stranger\nexit 5\n")
    with (
        pytest.raises(Ending, match=r"ssh host: what came is no frame.*; its status is 5"),
        through_ssh("host", None, "/x"),
    ):
        pass
    put(programs / "ssh", "#!/bin/sh\nexit 255\n")
    with pytest.raises(Ending, match="ssh host: it ended; its status is 255"), through_ssh("host", None, "/x"):
        pass


def test_another_program_that_goes_on_is_told_and_ended(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_PATIENCE", 0.1)
    put(programs / "ssh", "#!/bin/sh\necho Welcome, stranger\nexec sleep 600\n")
    with pytest.raises(Ending, match=r"ssh host: what came is no frame.* kind\?$"), through_ssh("host", None, "/x"):
        pass


def test_who_sends_half_of_a_frame_is_given_up(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_PATIENCE", 0.1)
    put(programs / "ssh", "#!/bin/sh\nprintf '\\0'\nexec sleep 600\n")
    with pytest.raises(Ending, match="DeadlineExceeded"), bounded(0.1), connected(place_of("ssh://host/x")):
        pass


def test_who_does_not_answer_is_given_up(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_PATIENCE", 0.1)
    put(programs / "ssh", "#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(Ending, match="DeadlineExceeded"), bounded(0.1), connected(place_of("ssh://host/x")):
        pass


def test_who_does_not_read_is_ended(programs: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_PATIENCE", 0.1)
    script = r"printf '\0\0\0\0\0\0\0\0\10\0\0\0\0\0\0\0\1'; exec sleep 600"
    put(programs / "ssh", f"#!/bin/sh\n{script}\n")

    def flood() -> None:
        with through_ssh("host", None, "/x") as sock, blocking.connect(sock=sock) as connection, bounded(0.3):
            while True:
                connection.notify("A.b", b"x" * 60_000)

    with pytest.raises(Ending, match="DeadlineExceeded"):
        flood()


def test_what_is_wrong_with_what_comes_is_told(programs: Path) -> None:
    script = r"printf '\0\0\0\0\0\0\0\0\10\0\0\0\0\0\0\0\1'; echo Good bye; exec sleep 600"
    put(programs / "ssh", f"#!/bin/sh\n{script}\n")
    with (
        pytest.raises(Ending, match="ssh host: what came is no frame"),
        through_ssh("host", None, "/x") as sock,
        blocking.connect(sock=sock) as connection,
    ):
        connection.call("A.b")
