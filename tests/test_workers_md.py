"""What docs/workers.md says is true: its programs do as printed what it says they do, and its tables are whole."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import ROOT, blocks_of, check_types, programs_of, text_of, write
from support.processes import AS_ROOT
from support.waiting import PATIENCE

import seqrpc
from seqrpc.calls.plans import check_output

PAGE = text_of("workers.md")
BLOCKS = blocks_of(PAGE)
FILES = programs_of(BLOCKS)
PRINTED = re.findall(r"^It prints\n\n```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

NUMBERS = "[2, 2, 3, 7]\n"

KILLED = "did not end a call within 0.5 s after it was cancelled, and was killed"

SAID = {
    "first.py": f"{NUMBERS}[7, 13]\n1001 is not from 1 to 1000\nit ended with status 0\n",
    "giving_up.py": f"it lives\nit has ended\n{KILLED}\n",
    "dying.py": PRINTED[0],
    "logged.py": "WARNING children Factors: the disk is on fire\n3\n",
    "asking.py": "the child asks whether it may read\nthe child asks whether it may write\n['read']\n",
    "nobody.py": "(65534, [])\na secret\nPermission denied\n",
    "pool.py": f"{NUMBERS}[2, 3, 3, 3, 5, 37]\n[97, 103]\n[2, 2, 2, 1249]\n101 is not from 1 to 100\n3 workers\n",
    "retrying.py": "signal 6\ndone\n",
    "command.py": "5\n",
    "script.py": NUMBERS,
    "executor.py": "(2, 3)\n[(0, 0), (0, 1), (1, 1)]\n"
    "halves: args[0] is of type object, which does not travel: plain data do, and nothing is pickled\n",
}
"""What each program prints that can be checked so."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which everything from the page is in files."""
    return write(FILES, tmp_path_factory.mktemp("page"))


def run(name: str, directory: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-W", "error", name]
    return subprocess.run(
        program, cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
    )


def test_every_block_is_a_file() -> None:
    assert len(FILES) == len(BLOCKS) >= 12


def test_every_program_is_run_here() -> None:
    programs = {name for name, text in FILES.items() if re.search(r"asyncio\.run\(|blocking|WorkerExecutor\(", text)}
    assert programs == SAID.keys()
    assert SAID.keys() <= programs


@pytest.mark.parametrize("name", sorted(SAID))
def test_a_program_does_what_it_says(name: str, written: Path) -> None:
    if name == "nobody.py" and not AS_ROOT:
        pytest.skip("only root can become another user")
    done = run(name, written)
    complaints = done.stderr
    if name == "giving_up.py":  # the log has it, too
        assert complaints.count("\n") == 1
        assert KILLED in complaints
        complaints = ""
    assert (done.returncode, complaints, done.stdout) == (0, "", SAID[name])


@pytest.mark.skipif(AS_ROOT, reason="root can become another user")
def test_who_is_not_root_is_told(written: Path) -> None:
    done = run("nobody.py", written)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "only root can become nobody\n")


def test_what_is_said_of_programs_is_what_they_print() -> None:
    assert KILLED in " ".join(PAGE.split())
    for text in ("WARNING children Factors: the disk is on fire", "signal 6"):
        assert f"It prints `{text}`" in PAGE


def test_everything_passes_the_type_checker(written: Path) -> None:
    check_types(written, FILES)


@pytest.mark.parametrize("cls", [seqrpc.Worker, seqrpc.WorkerPool])
def test_it_has_every_option_and_every_name_of_a_class(cls: type) -> None:
    options = [*inspect.signature(cls).parameters][2:]
    shown = {name for name in dir(cls) if not name.startswith("_")} - set(dir(seqrpc.Channel))
    for name in (*options, *shown):
        assert re.search(rf"\b{name}\b", PAGE), name


def test_its_table_of_outputs_is_whole() -> None:
    rows = PAGE.partition("\n| `output=` | ")[2].partition("\n\n")[0]
    said = re.findall(r"^\| (.*?)[,|]? ", rows, re.MULTILINE)
    assert said == ["---", '`"inherit"`', "a", '`"capture"`']
    for kind in ("inherit", "capture"):
        assert check_output(kind) == kind


def test_every_public_name_it_writes_exists() -> None:
    for name in set(re.findall(r"\bseqrpc\.([A-Za-z_]+)", PAGE)):
        assert hasattr(seqrpc, name) or name in ("blocking", "py"), name


def test_it_can_be_found() -> None:
    for page in ("README.md", "docs/reference.md", "docs/blocking.md", "docs/design.md"):
        assert "workers.md" in (ROOT / page).read_text(encoding="utf-8"), page
