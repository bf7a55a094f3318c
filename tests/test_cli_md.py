"""``docs/cli.md`` shows what the commands write.

``SEQRPC_WRITE_DOCS=1 pytest tests/test_cli_md.py`` writes it anew. What is measured is another number each time: of a
command after ``like:`` the page keeps what it has if a run of today says the same, but for numbers and bars; take
the block away to have it written anew.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import SEQRPC, Terminal, environment, started
from support.waiting import PATIENCE

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"

SHOWN = re.compile(r"(?P<comment><!-- (?P<command>.*?) -->)(?P<block>\n\n```console\n.*?\n```)?(?=\n)", re.DOTALL)

LIKE = "like: "

DRAWN = re.compile(r"\x1b\[\?25l.*\x1b\[\?25h(?:\x1b\[1A|\x1b\[2K|\r)*", re.DOTALL)
"""How far a measurement is, which is wiped."""

PROGRAM = re.compile(r"# desk\.py\n.*?(?=\n```)", re.DOTALL)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a directory in which the daemon of the page runs."""
    path = tmp_path_factory.mktemp("desk")
    found = PROGRAM.search(PAGE.read_text())
    assert found is not None
    (path / "desk.py").write_text(found[0] + "\n")
    (path / "release.txt").write_text("Desk 1.0\n")
    (path / "seqrpc").write_text(f'#!/bin/sh\nexec {shlex.join(SEQRPC)} "$@"\n')
    (path / "seqrpc").chmod(0o755)
    with started("serve", "desk:Desk", "desk.sock", cwd=path) as process:
        assert process.stderr.readline().startswith(b"serving Desk at desk.sock")
        yield path


def typed(command: str) -> str:
    """Return what a person types: the program stands before its command, also behind a pipe."""
    before, bar, after = command.removeprefix("| ").partition(" | ")
    return f"{before} | seqrpc {after}" if bar else f"seqrpc {before}"


def shown(command: str, directory: Path) -> str:
    """Run a command, in a terminal or with a pipe behind it, and return what a person sees."""
    env = {**environment(), "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    line = typed(command)
    if command.startswith("| "):
        done = subprocess.run(
            ["sh", "-c", line], cwd=directory, env=env, capture_output=True, timeout=PATIENCE, check=True
        )
        text, told = done.stdout.decode(), "" if ">" in line else " | cat"
    else:
        opened = Terminal(["sh", "-c", line], env=env, cwd=directory)
        try:
            opened.end()
            text, told = opened.text, ""
        finally:
            opened.close()
    text = DRAWN.sub("", text)
    text = re.sub(r"(?m)^(ADDRESS +)OWNER +PID +", r"\1OWNER  PID   ", text)  # who and which process runs it
    text = re.sub(r"(?m)^(desk\.sock +)\S+ +\d+ +", r"\1root   1234  ", text)
    text = re.sub(r'"uid":\d+,"pid":\d+', '"uid":0,"pid":1234', text)
    return f"$ {line}{told}\n{text}".rstrip()


def form(text: str) -> str:
    """Return what output is like: all numbers, units of time and bars are the same, and rows that then are the same."""
    text = re.sub(r"[█▏▎▍▌▋▊▉]+", "█", text)
    text = re.sub(r"(?<![\w.])\d[\d,.]*( [nµm]?s)?", lambda found: "0 s" if found[1] else "0", text)
    text = re.sub(r" +", " ", text)
    return re.sub(r"(?m)^(.+\n)\1+", r"\1", text + "\n")


def block(found: re.Match[str], directory: Path) -> str:
    """Return what is shown of a command."""
    command, before = found["command"], found["block"] or ""
    made = f"\n\n```console\n{shown(command.removeprefix(LIKE), directory)}\n```"
    return before if command.startswith(LIKE) and form(made) == form(before) else made


def rendered(directory: Path) -> str:
    """Return the page with what the commands write; commands that follow each other share a block."""
    page = PAGE.read_text()
    return SHOWN.sub(lambda found: f"{found['comment']}{block(found, directory)}", page)


def test_the_page_shows_what_the_commands_write(directory: Path) -> None:
    text = rendered(directory)
    if "SEQRPC_WRITE_DOCS" in os.environ:
        PAGE.write_text(text)
    assert sys.executable not in text
    assert str(directory) not in text
    assert text == PAGE.read_text()


def test_what_was_measured_is_compared_by_its_form() -> None:
    one = "p50  41.7 µs\nmax  1.20 ms\n  ≥ 39.8 µs  ███▏  7,823\n  ≥ 1.00 ms  ▏         5\n"
    assert form(one) == form("p50  7 ns\nmax  12.2 s\n  ≥ 1.1 ns  █  12\n")
    assert form(one) != form(one.replace("p50", "p90"))
    assert form(one) != form(one.replace("≥", ">"))
    assert form(one) != form(f"{one}errors\n")
