"""What may be typed next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk, Other

from seqrpc.cli import offers
from seqrpc.cli.endings import Ending
from seqrpc.cli.learning import by_name
from seqrpc.cli.offers import CONTENT, FILE, OPEN, PLAIN, Offer, of_chain, of_files, of_methods, paths
from seqrpc.documents.model import read
from seqrpc.interface.openrpc import document_of

DOCUMENT = read(document_of([Desk, Other]))
METHODS = by_name(DOCUMENT.methods)


def texts(offers: Any) -> list[str]:
    return [each.text for each in offers]


def test_methods_are_offered_whole_and_without_their_service_where_one_has_them() -> None:
    assert of_methods(METHODS, "Desk.ad") == [Offer("Desk.add", "Return the sum.")]
    assert of_methods(METHODS, "ad") == [Offer("add", "Return the sum.")]
    assert of_methods(METHODS, "ech") == []
    assert len(of_methods(METHODS, "")) == len(METHODS)


@pytest.mark.parametrize(
    "calls, begun, expected",
    [
        ([[]], "Other.o", [("Other.only", PLAIN)]),
        ([["add"]], "", [("a=", OPEN), ("b=", OPEN)]),
        ([["add", "1"]], "", [("b=", OPEN)]),
        ([["add", "b=1"]], "", [("a=", OPEN)]),
        ([["add", "1", "2"]], "", []),
        ([["told"]], "r", [("red", PLAIN), ("ratio=", OPEN)]),
        ([["told", "red"]], "r", [("ratio=", OPEN)]),
        ([["told"]], "yes=", [("yes=true", PLAIN), ("yes=false", PLAIN)]),
        ([["told"]], "path=/x", [("/x", FILE)]),
        ([["told"]], "path=@/x", [("/x", CONTENT)]),
        ([["told"]], "@", [("", CONTENT)]),
        ([["told"]], "@@", []),
        ([["told"]], "path=@@x", [("@@x", FILE)]),
        ([["box", "a"], []], "pu", [("put", PLAIN)]),
        ([["box", "a"], ["put", "x"], ["look"]], "", []),
        ([["box", "a"], ["put"]], "", [("text=", OPEN)]),
        ([["Desk.hidden"]], "", []),
        ([["Desk.hidden"], []], "", []),
    ],
)
def test_what_follows_is_of_the_last_call(calls: list[list[str]], begun: str, expected: list[tuple[str, str]]) -> None:
    assert [(each.text, each.kind) for each in of_chain(calls, begun, DOCUMENT)] == expected


def test_a_method_that_there_is_not_is_told() -> None:
    with pytest.raises(Ending, match="there is no method 'zzz'"):
        of_chain([["zzz"]], "", DOCUMENT)


def test_open_files_are_offered_for_what_takes_them() -> None:
    assert of_files(METHODS["Desk.write"], "", DOCUMENT) == [Offer("file=", "OwnedFd", OPEN)]
    assert of_files(METHODS["Desk.write"], "te", DOCUMENT) == []
    assert of_files(METHODS["Desk.write"], "file=a", DOCUMENT) == [Offer("a", kind=FILE)]


def test_paths_are_those_that_begin_so_and_that_a_shell_takes_for_a_word(tmp_path: Path) -> None:
    for name in ("one", "once", "two", ".hidden", "with space", "a;b"):
        (tmp_path / name).touch()
    (tmp_path / "only").mkdir()
    assert paths(f"{tmp_path}/on") == [f"{tmp_path}/{name}" for name in ("once", "one", "only/")]
    assert paths(f"{tmp_path}/.h") == [f"{tmp_path}/.hidden"]
    assert f"{tmp_path}/.hidden" not in paths(f"{tmp_path}/")
    assert not any(";" in path for path in paths(f"{tmp_path}/"))
    assert paths("/nothing/here") == []


def test_of_many_paths_some_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "_MOST_FILES", 3)
    for number in range(9):
        (tmp_path / f"file{number}").touch()
    assert len(paths(f"{tmp_path}/f")) == 3
