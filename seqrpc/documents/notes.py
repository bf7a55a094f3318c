"""What a schema notes beside a type: bounds of its values, words for people, and what a value is that is not given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from seqrpc.documents.raw import LONGEST_TEXT, Reading, count_of, flag_of, inside, number_of, ours_of, text_of
from seqrpc.documents.trees import Bounds, Constrained, Default, ListOf, MapOf, Scalar, Type

_NUMBERS: Final = {
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}

_INT_64: Final = range(-(2**63), 2**63)  # what bounds of integers may be, by msgspec


def constrained(
    inner: Type,
    schema: Mapping[str, Any],
    path: str,
    reading: Reading,
    *,
    bounded: Type | None = None,
    titled: bool = True,
) -> Type:
    """Return a type with what its schema notes beside it; the type itself if that is nothing.

    Args:
        inner: the type without.
        schema: the schema.
        path: where it is.
        reading: the reading of the document.
        bounded: what the bounds are of, where the type is a name; by default the type itself.
        titled: whether its title and description are notes, and not those of a class.

    Raises:
        DocumentError: something noted is not what it is to be.
    """
    bounds = _bounds(inner if bounded is None else bounded, schema, path)
    noted = {**bounds, **_words(schema, path, reading, titled=titled)}
    return Constrained(inner, Bounds(**noted)) if noted else inner


def default_of(schema: Any, path: str, reading: Reading) -> Default | None:
    """Return what a schema says of a value that is not given; None if it says nothing.

    Raises:
        DocumentError: it is not what it is to be.
    """
    if not isinstance(schema, dict):
        return None
    ours = ours_of(schema, path)
    if "default" in schema:
        is_factory = flag_of(ours.get("factory", False), inside(path, "factory"))
        value = reading.value(schema["default"], inside(path, "default"))
        return Default(value=value, is_factory=is_factory)
    if "default" in ours:
        return Default(words=text_of(ours["default"], inside(path, "default"), LONGEST_TEXT))
    return None


def _bounds(inner: Type, schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the bounds that a schema has and that mean something for the type."""
    if isinstance(inner, Scalar):
        if inner.name in ("int", "float"):
            return _of_number(inner.name, schema, path)
        if inner.name in ("datetime", "time"):
            tz = ours_of(schema, path).get("tz")
            return {} if tz is None else {"tz": flag_of(tz, inside(path, "tz"))}
        if inner.name == "str":
            return {**_of_length("Length", schema, path), **_of_text(schema, path)}
        return _of_length("Length", schema, path) if inner.name in ("bytes", "bytearray") else {}
    if isinstance(inner, ListOf | MapOf):
        return _of_length("Items" if isinstance(inner, ListOf) else "Properties", schema, path)
    return {}


def _of_number(name: str, schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word, key in _NUMBERS.items():
        if word in schema and not isinstance(schema[word], bool):  # as old schemas have it
            number = number_of(schema[word], inside(path, word))
            if name == "int":
                number = int(number) if float(number).is_integer() else number
            if isinstance(number, int) and number not in _INT_64:
                continue
            if (isinstance(number, float) and name == "int") or (word == "multipleOf" and number <= 0):
                continue  # no bound of integers by msgspec, or none at all
            found[key] = number
    for tight, loose in (("gt", "ge"), ("lt", "le")):
        if tight in found:
            found.pop(loose, None)
    return found


def _of_length(what: str, schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    words = {f"min{what}": "min_length", f"max{what}": "max_length"}
    return {key: count_of(schema[word], inside(path, word)) for word, key in words.items() if word in schema}


def _of_text(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    if "pattern" not in schema:
        return {}
    pattern = text_of(schema["pattern"], inside(path, "pattern"))
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):  # of another language's expressions
        return {}
    return {"pattern": pattern}


def _words(schema: Mapping[str, Any], path: str, reading: Reading, *, titled: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in ("title", "description") if titled else ():
        if word in schema:
            found[word] = text_of(schema[word], inside(path, word), LONGEST_TEXT)
    examples = schema.get("examples")
    if titled and isinstance(examples, list) and examples:
        found["examples"] = tuple(reading.value(examples, inside(path, "examples")))
    if flag_of(ours_of(schema, path).get("sensitive", False), inside(path, "sensitive")):
        found["sensitive"] = True
    return found
