"""Values of a document, looked at one by one."""

from __future__ import annotations

from typing import Any

import pytest

from seqrpc.documents import raw
from seqrpc.documents.raw import DocumentError, Reading


@pytest.mark.parametrize(
    "read, good, bad",
    [
        (raw.map_of, {"a": 1}, [[], "x", None, {1: 2}]),
        (raw.list_of, [1], [{}, (1,), "x"]),
        (raw.text_of, "x", [1, None, True, b"x", "x" * 1001]),
        (raw.number_of, 1.5, ["1", True, float("nan"), float("inf"), 2**64, -(2**63) - 1]),
        (raw.count_of, 3, [-1, 1.5, True, "1"]),
        (raw.flag_of, False, [0, "false", None]),
        (raw.texts_of, ["a"], ["a", [1], {}]),
        (raw.ours_of, {}, [{raw.OURS: []}, {raw.OURS: None}]),
    ],
)
def test_what_is_to_be_of_one_kind_is_of_no_other(read: Any, good: Any, bad: list[Any]) -> None:
    assert read(good, "here") == good
    for value in bad:
        with pytest.raises(DocumentError, match=r"^here"):
            read(value, "here")


def test_a_number_of_things_may_be_written_as_a_float() -> None:
    assert raw.count_of(3.0, "here") == 3


def test_values_of_json_come_as_they_are() -> None:
    value: dict[str, Any] = {"a": [1, 1.5, True, None, "x", {"b": []}]}
    assert Reading().value(value, "here") == value


@pytest.mark.parametrize(
    "value, why",
    [
        ({"a": [b"x"]}, r"^here\.a\[0\]: expected a value of JSON, got `bytes`$"),
        ({"a": {1: 2}}, r"^here\.a: expected a text, got a number$"),
        ([float("nan")], r"^here\[0\]: expected a number, got nan$"),
        (["x" * 100_001], r"^here\[0\]: a text of 100001 characters, where 100000 is the most$"),
        (1 << 70, "^here: an integer of more than 64 bits$"),
        (None, ""),
    ],
)
def test_what_json_does_not_have_is_told_with_its_path(value: Any, why: str) -> None:
    if not why:
        assert Reading().value(value, "here") is None
        return
    with pytest.raises(DocumentError, match=why):
        Reading().value(value, "here")


def test_a_value_that_holds_itself_is_too_deep() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(DocumentError, match="nested deeper than 60 levels"):
        Reading().value(value, "here")


def test_values_are_counted_also_where_one_is_in_many_places() -> None:
    value: list[Any] = [1]
    for _ in range(30):
        value = [value, value]
    with pytest.raises(DocumentError, match="more than 250000 values"):
        Reading().value(value, "here")


def test_a_path_shows_no_control_characters_and_no_long_keys() -> None:
    assert raw.inside("here", "\x1b[2J") == "here.\\x1b[2J"
    assert len(raw.inside("here", "x" * 1000)) < 100


@pytest.mark.parametrize(
    "name, is_one", [("Page_int", True), ("a.b-c", True), ("", False), ("a b", False), ("ä", False)]
)
def test_names_of_schemas_are_those_of_openrpc(name: str, is_one: bool) -> None:
    assert raw.is_component_name(name) is is_one
