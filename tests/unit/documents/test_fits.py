"""Whether whatever fits one type fits another."""

from __future__ import annotations

from typing import Any

import pytest
from support.changed import a_class
from support.discovered import OURS, document, ours, ref

from seqrpc.documents import fits
from seqrpc.documents.fits import Fits
from seqrpc.documents.model import read
from seqrpc.documents.raw import DocumentError
from seqrpc.documents.trees import Document, Ref

INT, TEXT, NULL, FLOAT, BOOL = ({"type": kind} for kind in ("integer", "string", "null", "number", "boolean"))
BYTES = {**TEXT, **ours(type="bytes")}
PATH = {**TEXT, **ours(type="coded", **{"class": "Path"})}
ADDRESS = {**TEXT, **ours(type="coded", **{"class": "IPv4Address"})}
RED = {"enum": ["r"], **ours(type="enum", names=["R"])}
ACCESS = ours(type="flag", names={"R": 1, "W": 2})


def array(item: Any, kind: str = "") -> dict[str, Any]:
    return {"type": "array", "items": item, **(ours(type=kind) if kind else {})}


def pair(*items: Any) -> dict[str, Any]:
    return {"type": "array", "items": list(items), "minItems": len(items), **ours(type="tuple")}


def mapped(value: Any, key: Any = None) -> dict[str, Any]:
    made = {"type": "object", "additionalProperties": value}
    return made if key is None else {**made, **ours(type="map", keys=key)}


def fields(*required: str, more: Any = None, **properties: Any) -> dict[str, Any]:
    return a_class("struct", required, more, **properties)["A"]  # type: ignore[no-any-return] # of JSON


def a_row(*names: str) -> dict[str, Any]:
    return {"items": [INT] * len(names), "minItems": 1, **ours(type="struct", array=True, fields=[*names])}


def whole(schema: Any, **others: Any) -> Document:
    interfaces: dict[str, Any] = {OURS: {"interfaces": {name: {"name": name, "methods": []} for name in ("V", "W")}}}
    return read(document(methods=[], components={"schemas": {"X": {"anyOf": [schema]}, **others}}, **interfaces))


def takes(wide: Any, narrow: Any) -> bool:
    one, other = whole(wide), whole(narrow)
    return Fits(one.schemas, other.schemas).takes(Ref("X"), Ref("X"))


@pytest.mark.parametrize(
    "wide, narrow",
    [
        ({}, INT),
        ({}, PATH),
        (FLOAT, INT),
        (INT, {"enum": [1, 2]}),
        (INT, ACCESS),
        (FLOAT, {"enum": [1], **ours(type="enum", names=["A"])}),
        (TEXT, RED),
        (TEXT, {**TEXT, "format": "uuid"}),
        (BYTES, {**TEXT, **ours(type="bytearray")}),
        (BOOL, {"enum": [True]}),
        ({"anyOf": [INT, NULL]}, {"enum": [None]}),
        ({"anyOf": [INT, NULL]}, INT),
        ({"anyOf": [INT, NULL, TEXT]}, {"anyOf": [NULL, TEXT]}),
        ({"enum": ["r", "g"]}, RED),
        (ACCESS, ours(type="intflag", names={"R": 1})),
        (ours(type="memory"), ours(type="buffer")),
        (ours(type="memory"), BYTES),
        (ours(type="descriptor"), ours(type="descriptor")),
        (ours(type="object", interface="V"), ours(type="object", interface="V")),
        (ours(type="stream", items=FLOAT), ours(type="stream", items=INT)),
        (TEXT, ADDRESS),
        (PATH, PATH),
        (array(FLOAT), array(INT)),
        (array(INT), array(INT, "set")),
        (array(INT, "frozenset"), array(INT, "set")),
        (array(FLOAT), pair(INT, FLOAT)),
        (pair(FLOAT), pair(INT)),
        (mapped(FLOAT), mapped(INT)),
        (mapped({}), fields("x", x=INT)),
        (mapped(INT, {}), fields("x", x=INT)),
        (fields("x", x=FLOAT), fields("x", x=INT)),
        (fields("x", x=INT, y=INT), fields("x", x=INT)),
        (fields("x", x=INT), fields("x", "y", x=INT, y=INT)),
        (fields(x=INT), fields("x", x=INT)),
        (fields(), fields(more={"tag": {"field": "t", "value": "A"}})),
        (fields(more={"tag": {"field": "t", "value": "A"}}), fields()),
        (a_row("x"), a_row("y")),
        (a_row("x"), a_row("x", "y")),
        ({**INT, "minimum": 0}, {**INT, "minimum": 1}),
        ({**INT, "minimum": 0}, {**INT, "exclusiveMinimum": 0}),
        ({**INT, "exclusiveMaximum": 5}, {**INT, "maximum": 4}),
        ({**INT, "multipleOf": 2}, {**INT, "multipleOf": 4}),
        ({**TEXT, "maxLength": 5}, {**TEXT, "maxLength": 5, "pattern": "a"}),
    ],
)
def test_what_is_wider_takes_what_is_narrower(wide: Any, narrow: Any) -> None:
    assert takes(wide, narrow)
    assert takes(wide, wide)
    assert takes(narrow, narrow)


@pytest.mark.parametrize(
    "wide, narrow",
    [
        (INT, FLOAT),
        (INT, {}),
        (INT, TEXT),
        (INT, BOOL),
        (INT, {"enum": ["1"]}),
        (TEXT, PATH),  # which may be bytes
        (TEXT, {**TEXT, "format": "date-time"}),  # which may be a timestamp
        (TEXT, ACCESS),
        (ADDRESS, TEXT),
        (PATH, ADDRESS),
        (RED, {"enum": ["r", "g"]}),
        (RED, ACCESS),
        (ACCESS, INT),
        (ours(type="memory"), TEXT),
        (ours(type="descriptor"), ours(type="buffer")),
        (ours(type="object", interface="V"), ours(type="object", interface="W")),
        (ours(type="stream", items=INT), array(INT)),
        (array(INT, "set"), array(INT)),
        (array(INT, "set"), pair(INT)),
        (array(INT), pair(INT, TEXT)),
        (array(INT), INT),
        (pair(INT), array(INT)),
        (pair(INT), pair(INT, INT)),
        (mapped(INT), mapped(INT, INT)),
        (mapped(INT), fields("x", x=TEXT)),
        (mapped(INT, INT), fields("x", x=INT)),
        (mapped({}), INT),
        (fields("x", x=INT), mapped(INT)),
        (fields("x", x=INT), fields(x=INT)),
        (fields("x", x=INT), fields("y", y=INT)),
        (fields("x", x=INT), fields("x", x=TEXT)),
        (fields(more={"forbid_unknown": True}), fields(x=INT)),
        (fields(more={"forbid_unknown": True}), fields(more={"tag": {"field": "t", "value": "A"}})),
        (fields(more={"tag": {"field": "t", "value": "A"}}), fields(more={"tag": {"field": "t", "value": "B"}})),
        (fields(), {"items": [], **ours(type="namedtuple", fields=[])}),
        ({**INT, "minimum": 1}, INT),
        ({**INT, "minimum": 1}, {**INT, "minimum": 0}),
        ({**INT, "exclusiveMinimum": 0}, {**INT, "minimum": 0}),
        ({**INT, "multipleOf": 4}, {**INT, "multipleOf": 2}),
        ({**TEXT, "pattern": "a"}, {**TEXT, "pattern": "b"}),
        ({**TEXT, "minLength": 1}, TEXT),
    ],
)
def test_what_is_narrower_does_not_take_what_is_wider(wide: Any, narrow: Any) -> None:
    assert not takes(wide, narrow)


def test_types_that_hold_themselves_are_compared_to_their_end() -> None:
    def tree(leaf: Any) -> Document:
        return whole(ref("T"), T={"anyOf": [array(ref("T")), leaf]})

    assert Fits(tree(FLOAT).schemas, tree(INT).schemas).takes(Ref("X"), Ref("X"))
    assert not Fits(tree(INT).schemas, tree(FLOAT).schemas).takes(Ref("X"), Ref("X"))


def test_what_rests_on_an_assumption_falls_with_it() -> None:
    def nodes(last: Any) -> Document:
        link = {"anyOf": [ref("A"), NULL]}
        return whole(ref("A"), A=fields(next=ref("B"), more=None, x=last), B=fields(back=link))

    one, other = nodes(INT), nodes(TEXT)
    compared = Fits(one.schemas, other.schemas)
    assert not compared.takes(Ref("X"), Ref("X"))
    assert not compared.takes(Ref("B"), Ref("B"))


def test_deeper_classes_than_anybody_looks_at_are_not_said_to_fit() -> None:
    made = {f"A{number}": fields(next=ref(f"A{number + 1}")) for number in range(200)} | {"A200": fields()}
    one = whole(ref("A0"), **made)
    assert not Fits(one.schemas, whole(ref("A0"), **made).schemas).takes(Ref("X"), Ref("X"))


def test_there_is_a_bound_of_what_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "MOST_COMPARED", 100)
    many = {"anyOf": [{"enum": [number]} for number in range(20)]}
    with pytest.raises(DocumentError, match="more than 100 pairs"):
        takes(many, many)
