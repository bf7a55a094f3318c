"""The command ``stub``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.commands import Done, at_terminal

Run = Callable[..., Done]


def test_a_stub_is_written_and_checked(desk: Path, seqrpc_run: Run, tmp_path: Path) -> None:
    done = seqrpc_run("stub", desk)
    assert (done.status, done.err) == (0, "")
    compile(done.out, "stub", "exec")
    assert "class Desk" in done.out
    path = tmp_path / "stub.py"
    assert seqrpc_run("stub", desk, "-o", path) == Done(0, "", "")
    assert path.read_text() == done.out
    assert seqrpc_run("stub", "support.desk:both", "--check", path) == Done(0, "", "")
    done = seqrpc_run("stub", "support.desk:Desk", "--check", path)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"seqrpc: {path} is not what support.desk:Desk is now")
    assert seqrpc_run("stub", desk, "--check", tmp_path / "none").status == 3


def test_a_terminal_is_shown_it(desk: Path) -> None:
    status, text = at_terminal("stub", desk)
    assert status == 0
    assert "class Desk" in text
