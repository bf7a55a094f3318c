"""The other type checker, which comes with the extra dev."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

CONFIGURED: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pyright"]


def complaints_of_pyright(project: Path) -> tuple[int, list[str]]:
    """Return how many files pyright looked at, and its complaints, one a line.

    Args:
        project: the file or the directory with its configuration.
    """
    pytest.importorskip("pyright")
    ran = subprocess.run(
        [sys.executable, "-m", "pyright", "--project", project, "--pythonpath", sys.executable, "--outputjson"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.startswith("{"), f"pyright did not run: {ran.stdout}{ran.stderr}"
    told = json.loads(ran.stdout)
    lines = [
        f"{one['file']}:{one['range']['start']['line'] + 1}: {one['message']} ({one.get('rule')})"
        for one in told["generalDiagnostics"]
    ]
    return told["summary"]["filesAnalyzed"], lines
