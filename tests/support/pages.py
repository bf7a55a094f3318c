"""The programs that pages of docs/ show, for tests that what the pages say is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def text_of(name: str) -> str:
    """Return the text of a page."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks_of(text: str) -> list[str]:
    """Return the blocks of Python in a page."""
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return blocks


def programs_of(blocks: Iterable[str]) -> dict[str, str]:
    """Return the blocks that begin with the names of files in comments, by these names."""
    return {name[1]: block for block in blocks if (name := re.match(r"# (\w+\.py)\n", block))}


def write(files: Mapping[str, str], directory: Path) -> Path:
    """Put files into a directory, and return that."""
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return directory


def check_types(directory: Path, names: Iterable[str]) -> None:
    """Check programs in a directory with mypy, strictly; skip the test where that is not installed."""
    pytest.importorskip("mypy")
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(directory / "cache")),
            *("--config-file", str(ROOT / "pyproject.toml"), *names),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        env={**os.environ, "MYPYPATH": f"{ROOT}:{directory}"},
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
