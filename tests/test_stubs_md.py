"""docs/stubs.md is true: its programs run, beside a stub of the daemon of docs/discovery.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.programs import WITHIN, wait_for

ROOT = Path(__file__).parent.parent

MAKE = """
import json
import shelf
from seqrpc.documents import document_of
json.dump(document_of(shelf.Shelf), open("new.json", "w"))
"""


def programs_of(page: str) -> dict[str, str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL))


def output_of(directory: Path, *args: str) -> str:
    ran = subprocess.run(
        [sys.executable, *args],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert (ran.stderr, ran.returncode) == ("", 0)
    return ran.stdout


def test_its_commands_do_what_they_say(tmp_path: Path) -> None:
    pytest.importorskip("click")
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "stubs.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    (tmp_path / "shelf.py").write_text(programs_of("discovery.md")["shelf.py"])
    script = "\n".join(blocks).replace("/run/shelf.sock", "socket").replace(" > ", " >| ")
    command = f'set -eu\nseqrpc() {{ {sys.executable} -m seqrpc "$@"; }}\nseqrpc describe shelf:Shelf > shelf.json\n'
    with subprocess.Popen(
        [sys.executable, "shelf.py", "socket"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    ) as daemon:
        try:
            wait_for(tmp_path / "socket", daemon)
            ran = subprocess.run(
                ["sh", "-c", command + script],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=WITHIN,
                check=False,
            )
        finally:
            daemon.terminate()
    assert (ran.stderr, ran.returncode) == ("", 0), ran.stdout
    assert "class BlockingShelf(" in (tmp_path / "shelf_stub.py").read_text()


def test_its_programs_run(tmp_path: Path) -> None:
    programs = {**programs_of("stubs.md"), "shelf.py": programs_of("discovery.md")["shelf.py"]}
    assert sorted(programs) == ["app.py", "both.py", "build.py", "script.py", "shelf.py"]
    for name, code in programs.items():
        (tmp_path / name).write_text(code)
    output_of(tmp_path, "build.py")
    output_of(tmp_path, "-c", MAKE)
    document = json.loads((tmp_path / "new.json").read_text())
    document["methods"] = [method for method in document["methods"] if method["name"] != "Shelf.burn"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "shelf.py", "socket"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as daemon:
        try:
            wait_for(tmp_path / "socket", daemon)
            assert output_of(tmp_path, "app.py", "socket") == "there is no such book\n"
            assert output_of(tmp_path, "script.py", "socket") == ""
        finally:
            daemon.terminate()
    assert output_of(tmp_path, "both.py", "old.json", "new.json") == (
        "Shelf.burn: the method is new (breaks servers: a new caller calls what an old server does not have)\n"
    )
