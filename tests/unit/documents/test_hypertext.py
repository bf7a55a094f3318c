"""Types and signatures as HTML: as Python spells them, with links to what has a name."""

from __future__ import annotations

from typing import Any

import pytest
from support.described import BUFFER, DESCRIPTOR, INT, STR, document, method, param, schema_of
from support.html import Node, tree_of

from seqrpc.documents.hypertext import bounds_of, default, notes_of, signature, type_of
from seqrpc.documents.model import read
from seqrpc.documents.trees import Bounds, Constrained, Default, Method, Scalar, Type

NULL: dict[str, Any] = {"type": "null"}
PATH = {**STR, "x-seqrpc": {"type": "coded", "class": "Path"}}
PLAIN = {"title": "Plain", "type": "object", "properties": {}, "x-seqrpc": {"type": "dataclass"}}


def type_in(schema: dict[str, Any]) -> Type:
    return method_in(param("a", schema)).params[0].type


def method_in(*params: dict[str, Any], name: str = "S.call", **more: Any) -> Method:
    whole = document(
        method(name, *params, **more),
        schemas={"Plain": PLAIN, "Json": {"anyOf": [STR, {"type": "array", "items": schema_of("Json")}]}},
        interfaces={"odd <name>": {"name": "odd", "methods": []}},
    )
    return read(whole).methods[0]


@pytest.mark.parametrize(
    "schema, spelled",
    [
        ({}, "Any"),
        (INT, "int"),
        ({"enum": ["a", 1, None]}, "Literal['a', 1, None]"),
        ({"enum": [*range(50)]}, f"Literal[{', '.join(map(str, range(40)))}, … 50 values]"),
        ({"type": "array", "items": INT}, "list[int]"),
        ({"type": "array", "items": INT, "x-seqrpc": {"type": "tuple"}}, "tuple[int, ...]"),
        ({"type": "array", "items": [INT, STR], "minItems": 2, "maxItems": 2, "x-seqrpc": {"type": "tuple"}},
         "tuple[int, str]"),
        ({"type": "array", "items": [], "maxItems": 0, "x-seqrpc": {"type": "tuple"}}, "tuple[()]"),
        ({"type": "object", "additionalProperties": INT}, "dict[str, int]"),
        ({"anyOf": [INT, STR, NULL]}, "int | str | None"),
        ({"anyOf": [INT, {"not": {}, "x-seqrpc": {"type": "unset"}}]}, "int"),
        ({"type": "string", "x-seqrpc": {"type": "coded", "class": "Path"}}, "Path"),
        ({"type": "object", "properties": {"a": INT, "b": STR}}, "{a: int, b: str}"),
        ({"enum": ["a"], "x-seqrpc": {"type": "enum", "names": ["A"]}}, "Enum"),
        ({"type": "integer", "title": "<F>", "x-seqrpc": {"type": "flag", "names": {"A": 1}}}, "<F>"),
        ({"type": "integer", "minimum": 1}, "int"),
    ],
)  # fmt: skip
def test_types_are_spelled_as_in_python(schema: dict[str, Any], spelled: str) -> None:
    assert tree_of(type_of(type_in(schema))).text == spelled


@pytest.mark.parametrize(
    "schema, spelled, target",
    [
        (schema_of("Plain"), "Plain", "#type:Plain"),
        (schema_of("Json"), "Json", "#type:Json"),
        (DESCRIPTOR, "OwnedFd", "#about:descriptor"),
        (BUFFER, "Buffer", "#about:buffer"),
        ({"x-seqrpc": {"type": "memory"}}, "memoryview", "#about:memory"),
        ({"x-seqrpc": {"type": "stream", "items": INT}}, "stream", "#about:stream"),
        ({"x-seqrpc": {"type": "object", "interface": "odd <name>"}}, "odd <name>", "#object:odd%20%3Cname%3E"),
    ],
)
def test_what_has_a_name_is_a_link(schema: dict[str, Any], spelled: str, target: str) -> None:
    (link,) = tree_of(type_of(type_in(schema))).every("a")
    assert (link.text, link.attributes["href"]) == (spelled, target)


def test_a_recursive_type_ends_at_its_name() -> None:
    kind = read(document(schemas={"Json": {"type": "array", "items": schema_of("Json")}})).schemas["Json"]
    assert tree_of(type_of(kind)).text == "list[Json]"


def shown(told: Method) -> str:
    return tree_of(signature(told)).text


def test_a_short_signature_is_on_one_line() -> None:
    told = method_in(param("a", INT), param("b", {**STR, "default": "x<y"}, required=False), result=schema_of("Plain"))
    assert shown(told) == "call(a: int, b: str = 'x<y') -> Plain"


def test_a_long_signature_has_a_line_for_each_parameter() -> None:
    told = method_in(param("a" * 40, INT), param("b" * 40, STR), name="S.f")
    assert shown(told) == f"f(\n    {'a' * 40}: int,\n    {'b' * 40}: str,\n) -> None"


def test_links_and_escapes_do_not_make_a_signature_long() -> None:
    told = method_in(*[param(f"{number}&<", schema_of("Plain")) for number in range(4)], name="S.f")
    assert "\n" not in shown(told)


def test_how_parameters_are_given_is_marked() -> None:
    told = method_in(
        param("a", INT, positional_only=True), param("b", INT), param("c", INT, keyword_only=True), result=INT
    )
    assert shown(told) == "call(a: int, /, b: int, *, c: int) -> int"
    assert shown(method_in(param("a", INT, positional_only=True))) == "call(a: int, /) -> None"
    last = method_in(param("a", INT, positional_only=True), param("b", INT, keyword_only=True))
    assert shown(last) == "call(a: int, /, *, b: int) -> None"


def test_what_is_not_known_of_a_parameter_is_not_told() -> None:
    more: dict[str, Any] = {"x-seqrpc": {"unannotated": ["a", "b"]}}
    told = method_in(
        param("a", {}), param("b", {"default": 1}, required=False), param("c", INT, required=False), **more
    )
    assert shown(told) == "call(a, b=1, c: int = ...) -> None"
    oneway: dict[str, Any] = {"x-seqrpc": {"oneway": True}}
    assert shown(method_in(**oneway)) == "call() -> None"


def test_defaults_are_shown_as_python_has_them() -> None:
    assert default(Default(value=None)) == "None"
    assert default(Default(value=["<"])) == "[&#x27;&lt;&#x27;]"
    assert default(Default(words="Path('/')")) == "Path(&#x27;/&#x27;)"
    assert default(Default(value="x" * 500)).endswith("… (502 characters)")


def words(schema: dict[str, Any]) -> list[str]:
    return [tree_of(found).text for found in bounds_of(type_in(schema))]


@pytest.mark.parametrize(
    "schema, told",
    [
        (INT, []),
        ({**INT, "minimum": 1, "maximum": 9, "multipleOf": 2}, ["at least 1", "at most 9", "a multiple of 2"]),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, ["more than 0", "less than 0.5"]),
        ({**STR, "minLength": 1}, ["at least 1 characters"]),
        ({**STR, "maxLength": 9}, ["at most 9 characters"]),
        ({**STR, "minLength": 2, "maxLength": 9}, ["2 to 9 characters"]),
        ({**STR, "minLength": 2, "maxLength": 2}, ["2 characters"]),
        ({**STR, "contentEncoding": "base64", "maxLength": 9, "x-seqrpc": {"type": "bytes"}}, ["at most 9 bytes"]),
        ({"type": "array", "items": INT, "minItems": 1}, ["at least 1 items"]),
        ({"type": "object", "additionalProperties": INT, "maxProperties": 3}, ["at most 3 entries"]),
        ({**STR, "pattern": "<a>+"}, ["has a match of <a>+"]),
        ({**STR, "format": "date-time", "x-seqrpc": {"tz": True}}, ["with a time zone"]),
        ({**STR, "format": "date-time", "x-seqrpc": {"tz": False}}, ["without a time zone"]),
        ({**STR, "x-seqrpc": {"sensitive": True}}, ["sensitive: it is in no log"]),
        ({**STR, "examples": ["a", "<b>"]}, ["for example 'a', '<b>'"]),
        ({"anyOf": [{**INT, "minimum": 0}, {**STR, "maxLength": 1}]}, ["int: at least 0", "str: at most 1 characters"]),
        ({"type": "array", "items": {**INT, "minimum": 0}, "maxItems": 3}, ["at most 3 items", "int: at least 0"]),
        ({**STR, "x-seqrpc": {"type": "coded", "class": "Path"}}, ["Path travels as str"]),
        ({"type": "array", "items": [PATH, PATH], "x-seqrpc": {"type": "tuple"}}, ["Path travels as str"]),
    ],
)
def test_bounds_are_told_in_words(schema: dict[str, Any], told: list[str]) -> None:
    assert words(schema) == told


def test_the_length_of_a_type_with_notes_is_counted_in_what_it_is() -> None:
    inner = Constrained(Scalar("bytes"), Bounds(title="x"))
    assert bounds_of(Constrained(inner, Bounds(min_length=1))) == ["at least 1 bytes"]


def test_notes_are_those_of_the_type_as_a_whole() -> None:
    assert notes_of(type_in({**INT, "title": "A number", "description": "of things"})) == "A number\n\nof things"
    assert notes_of(type_in({"allOf": [{**INT, "description": "in"}], "description": "out"})) == "out\n\nin"
    assert notes_of(type_in({"type": "array", "items": {**INT, "description": "inside"}})) == ""


def test_deep_types_are_written() -> None:
    schema = INT
    for _ in range(55):
        schema = {"type": "array", "items": schema}
    tree: Node = tree_of(type_of(type_in(schema)))
    assert tree.text == "list[" * 55 + "int" + "]" * 55
