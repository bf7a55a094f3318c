"""What changed between two documents, and whom it breaks: each kind of change told apart, with the reason."""

from __future__ import annotations

import pytest
from support.changed import BOTH, CASES, FLOAT, INT, NULL, TEXT, a_class, giving, whole
from support.discovered import method, ours, param, ref

from seqrpc.documents.changes import Change, compare


@pytest.mark.parametrize("reason", CASES)
def test_each_change_is_told_apart(reason: str) -> None:
    old, new, path, text, breaks = CASES[reason]
    (change,) = compare(old, new)
    assert (change.path, change.text, change.breaks) == (path, text, breaks)
    assert change.why


def test_there_are_many_kinds_of_changes() -> None:
    assert len(CASES) >= 25
    assert {case.breaks for case in CASES.values()} == {"callers", "servers", BOTH, "nobody"}


def test_who_may_call_and_docstrings_are_not_compared() -> None:
    old = giving(INT, summary="Old.", **ours(allowed=True, rule="root"))
    assert compare(whole(old), whole(giving(INT, summary="New.", description="More."))) == []


def test_a_change_of_a_class_is_told_once_and_breaks_all_that_it_breaks_anywhere() -> None:
    uses = [method("S.f", param("a", ref("A")), result=ref("A")), method("S.g", param("a", ref("A")), result=NULL)]
    old, new = a_class(required=["x"], x=INT), a_class(required=["x"], x=FLOAT)
    (change,) = compare(whole(*uses, schemas=old), whole(*uses, schemas=new))
    assert (change.path, change.text, change.breaks) == ("A.x", "it was int, and is float", BOTH)
    assert change.why == (
        "what a new caller sends may not fit an old server, and what a new server sends may not fit an old caller"
    )


def test_places_of_parameters_that_changed() -> None:
    old = method("S.f", param("a", INT), param("b", TEXT), result=NULL)
    new = method("S.f", param("b", TEXT), param("a", INT), result=NULL)
    changes = compare(whole(old), whole(new))
    assert [(one.path, one.text, one.breaks) for one in changes] == [
        ("S.f(a)", "it was number 1 by its place, and is number 2", BOTH),
        ("S.f(b)", "it was number 2 by its place, and is number 1", BOTH),
    ]


def test_texts_of_documents_are_shown_escaped() -> None:
    for change in compare(whole(method("S.\x1b[2J", param("\n", INT))), whole(method("S.\x1b[2J", param("\r", TEXT)))):
        assert (change.path + change.text + change.why).isprintable()


def test_a_change_says_whom_it_breaks() -> None:
    made = [
        Change(path="p", text="t", why="w", breaks_callers=callers, breaks_servers=servers).breaks
        for callers in (True, False)
        for servers in (True, False)
    ]
    assert made == [BOTH, "callers", "servers", "nobody"]
