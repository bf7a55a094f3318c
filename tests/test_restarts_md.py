"""What docs/restarts.md says is true: its programs do what it says they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemons import wait_until_it_listens
from support.pages import ROOT, blocks_of, check_types, programs_of, text_of, write
from support.restarts import reaping, status_of
from support.waiting import PATIENCE

import seqrpc
import seqrpc.blocking

PAGE = text_of("restarts.md")
FILES = programs_of(blocks_of(PAGE))


@pytest.mark.skipif(sys.platform != "linux", reason="restarts are Linux's")
def test_the_client_notices_nothing(socket_path: Path) -> None:
    directory = socket_path.parent
    write(FILES, directory)
    path = directory / "greeter.sock"
    with reaping(), subprocess.Popen([sys.executable, "-W", "error", "greeter.py"], cwd=directory) as greeter:
        wait_until_it_listens(path)
        done = subprocess.run(
            [sys.executable, "-W", "error", "calling.py"],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"It prints `{done.stdout.rstrip()}`" in PAGE
        assert greeter.wait(PATIENCE) == 0
        with seqrpc.blocking.connect(path) as connection:
            successor = connection.call("Greeter.pid")
        os.kill(successor, signal.SIGTERM)
        assert status_of(successor) == 0
    assert not path.exists()


def test_everything_passes_the_type_checker(tmp_path: Path) -> None:
    check_types(write(FILES, tmp_path), FILES)


def test_it_can_be_found() -> None:
    for page in ("README.md", "docs/reference.md", "docs/design.md", "docs/reconnecting.md"):
        assert "restarts.md" in (ROOT / page).read_text(encoding="utf-8"), page
