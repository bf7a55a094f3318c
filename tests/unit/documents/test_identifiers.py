"""Names that may stand in code, and what stands in the place of others."""

from __future__ import annotations

import pytest

from seqrpc.documents import identifiers
from seqrpc.documents.identifiers import (
    Names,
    attribute_names,
    camel_case,
    identifier_like,
    is_attribute,
    is_identifier,
    is_member,
    member_names,
)


@pytest.mark.parametrize("name", ["a", "_a", "größe", "match", "type", "print", "A1", "x" * 79, "__a__"])
def test_python_reads_some_names_as_they_are(name: str) -> None:
    assert is_identifier(name)


@pytest.mark.parametrize("name", ["", "1a", "a b", "a-b", "class", "None", "a\n", "ﬁ", "Ⅷ", "x" * 80, "a.b", "\udc80"])
def test_python_reads_others_otherwise(name: str) -> None:
    assert not is_identifier(name)
    assert not is_attribute(name)
    assert not is_member(name)


def test_names_with_two_underscores_are_not_left_alone_in_classes() -> None:
    assert is_attribute("_a")
    assert not is_attribute("__a")
    assert not is_attribute("__init__")
    assert not is_attribute("__debug__")


@pytest.mark.parametrize(
    "name, may_be", [("RED", True), ("_red", True), ("_red_", False), ("mro", False), ("__a", False)]
)
def test_members_of_enums_have_names_of_their_own(name: str, may_be: bool) -> None:
    assert is_member(name) is may_be


@pytest.mark.parametrize(
    "text, name",
    [
        ("Entry", "Entry"),
        ("_Entry", "_Entry"),
        ("a-b c", "a_b_c"),
        ("1a", "_1a"),
        ("class", "class_"),
        ("ﬁ", "fi"),
        ("__init__", "init"),
        ("", "otherwise"),
        ("!!", "otherwise"),
        ("x" * 100, "x" * 60),
        ('"""\nimport os', "import_os"),
    ],
)
def test_a_name_looks_like_the_text(text: str, name: str) -> None:
    assert identifier_like(text, "otherwise") == name


def test_words_become_one_name() -> None:
    assert camel_case("follow", "since_when") == "FollowSinceWhen"
    assert camel_case("", "_a") == "A"


def test_each_name_is_for_one_thing() -> None:
    names = Names(["taken"])
    assert [names.claim(name) for name in ("a", "a", "taken", "a", "_", "_")] == [
        "a",
        "a_2",
        "taken_2",
        "a_3",
        "_",
        "_2",
    ]
    assert "a_2" in names
    assert "b" not in names


def test_attributes_keep_their_names_where_they_may() -> None:
    names = ["a", "class", "class_", "a-b", "a_b", "__x", "mro", "!", "x" * 70]
    assert attribute_names(names, "field") == {
        "a": "a",
        "class": "class_2",
        "class_": "class_",
        "a-b": "a_b_2",
        "a_b": "a_b",
        "__x": "x",
        "mro": "field",
        "!": "field_2",
        "x" * 70: "x" * 60,
    }


def test_members_keep_their_names_where_they_may() -> None:
    assert member_names(["RED", "_x_", "mro", "x"]) == {"RED": "RED", "_x_": "MEMBER", "mro": "MEMBER_2", "x": "x"}


def test_no_name_is_longer_than_a_line_has_room_for() -> None:
    assert identifiers.LONGEST < 80
