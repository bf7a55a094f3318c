"""What a schema notes beside a type."""

from __future__ import annotations

from typing import Any

import pytest

from seqrpc.documents.notes import constrained, default_of
from seqrpc.documents.raw import DocumentError, Reading
from seqrpc.documents.trees import Anything, Bounds, Constrained, Default, ListOf, MapOf, Ref, Scalar, Type

INT, TEXT = Scalar("int"), Scalar("str")


def noted(inner: Type, schema: dict[str, Any], **keys: Any) -> Bounds | None:
    found = constrained(inner, schema, "here", Reading(), **keys)
    if found == inner:
        return None
    assert isinstance(found, Constrained)
    assert found.inner == inner
    return found.bounds


@pytest.mark.parametrize(
    "inner, schema, bounds",
    [
        (INT, {"minimum": 0, "exclusiveMaximum": 5}, Bounds(ge=0, lt=5)),
        (INT, {"exclusiveMinimum": 1.0, "maximum": 9, "multipleOf": 3}, Bounds(gt=1, le=9, multiple_of=3)),
        (Scalar("float"), {"minimum": 0.5}, Bounds(ge=0.5)),
        (TEXT, {"minLength": 1, "maxLength": 2, "pattern": "^a"}, Bounds(min_length=1, max_length=2, pattern="^a")),
        (Scalar("bytes"), {"maxLength": 2}, Bounds(max_length=2)),
        (ListOf("set", INT), {"minItems": 2, "maxItems": 3}, Bounds(min_length=2, max_length=3)),
        (MapOf(TEXT, INT), {"maxProperties": 3}, Bounds(max_length=3)),
        (Scalar("datetime"), {"x-seqrpc": {"tz": True}}, Bounds(tz=True)),
        (Ref("A"), {"x-seqrpc": {"sensitive": True}, "title": "T"}, Bounds(sensitive=True, title="T")),
        (Anything(), {"description": "D", "examples": [1, {"a": 2}]}, Bounds(description="D", examples=(1, {"a": 2}))),
    ],
)
def test_bounds_and_words_are_read(inner: Type, schema: dict[str, Any], bounds: Bounds) -> None:
    assert noted(inner, schema) == bounds


@pytest.mark.parametrize(
    "inner, schema",
    [
        (INT, {"minLength": 1, "pattern": "a", "minItems": 2}),
        (INT, {"minimum": 0.5}),
        (INT, {"maximum": 2**63}),
        (INT, {"multipleOf": 0}),
        (INT, {"exclusiveMinimum": True}),
        (TEXT, {"minimum": 1}),
        (TEXT, {"pattern": "("}),
        (Scalar("UUID"), {"minLength": 1}),
        (Scalar("datetime"), {"minimum": 1}),
        (Ref("A"), {"minItems": 1}),
        (INT, {"x-seqrpc": {"sensitive": False}, "examples": []}),
    ],
)
def test_what_says_nothing_of_the_type_is_left_out(inner: Type, schema: dict[str, Any]) -> None:
    assert noted(inner, schema) is None


def test_of_two_bounds_in_one_direction_the_tighter_counts() -> None:
    assert noted(INT, {"minimum": 0, "exclusiveMinimum": 1, "maximum": 9, "exclusiveMaximum": 8}) == Bounds(gt=1, lt=8)


def test_the_words_of_a_class_are_no_note() -> None:
    assert noted(Ref("A"), {"title": "T", "description": "D", "examples": [1]}, titled=False) is None


@pytest.mark.parametrize(
    "inner, schema",
    [
        (INT, {"minimum": "0"}),
        (TEXT, {"maxLength": -1}),
        (TEXT, {"pattern": 5}),
        (Scalar("time"), {"x-seqrpc": {"tz": 1}}),
        (INT, {"x-seqrpc": {"sensitive": "yes"}}),
        (INT, {"title": 5}),
        (INT, {"examples": [b"x"]}),
    ],
)
def test_notes_that_make_no_sense_are_errors(inner: Type, schema: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match=r"^here\."):
        noted(inner, schema)


@pytest.mark.parametrize(
    "schema, default",
    [
        ({}, None),
        (True, None),
        ({"default": None}, Default()),
        ({"default": [1]}, Default(value=[1])),
        ({"default": [], "x-seqrpc": {"factory": True}}, Default(value=[], is_factory=True)),
        ({"x-seqrpc": {"default": "b'x'"}}, Default(words="b'x'")),
    ],
)
def test_defaults_are_values_or_words(schema: Any, default: Default | None) -> None:
    assert default_of(schema, "here", Reading()) == default


@pytest.mark.parametrize(
    "schema", [{"default": b""}, {"x-seqrpc": {"default": 5}}, {"default": 1, "x-seqrpc": {"factory": 1}}]
)
def test_a_default_that_is_none_is_an_error(schema: Any) -> None:
    with pytest.raises(DocumentError):
        default_of(schema, "here", Reading())
