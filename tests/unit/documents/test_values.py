"""Defaults as code."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from support.discovered import SCHEMAS, method, ours, param, ref
from support.stubs import document_with

from seqrpc.documents.layout import flat
from seqrpc.documents.model import read
from seqrpc.documents.values import Values
from seqrpc.documents.vocabulary import Vocabulary

INT, TEXT, NULL, FLOAT = {"type": "integer"}, {"type": "string"}, {"type": "null"}, {"type": "number"}
DATE, MOMENT = {**TEXT, "format": "date"}, {**TEXT, "format": "date-time"}
PATH = {**TEXT, **ours(type="coded", **{"class": "Path"})}
ADDRESS = {**TEXT, **ours(type="coded", **{"class": "IPv4Address"})}
UNKNOWN = None


def written(schema: dict[str, Any], *, known: Any = True, **schemas: Any) -> str | None:
    """Return the default in a schema, as code."""
    classes = {**SCHEMAS, **schemas}
    whole = read(document_with(method("S.f", param("a", schema, required=False)), **classes))
    values = Values(Vocabulary(whole))
    values.known = set(whole.schemas) if known else set()
    only = whole.methods[0].params[0]
    made = values.factory(only.type, only.default) or values.default(only.type, only.default)
    return None if made is None else flat(made)


def array(item: Any, kind: str = "") -> dict[str, Any]:
    return {"type": "array", "items": item, **(ours(type=kind) if kind else {})}


def either(*choices: Any, **keys: Any) -> dict[str, Any]:
    return {"anyOf": list(choices), **keys}


@pytest.mark.parametrize(
    "schema, code",
    [
        ({**INT, "default": 5}, "5"),
        ({**FLOAT, "default": 5}, "5"),
        ({**FLOAT, "default": 1e300}, "1e300"),
        ({"type": "boolean", "default": True}, "True"),
        ({**TEXT, "default": 'a"\n'}, "'a\"\\n'"),
        (either(INT, NULL, default=None), "None"),
        ({"default": {"a": [1]}}, '{"a": [1]}'),
        ({"enum": ["a", 1], "default": 1}, "1"),
        ({**DATE, "default": "2026-01-02"}, "datetime.date(2026, 1, 2)"),
        ({**MOMENT, "default": "2026-01-02T03:04:05"}, "datetime.datetime(2026, 1, 2, 3, 4, 5)"),
        (
            {**MOMENT, "default": "2026-01-02T03:04:05Z"},
            "datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)",
        ),
        ({**TEXT, "format": "time", "default": "03:04:05"}, "datetime.time(3, 4, 5)"),
        ({**TEXT, "format": "duration", "default": "P1DT2S"}, "datetime.timedelta(days=1, seconds=2)"),
        ({**TEXT, "format": "decimal", "default": "1.50"}, 'decimal.Decimal("1.50")'),
        (
            {**TEXT, "format": "uuid", "default": "00000000-0000-0000-0000-000000000005"},
            'uuid.UUID("00000000-0000-0000-0000-000000000005")',
        ),
        ({**PATH, "default": "/a"}, 'pathlib.Path("/a")'),
        ({**ADDRESS, "default": "10.0.0.1"}, 'ipaddress.IPv4Address("10.0.0.1")'),
        ({**INT, "default": 5, **ours(type="coded", **{"class": "Money"})}, "5"),
        ({**array(INT), "default": [1, 2]}, "[1, 2]"),
        ({**array(INT, "tuple"), "default": [1]}, "(1,)"),
        ({**array(INT, "set"), "default": [1]}, "{1}"),
        ({**array(INT, "set"), "default": []}, "set()"),
        ({**array(INT, "frozenset"), "default": [1]}, "frozenset({1})"),
        ({**array([INT, TEXT], "tuple"), "default": [1, "a"]}, '(1, "a")'),
        (
            {"type": "object", "additionalProperties": DATE, "default": {"a": "2026-01-02"}},
            '{"a": datetime.date(2026, 1, 2)}',
        ),
        ({**either(INT, FLOAT), "default": 1.5}, "1.5"),
        ({**either({}, DATE), "default": "2026-01-02"}, "datetime.date(2026, 1, 2)"),
        ({"allOf": [ref("Colour")], "default": "red"}, "Colour.RED"),
        ({"allOf": [ref("Access")], "default": 1}, "Access.READ"),
        ({"allOf": [ref("Access")], "default": 3}, "Access(3)"),
        ({"allOf": [ref("Pair")], "default": [1]}, "Pair(a=1)"),
        ({"allOf": [ref("Entry")], "default": {"text": "x", "when": None}}, 'Entry(text="x", when=None)'),
        ({"allOf": [ref("Circle")], "default": {"type": "Circle", "the-radius": 1}}, "Circle(radius=1)"),
        ({"allOf": [ref("Json")], "default": {"a": ["b"]}}, '{"a": ["b"]}'),
        ({**TEXT, **ours(type="bytes", default="b'x\\xff'")}, 'b"x\\xff"'),
        (ours(factory=True) | {**array(INT), "default": []}, "list[int]"),
        (ours(factory=True) | {**array(ref("Entry")), "default": []}, 'list["Entry"]'),
        ({"type": "object", "additionalProperties": INT, "default": {}, **ours(factory=True)}, "dict[str, int]"),
        ({"default": [], **ours(factory=True)}, "list[typing.Any]"),
        ({"default": {}, **ours(factory=True)}, "dict[typing.Any, typing.Any]"),
        (either(NULL, array(INT), default=[], **ours(factory=True)), "list[int]"),
    ],
)
def test_a_default_that_fits_is_written(schema: dict[str, Any], code: str) -> None:
    assert written(schema) == code
    ast.parse(code, mode="eval")


@pytest.mark.parametrize(
    "schema",
    [
        INT,
        {**INT, "default": "5"},
        {**INT, "default": True},
        {**INT, "default": None},
        {"type": "boolean", "default": 1},
        {"enum": [1], "default": True},
        {**DATE, "default": "tomorrow"},
        {**DATE, "default": 5},
        {**ADDRESS, "default": "os.system('x')"},
        {**PATH, "default": 5},
        {**array(INT), "default": {}},
        {**array(INT), "default": ["a"]},
        {**array([INT], "tuple"), "default": []},
        {"type": "object", "additionalProperties": INT, "default": {"a": "b"}},
        either(INT, NULL, default="a"),
        {"allOf": [ref("Colour")], "default": "blue"},
        {"allOf": [ref("Access")], "default": 4},
        {"allOf": [ref("Access")], "default": True},
        {"allOf": [ref("Pair")], "default": {}},
        {"allOf": [ref("Pair")], "default": []},
        {"allOf": [ref("Entry")], "default": []},
        {"allOf": [ref("Entry")], "default": {}},
        {"allOf": [ref("Circle")], "default": {"type": "Square", "the-radius": 1}},
        {"allOf": [ref("Needs")], "default": {}},
        {**ours(type="descriptor"), "default": 5},
        ours(default="os.system('x')"),
        {**TEXT, **ours(type="bytes", default="b'' + os.urandom(1)")},
        {**TEXT, **ours(type="bytes", default="b'x")},
        {**TEXT, **ours(type="bytes", default="'x'")},
        {**TEXT, **ours(type="bytes", default="b'x', 1")},
        {**INT, "default": [], **ours(factory=True)},
        {**array(INT), "default": [1], **ours(factory=True)} | {"type": "array", "items": TEXT},
    ],
)
def test_what_does_not_fit_is_not_known(schema: dict[str, Any]) -> None:
    needs = {"properties": {"a": {**INT, **ours(default="factory()")}}, **ours(type="dataclass")}
    assert written(schema, Needs=needs) is UNKNOWN


def test_an_object_of_a_class_that_comes_later_cannot_be_written() -> None:
    assert written({"allOf": [ref("Pair")], "default": [1]}, known=False) is UNKNOWN


def test_a_dict_of_known_keys_is_a_dict() -> None:
    movie = {"properties": {"the-title": TEXT}, **ours(type="typeddict")}
    assert (
        written({"allOf": [ref("Movie")], "default": {"the-title": "M"}}, Movie=movie, known=False)
        == '{"the-title": "M"}'
    )


def test_names_that_stand_for_others_are_followed_to_their_end() -> None:
    chain = {f"N{number}": ref(f"N{number + 1}") for number in range(3_000)} | {"N3000": INT}
    assert written({"allOf": [ref("N0")], "default": 5}, **chain) == "5"
