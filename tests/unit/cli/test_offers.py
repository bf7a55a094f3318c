"""What may be typed next."""

from __future__ import annotations

from typing import Any

import pytest
from support.desk import Desk, Other

from seqrpc.cli.endings import Ending
from seqrpc.cli.learning import by_name
from seqrpc.cli.offers import CONTENT, FILE, OPEN, PLAIN, Offer, of_chain, of_files, of_methods
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
