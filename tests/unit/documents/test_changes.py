"""What changed between two documents, and whom it breaks: each kind of change told apart, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from support.changed import BOTH, CASES, FLOAT, INT, NULL, OTHER, TAGGED, TEXT, a_class, giving, taking, whole
from support.discovered import method, ours, param, ref

from seqrpc.documents.changes import Change, compare
from seqrpc.documents.trees import Document


@pytest.mark.parametrize("reason", CASES)
def test_each_change_is_told_apart(reason: str) -> None:
    old, new, path, text, breaks = CASES[reason]
    (change,) = compare(old, new)
    assert (change.path, change.text, change.breaks) == (path, text, breaks)
    assert change.why


def test_there_are_many_kinds_of_changes() -> None:
    assert len(CASES) >= 80
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


def told(old: Document, new: Document) -> list[tuple[str, str, str]]:
    return [(one.path, one.text, one.breaks) for one in compare(old, new)]


def test_beside_another_class_each_needs_its_tag() -> None:
    old = whole(taking(ref("A")), schemas=a_class("struct", ["x"], x=INT))
    new = whole(
        taking({"anyOf": [ref("A"), ref("B")]}), schemas={**a_class("struct", ["x"], TAGGED, x=INT), "B": OTHER}
    )
    assert told(old, new) == [
        ("S.f(a)", "it is no longer A", "callers"),
        ("S.f(a)", "it may be A as well", "nobody"),
        ("S.f(a)", "it may be B as well", "servers"),
    ]
    assert told(new, old) == [
        ("S.f(a)", "it is no longer A", "nobody"),
        ("S.f(a)", "it is no longer B", "callers"),
        ("S.f(a)", "it may be A as well", "servers"),
    ]


def test_a_service_or_a_method_with_another_name_is_gone_and_new() -> None:
    assert told(whole(method("S.f")), whole(method("T.f"))) == [
        ("S", "the service is gone", "callers"),
        ("T", "the service is new", "servers"),
    ]
    assert told(whole(method("S.g"), giving(INT)), whole(method("S.h"), giving(INT))) == [
        ("S.g", "the method is gone", "callers"),
        ("S.h", "the method is new", "servers"),
    ]


def test_a_parameter_between_others_moves_those_after_it() -> None:
    old = whole(method("S.f", param("a", INT), param("b", TEXT, required=False), result=NULL))
    new = whole(
        method("S.f", param("a", INT), param("n", INT, required=False), param("b", TEXT, required=False), result=NULL)
    )
    assert told(old, new) == [
        ("S.f(b)", "it was number 2 by its place, and is number 3", BOTH),
        ("S.f(n)", "it is new, and may be left out", "servers"),
    ]


def test_a_parameter_that_is_given_otherwise_may_lose_its_default_as_well() -> None:
    old = whole(method("S.f", param("a", {**INT, "default": 1}, required=False), result=NULL))
    new = whole(method("S.f", param("a", INT, keyword_only=True), result=NULL))
    assert told(old, new) == [
        ("S.f(a)", "it has to be given", "callers"),
        ("S.f(a)", "it is given by name only", "callers"),
    ]


def test_words_for_people_are_no_interface() -> None:
    old = whole(taking(ref("A")), schemas=a_class(x={**INT, "title": "a", "description": "b", "examples": [1]}))
    new = whole(taking({"allOf": [ref("A")], "title": "t"}), schemas={"A": {**a_class(x=INT)["A"], "title": "B"}})
    assert told(old, new) == []


def test_items_of_arrays_are_known_by_their_places() -> None:
    def array(kind: str, *fields: str, **more: Any) -> Document:
        made = {"items": [INT] * len(fields), "minItems": 1, **ours(type=kind, array=True, fields=[*fields], **more)}
        return whole(giving({"anyOf": [ref("A"), NULL]}), giving_other(ref("A")), schemas={"A": made})

    assert told(array("struct", "x", "y"), array("struct", "x", "z")) == []
    assert told(array("struct", "x"), array("struct", "x", "y")) == [
        ("A.y", "it is new, and may be left out", "nobody")
    ]
    strict = array("struct", "x", forbid_unknown=True), array("struct", "x", "y", forbid_unknown=True)
    assert told(*strict) == [("A.y", "it is new, and may be left out", "callers")]
    assert told(array("namedtuple", "x"), array("namedtuple", "x", "y")) == [
        ("A.y", "it is new, and may be left out", "callers")
    ]


def giving_other(schema: Any) -> dict[str, Any]:
    return method("S.g", result=schema)


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
