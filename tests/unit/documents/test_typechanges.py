"""What changed in types: in both directions, and where they hold themselves."""

from __future__ import annotations

from typing import Any

import pytest
from support.changed import CASES, INT, NULL, TEXT, giving, whole
from support.discovered import ours, ref

from seqrpc.documents.changes import compare


@pytest.mark.parametrize("reason", CASES)
def test_back_again_breaks_the_others(reason: str) -> None:
    """What an old caller is to a new server, a new caller is to an old one."""
    case = CASES[reason]
    there, back = compare(case.old, case.new), compare(case.new, case.old)
    assert [(one.breaks_callers, one.breaks_servers) for one in there] == [
        (one.breaks_servers, one.breaks_callers) for one in back
    ]


@pytest.mark.parametrize("reason", CASES)
def test_what_is_the_same_has_no_changes(reason: str) -> None:
    assert compare(CASES[reason].old, CASES[reason].old) == []


TREE = {"T": {"anyOf": [{"type": "array", "items": ref("T")}, INT], **ours(alias=True)}}


def test_types_that_hold_themselves_have_an_end() -> None:
    node = {"A": {"properties": {"next": {"anyOf": [ref("A"), NULL]}, "x": INT}, **ours(type="dataclass")}}
    other = {"A": {"properties": {"next": {"anyOf": [ref("A"), NULL]}, "x": TEXT}, **ours(type="dataclass")}}
    (change,) = compare(whole(giving(ref("A")), schemas=node), whole(giving(ref("A")), schemas=other))
    assert (change.path, change.text) == ("A.x", "it was int, and is str")
    wider = {"T": {"anyOf": [{"type": "array", "items": ref("T")}, INT, TEXT], **ours(alias=True)}}
    (change,) = compare(whole(giving(ref("T")), schemas=TREE), whole(giving(ref("T")), schemas=wider))
    assert (change.path, change.text, change.breaks) == ("T", "it may be str as well", "callers")


def test_a_name_and_what_it_stands_for_are_the_same() -> None:
    unrolled = {"anyOf": [{"type": "array", "items": ref("T")}, INT]}
    twice = {"anyOf": [{"type": "array", "items": unrolled}, INT]}
    for one in (unrolled, twice):
        assert compare(whole(giving(ref("T")), schemas=TREE), whole(giving(one), schemas=TREE)) == []
        assert compare(whole(giving(one), schemas=TREE), whole(giving(ref("T")), schemas=TREE)) == []


def test_a_long_chain_of_classes_is_compared_to_its_end() -> None:
    def chain(last: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            f"A{number}": {"properties": {"next": ref(f"A{number + 1}")}, **ours(type="dataclass")}
            for number in range(3_000)
        }
        return {**made, "A3000": {"properties": {"next": last}, **ours(type="dataclass")}}

    (change,) = compare(whole(giving(ref("A0")), schemas=chain(INT)), whole(giving(ref("A0")), schemas=chain(TEXT)))
    assert change.path == "A3000.next"
