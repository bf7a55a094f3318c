"""What docs/testing.md says is true: its tests pass as printed, and it has every public name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.plugin import new_project, run_all

import seqrpc.testing
from seqrpc.testing import Fault, FaultyPair, Way, caller
from seqrpc.testing.plugin import pytest_configure

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {name[1]: block for block in BLOCKS if (name := re.match(r"# (\w+\.py)\n", block))}


def test_every_block_is_a_file() -> None:
    assert len(FILES) == len(BLOCKS) >= 10


def test_the_tests_of_the_page_pass_as_printed(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    for name, text in FILES.items():
        (project / name).write_text(text, encoding="utf-8")
    tests = sum(len(re.findall(r"^(?:async )?def test_", text, re.MULTILINE)) for text in FILES.values())
    out = run_all(project, "-o", "asyncio_mode=auto")
    assert f"{tests} passed" in out, out
    assert "failed" not in out


def test_it_has_every_public_name() -> None:
    faces = {name for name in seqrpc.testing.__all__ if name not in ("Packet", "Way", "MemoryServer", "FaultyPair")}
    for name in sorted(faces):
        assert re.search(rf"\b{name}\b", PAGE), name


def table(first: str) -> set[str]:
    """Return the names in the first column of a table."""
    rows = PAGE.partition(f"| {first} | ")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| `(\w+)", rows, re.MULTILINE))


def test_its_tables_are_whole() -> None:
    import inspect

    assert table("`caller(...)`") == {*inspect.signature(caller).parameters}
    assert table("on a way") == {name for name in dir(Way) if not name.startswith("_")}
    assert table("fixture") == {
        name
        for module in ("plugin", "fixtures")
        for name in re.findall(
            r"^(?:async )?def (seqrpc_\w+)", Path(seqrpc.testing.__path__[0], f"{module}.py").read_text(), re.MULTILINE
        )
    }
    assert callable(pytest_configure)


@pytest.mark.parametrize("cls", [Fault, FaultyPair])
def test_what_there_is_of_a_pair_and_a_fault_is_told(cls: type) -> None:
    for name in dir(cls):
        if not name.startswith("_"):
            assert re.search(rf"\b{name}\b", PAGE), name


def test_it_can_be_found() -> None:
    for page in ("README.md", "docs/reference.md"):
        assert "testing.md" in (ROOT / page).read_text(encoding="utf-8")
