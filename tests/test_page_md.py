"""What docs/page.md says is true: its commands and its program make the page, and the picture is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.html import tree_of
from support.programs import EXAMPLES, daemon
from support.waiting import PATIENCE

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [block for kind, block in BLOCKS if kind == "sh"]
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a directory as readers have it: with the interface, and with the command in it."""
    (tmp_path / "logs.py").write_bytes((EXAMPLES / "logs.py").read_bytes())
    command = tmp_path / "seqrpc"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -W error -m seqrpc "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run(here: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=here, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), command
    return done.stdout


@pytest.mark.parametrize("block", COMMANDS)
def test_each_command_writes_the_page(here: Path, socket_path: Path, block: str) -> None:
    (here / "log").mkdir()
    with daemon(socket_path, here / "log"):
        commands = block.replace("/run/logs.sock", str(socket_path))
        assert run(here, "sh", "-euc", f'PATH="$PWD:$PATH"\n{commands}') == ""
    page = tree_of((here / "logs.html").read_text(encoding="utf-8"))
    assert page.by_id("Logs.follow").tag == "article"
    assert page.by_id("type:LogFile").tag == "article"


def test_the_program_writes_the_page(here: Path) -> None:
    (program,) = PROGRAMS
    (here / "write_page.py").write_text(program)
    assert run(here, sys.executable, "-W", "error", "write_page.py") == ""
    assert "seqrpc call /run/logs.sock Logs.follow name=..." in (here / "logs.html").read_text(encoding="utf-8")


def test_every_block_is_run_here() -> None:
    assert len(COMMANDS) == 3
    assert len(COMMANDS) + len(PROGRAMS) == len(BLOCKS)


def test_the_picture_is_there() -> None:
    (picture,) = re.findall(r"\]\((\S+\.png)\)", PAGE)
    assert (ROOT / "docs" / picture).is_file()
