"""A small project with tests, and pytest in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import seqrpc

ROOT = Path(__file__).parents[2]
PACKAGE = Path(seqrpc.__file__).parents[1]
"""Where the package is, which need not be this tree."""

SERVICE = """
import os
import seqrpc


class Calculator(seqrpc.Service, allow=seqrpc.policy.uid(1000)):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b
"""


def new_project(tmp_path: Path) -> Path:
    """Make a small project, and seqrpc beside it as if it were installed: with the entry points that it declares."""
    installed = tmp_path / "site" / "seqrpc_of_this_tree-0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: seqrpc-of-this-tree\nVersion: 0\n")
    points = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]["pytest11"]
    lines = ["[pytest11]", *(f"{name} = {module}" for name, module in points.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "calculator.py").write_text(SERVICE)
    return tmp_path


def run(project: Path, tests: str, *options: str) -> str:
    """Run tests in a project with pytest; return what it printed."""
    (project / "test_it.py").write_text(tests)
    return run_all(project, "test_it.py", *options)


def run_all(project: Path, *options: str) -> str:
    """Run the tests that are there; return what pytest printed."""
    path = os.pathsep.join(map(str, [project / "site", PACKAGE, project]))
    if "no:asyncio" not in options:
        options += ("-o", "asyncio_default_fixture_loop_scope=function")  # else it warns
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *options]
    done = subprocess.run(
        command, cwd=project, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr
