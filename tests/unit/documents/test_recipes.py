"""How methods are called: lines that a shell and Python take as they stand, with arguments of the right types."""

from __future__ import annotations

import ast
import shlex
from typing import Any

import pytest
from support.described import BUFFER, DESCRIPTOR, INT, LOGS, STR, document, hostile, method, param, schema_of

from seqrpc.documents.model import read
from seqrpc.documents.recipes import Recipes
from seqrpc.documents.trees import Method

NULL: dict[str, Any] = {"type": "null"}
OBJECT: dict[str, Any] = {"x-seqrpc": {"type": "object", "interface": "O"}}
BYTES = {**STR, "contentEncoding": "base64", "x-seqrpc": {"type": "bytes"}}
PAIR: dict[str, Any] = {"type": "array", "items": [STR, INT], "minItems": 2, "x-seqrpc": {"type": "tuple"}}
MAP: dict[str, Any] = {"type": "object", "additionalProperties": INT}

SCHEMAS: dict[str, Any] = {
    "Point": {
        "title": "Point",
        "type": "object",
        "properties": {"x": INT, "y": {"type": "number"}, "label": {**STR, "default": ""}},
        "required": ["x", "y"],
        "x-seqrpc": {"type": "struct", "tag": {"field": "type", "value": "point"}},
    },
    "Pair": {
        "type": "array",
        "items": [STR, INT],
        "minItems": 1,
        "maxItems": 2,
        "x-seqrpc": {"type": "namedtuple", "array": True, "fields": ["a", "b"]},
    },
    "Colour": {"enum": ["red", "blue"], "x-seqrpc": {"type": "enum", "names": ["RED", "BLUE"]}},
    "Flags": {"type": "integer", "x-seqrpc": {"type": "flag", "names": {"A": 2, "B": 4}}},
    "None": {"type": "integer", "x-seqrpc": {"type": "flag", "names": {}}},
    "Json": {"type": "array", "items": schema_of("Json")},
    "Wide": {
        "type": "object",
        "properties": {f"f{number}": schema_of("Wider") for number in range(60)},
        "required": [f"f{number}" for number in range(60)],
        "x-seqrpc": {"type": "dataclass"},
    },
    "Wider": {
        "type": "object",
        "properties": {f"g{number}": schema_of("Point") for number in range(60)},
        "required": [f"g{number}" for number in range(60)],
        "x-seqrpc": {"type": "dataclass"},
    },
}


def written(*params: dict[str, Any], name: str = "S.call", **more: Any) -> tuple[str | None, str]:
    """Return the line of the command line, and Python's."""
    one = method(name, *params, **more)
    told = read(document(one, schemas=SCHEMAS, interfaces={"O": {"name": "O", "methods": []}}))
    recipes = Recipes(told.schemas, "/run/a b.sock")
    return recipes.command_line(told.methods[0]), recipes.python(told.methods[0], "connection", is_async=False)


START = "seqrpc call '/run/a b.sock' S.call"


def test_only_what_is_required_is_given() -> None:
    line, python = written(param("a", INT), param("b", {**INT, "default": 2}, required=False))
    assert line == f"{START} a=1"
    assert python == "connection.call('S.call', a=1)"


@pytest.mark.parametrize(
    "schema, word, value",
    [
        (STR, "...", "'...'"),
        ({}, "...", "'...'"),
        (BYTES, "...", 'b"..."'),
        ({"type": "boolean"}, "true", "True"),
        (NULL, "null", "None"),
        ({"type": "number"}, "1.5", "1.5"),
        ({**STR, "format": "date"}, "2025-12-31", "'2025-12-31'"),
        ({"enum": ["-"]}, "\\-", "'-'"),
        ({"enum": ["@x"]}, "@@x", "'@x'"),
        ({"enum": ["x" * 61]}, "...", "..."),
        ({"type": "array", "items": STR}, '["..."]', "['...']"),
        (PAIR, '["...", 1]', "['...', 1]"),
        (MAP, '{"...": 1}', "{'...': 1}"),
        ({**MAP, "x-seqrpc": {"type": "map", "keys": INT}}, '{"1": 1}', "{1: 1}"),
        ({**MAP, "x-seqrpc": {"type": "map", "keys": BYTES}}, '{"...": 1}', "{'...': 1}"),
        ({"anyOf": [NULL, INT]}, "1", "1"),
        ({"anyOf": [NULL, {"not": {}, "x-seqrpc": {"type": "unset"}}]}, "null", "None"),
        ({**INT, "minimum": 5}, "5", "5"),
        ({**INT, "exclusiveMinimum": 5}, "6", "6"),
        ({**INT, "maximum": -5}, "-5", "-5"),
        ({**INT, "exclusiveMaximum": 0}, "-1", "-1"),
        ({**INT, "multipleOf": 8}, "8", "8"),
        ({"type": "boolean", "description": "x"}, "true", "True"),
        ({**STR, "maxLength": 9}, "...", "'...'"),
        ({**STR, "examples": ["etc"]}, "etc", "'etc'"),
        ({**STR, "examples": [["no"]]}, "...", "'...'"),
        (schema_of("Point"), '{"type": "point", "x": 1, "y": 1.5}', "{'type': 'point', 'x': 1, 'y': 1.5}"),
        (schema_of("Pair"), '["..."]', "['...']"),
        (schema_of("Colour"), "red", "'red'"),
        (schema_of("Flags"), "2", "2"),
        (schema_of("None"), "0", "0"),
        (schema_of("Json"), '["..."]', "[...]"),
        ({"type": "object", "properties": {"a": INT}, "required": ["a"]}, '{"a": 1}', "{'a': 1}"),
        ({**STR, "x-seqrpc": {"type": "coded", "class": "Path"}}, "...", "'...'"),
        (DESCRIPTOR, "@FILE", "file"),
        (BUFFER, "@FILE", "buffer"),
        ({"x-seqrpc": {"type": "memory"}}, "@FILE", 'b"..."'),
        ({"x-seqrpc": {"type": "stream", "items": INT}}, "@FILE", "items()"),
        ({"type": "array", "items": DESCRIPTOR}, '["@FILE"]', "[file]"),
        ({"type": "array", "items": BYTES}, '["Li4u"]', '[b"..."]'),
    ],
)  # fmt: skip
def test_an_argument_is_of_its_type(schema: dict[str, Any], word: str, value: str) -> None:
    line, python = written(param("a", schema))
    assert line is not None
    assert shlex.split(line) == ["seqrpc", "call", "/run/a b.sock", "S.call", f"a={word}"]
    assert python == f"connection.call('S.call', a={value})"


def test_a_command_line_has_no_objects() -> None:
    assert written(param("a", OBJECT)) == (None, "connection.call('S.call', a=service)")
    assert written(param("a", {"type": "array", "items": OBJECT})) == (None, "connection.call('S.call', a=[service])")


def test_no_line_has_an_option_that_a_document_chose() -> None:
    assert written(param("b c", {"enum": ["--exec=id"]}))[0] is None
    assert written(param("b", {"enum": ["--exec=id"]}))[0] == f"{START} b=--exec=id"
    (one,) = read(document(method("--exec=id.x"))).methods
    assert Recipes({}, "a").command_line(one) is None


def test_arguments_are_given_by_position_where_they_must_be() -> None:
    params = [param("a", INT, positional_only=True), param("b", STR)]
    line, python = written(*params, paramStructure="by-position")
    assert line == f"{START} a=1 b=..."
    assert python == "connection.call('S.call', 1, '...')"


def test_names_that_python_does_not_take_are_quoted() -> None:
    line, python = written(param("class", INT), param("b c", INT))
    assert line == f"{START} class=1 1"
    assert python == "connection.call('S.call', **{'class': 1, 'b c': 1})"


def test_one_way_calls_are_notifications_and_coroutines_are_awaited() -> None:
    (one,) = read(document(method("S.call", **{"x-seqrpc": {"oneway": True}}))).methods
    assert Recipes({}, "a").python(one, "holder", is_async=True) == "await holder.notify('S.call')"


def test_an_argument_stays_small_whatever_its_type() -> None:
    _line, python = written(param("a", schema_of("Wide")))
    assert len(python) < 3_000
    assert "..." in python
    inline = {"type": "array", "items": [schema_of("Wide")] * 60, "minItems": 60, "x-seqrpc": {"type": "tuple"}}
    assert len(written(param("a", inline))[1]) < 3_000


def methods_of(whole: dict[str, Any]) -> list[tuple[Recipes, Method]]:
    told = read(whole)
    return [(Recipes(told.schemas, "ADDRESS"), one) for one in told.methods]


@pytest.mark.parametrize("recipes, one", [*methods_of(LOGS), *methods_of(hostile())])
def test_the_lines_are_those_of_a_shell_and_of_python(recipes: Recipes, one: Method) -> None:
    line = recipes.command_line(one)
    assert line is None or shlex.split(line)[:4] == ["seqrpc", "call", "ADDRESS", one.name]
    tree = ast.parse(recipes.python(one, "connection", is_async=False).encode("utf-8", "backslashreplace"), mode="eval")
    assert isinstance(tree.body, ast.Call)
    assert isinstance(tree.body.args[0], ast.Constant)
