"""Changes, and who sends what to whom."""

from __future__ import annotations

import pytest

from seqrpc.documents import ways
from seqrpc.documents.raw import DocumentError
from seqrpc.documents.trees import Scalar
from seqrpc.documents.ways import Change, Findings, Way

ARGUMENT = Way(server_provides=True, user_sends=True)
RESULT = ARGUMENT.back


def only(findings: Findings) -> Change:
    (change,) = findings.changes
    return change


def test_a_result_goes_back_and_an_object_turns_the_tables() -> None:
    assert Way(server_provides=True, user_sends=False) == RESULT
    assert (ARGUMENT.user, ARGUMENT.provider) == ("caller", "server")
    # What a caller gives away, the server calls; what the server gives away, callers call.
    assert ARGUMENT.of_object == Way(server_provides=False, user_sends=True)
    assert (ARGUMENT.of_object.user, ARGUMENT.of_object.provider) == ("server", "caller")
    assert RESULT.of_object == ARGUMENT
    assert ARGUMENT.of_object.of_object == ARGUMENT  # given to the object of a caller, by the server
    assert ARGUMENT.of_object.back.of_object == Way(server_provides=False, user_sends=True)


@pytest.mark.parametrize(
    "way, old_takes_new, new_takes_old, breaks",
    [
        (ARGUMENT, True, False, "callers"),
        (ARGUMENT, False, True, "servers"),
        (RESULT, True, False, "servers"),
        (RESULT, False, True, "callers"),
        (ARGUMENT.of_object, True, False, "servers"),
        (ARGUMENT.of_object.back, True, False, "callers"),
        (ARGUMENT, False, False, "callers and servers"),
        (RESULT, True, True, "nobody"),
    ],
)
def test_whom_a_type_breaks_depends_on_who_sends(
    way: Way, old_takes_new: bool, new_takes_old: bool, breaks: str
) -> None:
    findings = Findings()
    findings.differ("p", "t", way, old_takes_new=old_takes_new, new_takes_old=new_takes_old)
    assert only(findings).breaks == breaks


def test_the_reason_names_who_sends_and_who_takes() -> None:
    findings = Findings()
    findings.differ("p", "t", ARGUMENT, old_takes_new=True, new_takes_old=False)
    assert only(findings).why == "what an old caller sends may not fit a new server"
    findings = Findings()
    findings.differ("p", "t", RESULT, old_takes_new=False, new_takes_old=True)
    assert only(findings).why == "what a new server sends may not fit an old caller"
    findings = Findings()
    findings.differ("p", "t", RESULT, old_takes_new=True, new_takes_old=True)
    assert only(findings).why == "whatever a server sends fits the caller, be they old or new"


def test_what_is_found_twice_is_told_once_with_all_that_it_breaks() -> None:
    findings = Findings()
    findings.add("p", "t", "it breaks nobody", ARGUMENT)
    findings.add("p", "t", "one", ARGUMENT, users=True)
    findings.add("p", "t", "other", ARGUMENT, providers=True)
    findings.add("p", "t", "it breaks nobody", ARGUMENT)
    assert (only(findings).breaks, only(findings).why) == ("callers and servers", "one, and other")


def test_reasons_are_told_once_in_an_order_that_chance_does_not_make() -> None:
    ways = [ARGUMENT, RESULT, ARGUMENT]
    texts = set()
    for order in (ways, ways[::-1]):
        findings = Findings()
        for way in order:
            findings.differ("p", "t", way, old_takes_new=False, new_takes_old=True)
        texts.add(only(findings).why)
    (why,) = texts
    assert why == (
        "what a new caller sends may not fit an old server, and what a new server sends may not fit an old caller"
    )
    for comforts in (["a", "b"], ["b", "a"]):
        findings = Findings()
        for comfort in comforts:
            findings.add("p", "t", comfort, ARGUMENT)
        assert only(findings).why == "a"


def test_changes_are_in_the_order_of_their_paths() -> None:
    findings = Findings()
    for path in "cab":
        findings.add(path, "t", "w", ARGUMENT)
    assert [change.path for change in findings.changes] == ["a", "b", "c"]


def test_a_pair_is_compared_once_in_each_way() -> None:
    findings, one, other = Findings(), Scalar("int"), Scalar("str")
    assert findings.is_new(one, other, ARGUMENT)
    assert not findings.is_new(one, other, ARGUMENT)
    assert findings.is_new(one, other, RESULT)
    assert findings.is_new(other, one, ARGUMENT)


def test_there_is_a_bound_of_what_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "MOST_COMPARED", 2)
    findings, types = Findings(), [Scalar("int") for _ in range(3)]
    assert findings.is_new(types[0], types[1], ARGUMENT)
    assert findings.is_new(types[1], types[2], ARGUMENT)
    with pytest.raises(DocumentError, match="more than 2 pairs"):
        findings.is_new(types[2], types[0], ARGUMENT)
