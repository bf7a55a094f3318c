"""How far a measurement is, drawn by a process of its own."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import Terminal
from support.descriptors import open_fds
from support.waiting import PATIENCE

from seqrpc.cli import gauge
from seqrpc.cli.gauge import Gauge, draw

PROGRAM = """
import sys, time
from seqrpc.cli.gauge import Gauge
with Gauge("Desk.add [bold]\\x1b[2J", shows=True) as gauge:
    print("begun", flush=True)
    for calls in range(1, 4):
        gauge.tell(calls / 4, 1000 * calls, calls - 1, 1234.5)
        sys.stdin.readline()
print("over", flush=True)
"""


def test_a_line_is_drawn_and_wiped() -> None:
    opened = Terminal([sys.executable, "-W", "error", "-c", PROGRAM])
    try:
        opened.wait_for("1,000 calls, 1,234/s")
        assert b"25%" in opened.seen
        assert b"Desk.add [bold]\\x1b[2J" in opened.seen
        opened.type("\n")
        opened.wait_for("2,000 calls, 1,234/s, 1 errors")
        opened.type("\n\n")
        assert opened.end() == 0
        assert opened.after == opened.before
        assert opened.seen.endswith(b"\x1b[2Kover\r\n")
        assert b"\x1b[?25l" not in opened.seen  # the cursor stays, for whoever is killed could not bring it back
    finally:
        opened.close()


def test_ctrl_c_is_for_its_parent_alone_from_the_start() -> None:
    with Gauge("x", shows=True) as made:
        process = made._process
        assert process is not None
        process.send_signal(signal.SIGINT)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    assert process.returncode == 0


def test_ctrl_c_does_not_end_it_before_its_parent() -> None:
    script = PROGRAM.replace("import sys, time", "import signal, sys; signal.signal(signal.SIGINT, lambda *_: None)")
    opened = Terminal([sys.executable, "-c", script])
    try:
        opened.wait_for("1,000 calls")
        opened.type("\x03\n")
        opened.wait_for("2,000 calls")
        opened.type("\n\n")
        assert opened.end() == 0
    finally:
        opened.close()


def test_if_it_is_not_to_be_shown_nothing_is_started() -> None:
    before = open_fds()
    with Gauge("x", shows=False) as made:
        assert made._process is None
        assert open_fds() == before
        made.tell(0.5, 1, 0, 1)


def test_without_a_python_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("", "/nothing/here"):
        monkeypatch.setattr(sys, "executable", path)
        with Gauge("x", shows=True) as made:
            made.tell(0.5, 1, 0, 1)


def test_one_that_ends_or_hangs_disturbs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauge, "READY_WITHIN", 0.1)
    python = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    for script, returncode in (("exit 0", 0), ("exec sleep 600", -signal.SIGKILL)):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        with Gauge("x", shows=True) as made:
            process = made._process
            assert process is not None
            if returncode == 0:
                process.wait(PATIENCE)
            began = time.monotonic()
            for _ in range(10_000):
                made.tell(0.5, 10**9, 10**9, 1e9)
            assert time.monotonic() - began < PATIENCE
        assert process.returncode == returncode
        assert made._process is None
        made.close()


def test_lines_that_come_are_drawn(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    draw(io.BytesIO(b"[0.5, 1234, 0, 99]\n[1.0, 2000, 7, 99]\n"), "a\x1b[2J")
    out, err = capfd.readouterr()
    assert out == "\n"
    assert "1,234 calls, 99/s" in err
    assert "2,000 calls, 99/s, 7 errors" in err
    assert "a\\x1b[2J" in err


def test_of_nothing_nothing_is_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    draw(io.BytesIO(), "a")
    assert capfd.readouterr() == ("\n", "")


def test_it_is_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-P", "-c", gauge._BOOT, "\n".join(map(os.path.abspath, sys.path)), "x"],
        input=b"[0.5, 1, 0, 9]\n",
        capture_output=True,
        timeout=PATIENCE,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout == b"\n"
    assert done.stderr.strip() == b""  # it is no terminal
