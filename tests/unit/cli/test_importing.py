"""What ``MODULE:NAME`` names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seqrpc.cli.endings import Ending
from seqrpc.cli.importing import is_named, named, thing_at


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a module in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "seqrpc_thing.py").write_text("class Outer:\n    class Inner: ...\n")
    yield "seqrpc_thing"
    sys.modules.pop("seqrpc_thing", None)


@pytest.mark.parametrize("text", ["a:B", "a.b:C.d", "_a:b"])
def test_names_are_known(text: str) -> None:
    assert is_named(text)


@pytest.mark.parametrize("text", ["fd:3", "systemd:x", "exec:x", "/a:b", "a", "a:", ":b", "a b:c", "ssh://a:b"])
def test_addresses_are_no_names(text: str) -> None:
    assert not is_named(text)


def test_a_name_has_two_parts() -> None:
    assert named("a.b:C") == ("a.b", "C")
    for text in ("a", "a:", ":b"):
        with pytest.raises(Ending, match="MODULE:CLASS") as raised:
            named(text)
        assert raised.value.status == 2


def test_what_is_in_a_module_of_the_working_directory_is_found(module: str) -> None:
    assert thing_at(module, "Outer.Inner").__name__ == "Inner"
    assert thing_at(module, "Outer").__name__ == "Outer"


def test_what_is_not_there_is_told(module: str, tmp_path: Path) -> None:
    with pytest.raises(Ending, match="seqrpc_thing has no 'Oter'; did you mean 'Outer'"):
        thing_at(module, "Oter")
    for name in ("seqrpc_no_such", "seqrpc_no_such.inner"):
        with pytest.raises(Ending, match="there is no module seqrpc_no_such") as raised:
            thing_at(name, "X")
        assert raised.value.status == 2
    with pytest.raises(Ending, match=r"there is no module \./a/b\.py, .*; a module is written as a\.b"):
        thing_at("./a/b.py", "X")
    (tmp_path / "seqrpc_importer.py").write_text("import seqrpc_no_such\n")
    with pytest.raises(Ending, match="seqrpc_importer imports seqrpc_no_such, which is not there") as raised:
        thing_at("seqrpc_importer", "X")
    assert raised.value.status == 1
    (tmp_path / "seqrpc_ends.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(Ending, match=r"seqrpc_ends ends the program where it is imported: SystemExit\(0\)") as raised:
        thing_at("seqrpc_ends", "X")
    assert raised.value.status == 1
