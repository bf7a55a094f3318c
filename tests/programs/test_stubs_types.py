"""Stubs of services with every type that conversion is tested with: both type checkers pass them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.pyright import ROOT, complaints_of_pyright
from support.roundtrips import can_be_sent, groups, service_of

from seqrpc.documents import document_of, write_stub


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a stub for each group of types."""
    directory = tmp_path_factory.mktemp("types")
    for number, (name, types) in enumerate(groups()):
        sent = [annotation for annotation in types if can_be_sent(annotation)]
        if sent:
            (directory / f"stub_{number}.py").write_text(write_stub(document_of(service_of(sent)), name))
    return directory


def test_mypy_passes_all_types(stubs: Path) -> None:
    pytest.importorskip("mypy")
    (stubs / "mypy.ini").write_text(
        f"[mypy]\nstrict = True\npython_version = 3.11\nmypy_path = {ROOT}\n"
        "[mypy-seqrpc.*,msgpack.*]\nfollow_imports = silent\nignore_missing_imports = True\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "."]
    ran = subprocess.run(command, cwd=stubs, capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("Success: no issues found in"), ran.stdout + ran.stderr


def test_pyright_passes_all_types(stubs: Path) -> None:
    configuration = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "extraPaths": [str(ROOT)]}
    (stubs / "pyrightconfig.json").write_text(json.dumps(configuration))
    looked_at, complaints = complaints_of_pyright(stubs)
    assert complaints == []
    assert looked_at > 90
