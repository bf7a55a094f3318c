"""What docs/discovery.md says is true: its programs do what it says, and its tables have all that there is."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemons import needs_root, wait_until_it_listens
from support.waiting import PATIENCE

from seqrpc.interface import openrpc, schemas

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "discovery.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {name[1]: block for block in BLOCKS if (name := re.match(r"# (\w+\.py)\n", block))}
PRINTED = re.findall(r"^(?:It|[^\n]* look\.py [^\n]*) ?prints\n\n```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which everything from the page is in files."""
    directory = tmp_path_factory.mktemp("page")
    for name, text in FILES.items():
        (directory / name).write_text(text, encoding="utf-8")
    return directory


def run(written: Path, name: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", name, *map(str, arguments)],
        cwd=written,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_block_is_a_file_that_is_run_here() -> None:
    assert len(FILES) == len(BLOCKS)
    assert set(FILES) == {"shelf.py", "look.py", "document.py"}
    assert len(PRINTED) == 2


@needs_root
def test_the_daemon_is_asked(written: Path, socket_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-W", "error", "shelf.py", str(socket_path)], cwd=written) as daemon:
        try:
            wait_until_it_listens(socket_path)
            assert run(written, "look.py", socket_path) == PRINTED[0]
        finally:
            daemon.terminate()
    assert daemon.returncode == 0


def test_a_document_is_made_without_a_server(written: Path) -> None:
    assert run(written, "document.py") == PRINTED[1]


def test_each_key_is_on_the_page() -> None:
    for module in (openrpc, schemas):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Dict):
                for key in node.keys:
                    if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value not in WORDS:
                        assert re.search(rf"(?<!\w){re.escape(key.value)}(?!\w)", PAGE), key.value


WORDS = {"ge", "gt", "le", "lt", "multiple_of", "pattern", "min_length", "max_length"}
"""Keys of tables of the modules' own: what msgspec calls bounds."""


def test_everything_passes_the_type_checker(written: Path) -> None:
    pytest.importorskip("mypy")
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(written / "cache")),
            *("--config-file", str(ROOT / "pyproject.toml"), *FILES),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=written,
        env={**os.environ, "MYPYPATH": f"{ROOT}:{written}"},
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
