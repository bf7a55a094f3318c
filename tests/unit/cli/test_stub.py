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
    assert (done.status, done.out.splitlines()[:2]) == (1, [f"--- {path}", "+++ support.desk:Desk"])
    assert '-"""Desk, Other, for those who call."""' in done.out.splitlines()
    assert "-# Made by" not in done.out
    assert done.err.startswith(f"seqrpc: {path} is not what support.desk:Desk is now")
    assert seqrpc_run("stub", desk, "--check", tmp_path / "none").status == 3


def test_a_terminal_is_shown_it(desk: Path) -> None:
    status, text = at_terminal("stub", desk)
    assert status == 0
    assert "class Desk" in text


def test_what_differs_is_told_with_its_line(seqrpc_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "stub.py"
    seqrpc_run("stub", "support.desk:Desk", "-o", path)
    lines = path.read_text().split("\n")
    at = next(number for number, line in enumerate(lines) if "Return the sum." in line)
    changed = lines[at]
    lines[at] = "\x1b[2J"
    path.write_text("\n".join(lines))
    done = seqrpc_run("stub", "support.desk:Desk", "--check", path)
    told = done.out.splitlines()
    assert told[2:] == [
        f"@@ line {at - 2} @@",
        *[f" {line}" for line in lines[at - 3 : at]],
        "-\\x1b[2J",
        f"+{changed}",
        *[f" {line}" for line in lines[at + 1 : at + 4]],
    ]


def test_a_difference_is_bounded(seqrpc_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "stub.py"
    path.write_text("x\n" * 1_000_000)
    done = seqrpc_run("stub", "support.desk:Desk", "--check", path)
    assert done.status == 1
    assert len(done.out.splitlines()) == 101
    assert done.out.endswith("… (these are the first 100 lines)\n")
    path.write_text("")
    assert seqrpc_run("stub", "support.desk:Desk", "--check", path).status == 1
