"""What SECURITY.md promises is held by the tests that it names, and seqrpc makes no code of data."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import seqrpc

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISED, _, NOT_PROMISED = PAGE.partition("\n## What is not promised\n")
PACKAGE = Path(seqrpc.__file__).parent

MAKE_CODE = {"pickle", "_pickle", "marshal", "shelve", "copyreg", "multiprocessing", "runpy"}
"""Modules that would make objects, or run something, by what they read."""

RUN_CODE = {"eval", "exec", "compile", "__import__"}


def test_each_promise_names_tests_and_each_of_them_is_there() -> None:
    rows = [
        line for line in PROMISED.splitlines() if line.startswith("| ") and not line.startswith(("| promise", "| ---"))
    ]
    there = {
        name for path in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }

    assert len(rows) >= 30
    for row in rows:
        held_by = re.findall(r"`(test_\w+)`", row.split(" | ")[1])
        assert held_by, row
        assert set(held_by) <= there, row


def test_its_limits_are_limits() -> None:
    names = set(re.findall(r"`(max_\w+)`", PAGE))

    assert names
    assert {name for name in names if not hasattr(seqrpc.Limits(), name)} == set()


def test_nothing_here_makes_code_of_data() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name.partition(".")[0] for alias in node.names} & MAKE_CODE, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in MAKE_CODE, path
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in RUN_CODE, path
