"""The pool that works on matrices."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from support.programs import WITHIN, command, output_of


@pytest.mark.parametrize("what", ["multiply", "sum"])
def test_the_pool_gets_it_right(what: str) -> None:
    said = output_of("matrices.py", what, "--workers", "2", "--count", "7", "--side", "50")

    assert re.fullmatch(
        rf"{what}: 7 of 7 are right, of 50 times 50 numbers, by 2 workers and (numpy|Python)\n", said
    ), said


@pytest.mark.parametrize("what", ["multiply", "sum"])
def test_it_does_without_numpy(what: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['numpy'] = None\n")
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    said = output_of("matrices.py", what, "--workers", "2", "--count", "3", "--side", "20", env={"PYTHONPATH": paths})

    assert said == f"{what}: 3 of 3 are right, of 20 times 20 numbers, by 2 workers and Python\n"


def test_in_a_terminal_there_is_a_bar() -> None:
    pytest.importorskip("rich")
    ours, theirs = pty.openpty()
    try:
        args = command("matrices.py", "--workers", "1", "--count", "5", "--side", "20")
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
        done = subprocess.run(
            args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=WITHIN,
            check=False,
            env=environment,
        )
        shown = os.read(ours, 65_536).decode(errors="replace")
    finally:
        os.close(ours)
        os.close(theirs)

    assert done.returncode == 0
    assert done.stdout.startswith(b"multiply: 5 of 5 are right")
    assert "multiply" in shown
    assert "100%" in shown
    assert shown.count("\n") == 1
