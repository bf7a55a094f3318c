"""What docs/blocking.md says is true: its programs do as printed what it says they do, and its names exist."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemons import wait_until_it_listens
from support.pages import ROOT, blocks_of, check_types, programs_of, text_of, write
from support.waiting import PATIENCE

import seqrpc.blocking

PAGE = text_of("blocking.md")
BLOCKS = blocks_of(PAGE)
FILES = programs_of(BLOCKS)

HAS_QT = importlib.util.find_spec("PySide6") is not None


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which everything from the page is in files."""
    return write(FILES, tmp_path_factory.mktemp("page"))


@pytest.fixture
def serving(written: Path) -> Iterator[Path]:
    """Return the directory, with the daemon of the page running in it."""
    program = [sys.executable, "-W", "error", "daemon.py"]
    with subprocess.Popen(program, cwd=written, stderr=subprocess.PIPE) as daemon:
        try:
            wait_until_it_listens(written / "lights.sock")
            yield written
        finally:
            daemon.terminate()
            _out, complaints = daemon.communicate(timeout=PATIENCE)
    assert (daemon.returncode, complaints) == (0, b"")


def run(name: str, directory: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", name],
        cwd=directory,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_every_block_is_a_file() -> None:
    assert len(FILES) == len(BLOCKS) >= 9


@pytest.mark.parametrize(
    "name, given, said",
    [
        ("script.py", "attic\nshed\n", "hall porch\n4\nTrue\n"),
        ("callbacks.py", "", f"porch is off, says user {os.geteuid()}\n"),
        ("objects.py", "", "hall is off\n"),
        ("timeouts.py", "", "watching\nrpc.DeadlineExceeded: the time given by seqrpc.timeout is up\nhall is on\n"),
        ("threads.py", "", "False\n"),
        ("loop.py", "", "watching\nhall is off\nhall is on\n"),
        ("timing.py", "", "Lights.turn was quick\n"),
    ],
)
def test_a_program_does_what_it_says(name: str, given: str, said: str, serving: Path) -> None:
    done = run(name, serving, given)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", said)


def test_without_a_daemon_the_script_ends_in_one_line(written: Path) -> None:
    done = run("script.py", written)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("script: cannot connect to lights.sock: ")


def test_the_web_view_answers_in_the_process_that_loaded_it_and_in_its_forks(serving: Path) -> None:
    program = """
import os, web

def ask():
    said = []
    body = web.application({}, lambda status, headers: said.append(status))
    print(said[0], b"".join(body).decode(), flush=True)

ask()
pid = os.fork()
if pid == 0:
    ask()
    ask()
    web._connection.close()
    os._exit(0)
os.waitpid(pid, 0)
ask()
web._connection.close()
ask()
web._connection.close()
"""
    (serving / "ask.py").write_text(program)
    done = run("ask.py", serving)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == '200 OK {"lights": ["hall", "porch"]}\n' * 5


def test_the_web_view_says_that_there_is_no_daemon(written: Path) -> None:
    (written / "ask_nobody.py").write_text(
        "import web\nprint(web.application({}, lambda status, headers: print(status)))"
    )
    done = run("ask_nobody.py", written)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("503 Service Unavailable\n[b'cannot connect to lights.sock: ")


@pytest.mark.skipif(not HAS_QT, reason="PySide6 is not installed")
def test_the_qt_program_shows_changes(serving: Path) -> None:
    text = FILES["qt.py"].replace("    app.exec()\n", "    app.processEvents()\n    print(shown.count())\n")
    (serving / "qt_once.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "qt_once.py"],
        cwd=serving,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_qt_program_is_python() -> None:
    compile(FILES["qt.py"], "qt.py", "exec")


def test_everything_passes_the_type_checker(written: Path) -> None:
    check_types(written, [name for name in FILES if name != "qt.py" or HAS_QT])


def test_it_has_every_public_name_and_no_other() -> None:
    told = set(re.findall(r"\bseqrpc\.blocking\.(\w+)", PAGE))
    assert told <= set(seqrpc.blocking.__all__)
    words: Any = {*re.findall(r"\w+", PAGE)}
    assert set(seqrpc.blocking.__all__) <= words | {"Channel", "CurrentCall"}


def test_it_can_be_found() -> None:
    for page in ("README.md", "docs/reference.md", "docs/reconnecting.md"):
        assert "blocking.md" in (ROOT / page).read_text(encoding="utf-8"), page
