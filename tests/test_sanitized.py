"""A sanitizer that finds something in the native twin is an error, in whatever process, and what it found is shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.native import NATIVE
from support.waiting import PATIENCE

import seqrpc

ROOT = NATIVE.parent

WRONG = """
#include <limits.h>
#include <stdlib.h>

__attribute__((constructor)) static void
wrong(void)
{
    const char *how = getenv("WRONG");
    volatile char *block = malloc(4);
    volatile int number = INT_MAX;
    if (how != NULL && *how == 'a') {
        block[atoi(how + 1)] = 1;
    }
    if (how != NULL && *how == 'u') {
        number = number + 1;
    }
    free((void *)block);
}
"""

PROGRAM = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import seqrpc; print(seqrpc.__twin__)"])
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkout whose native twin goes wrong if the environment says so."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(NATIVE, tree / "native")
    shutil.copytree(Path(seqrpc.__path__[0]), tree / "seqrpc", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tree / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/sanitized", tree / ".ci")
    (tree / "native/wrong.c").write_text(WRONG)
    return tree


@pytest.mark.parametrize(
    "wrong, found",
    [("", ""), ("a8", "ERROR: AddressSanitizer: "), ("u", "ERROR: AddressSanitizer: ")],
)
def test_what_is_wrong_is_found_in_a_child_too(tree: Path, wrong: str, found: str) -> None:
    done = subprocess.run(
        [tree / ".ci/sanitized", sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
        env={**os.environ, "WRONG": wrong, "SEQRPC_PURE": "", "GIT_CEILING_DIRECTORIES": str(tree.parent)},
    )
    if any(reason in done.stderr for reason in ("there is no", "lasan", "use libasan")):
        pytest.skip(done.stderr)
    assert done.returncode == (1 if wrong else 0), done.stderr
    assert done.stdout.startswith("" if wrong else "native\n")
    assert found in done.stdout
    assert ("wrong.c:" in done.stdout) is bool(wrong)
    assert not list(tree.glob("seqrpc/*.so")), "the tree is as it was"
