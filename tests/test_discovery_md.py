"""What docs/discovery.md says is true: its programs do what it says, and its tables have all that there is."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemons import needs_root, wait_until_it_listens
from support.pages import blocks_of, check_types, programs_of, text_of, write
from support.waiting import PATIENCE

from seqrpc.interface import openrpc, schemas

PAGE = text_of("discovery.md")
BLOCKS = blocks_of(PAGE)
FILES = programs_of(BLOCKS)
PRINTED = re.findall(r"^(?:It|[^\n]* look\.py [^\n]*) ?prints\n\n```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which everything from the page is in files."""
    return write(FILES, tmp_path_factory.mktemp("page"))


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
    check_types(written, FILES)
