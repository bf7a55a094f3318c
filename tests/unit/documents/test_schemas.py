"""From schemas to types."""

from __future__ import annotations

from typing import Any

import pytest
from support.discovered import SCHEMAS, ours, ref

from seqrpc.documents.raw import DocumentError, Reading
from seqrpc.documents.schemas import SchemaReader
from seqrpc.documents.trees import (
    AliasOf,
    Anything,
    Bounds,
    BufferType,
    Coded,
    Constrained,
    Default,
    Descriptor,
    EnumOf,
    Field,
    Fields,
    FlagOf,
    ListOf,
    LiteralOf,
    MapOf,
    Memory,
    ObjectOf,
    Ref,
    Scalar,
    StreamOf,
    Tag,
    TupleOf,
    Type,
    UnionOf,
)

INT, TEXT, NONE = Scalar("int"), Scalar("str"), Scalar("None")
JSON_INT = {"type": "integer"}


def reader() -> SchemaReader:
    return SchemaReader(Reading(), {"A": JSON_INT, **SCHEMAS}, {"Vault"})


@pytest.mark.parametrize(
    "schema, found",
    [
        ({}, Anything()),
        ({"type": "null"}, NONE),
        ({"type": "boolean"}, Scalar("bool")),
        ({"type": "integer"}, INT),
        ({"type": "number"}, Scalar("float")),
        ({"type": "string"}, TEXT),
        ({"type": "string", "contentEncoding": "base64", **ours(type="bytes")}, Scalar("bytes")),
        ({"type": "string", "contentEncoding": "base64", **ours(type="bytearray")}, Scalar("bytearray")),
        ({"type": "string", "format": "date-time"}, Scalar("datetime")),
        ({"type": "string", "format": "date"}, Scalar("date")),
        ({"type": "string", "format": "time"}, Scalar("time")),
        ({"type": "string", "format": "duration"}, Scalar("timedelta")),
        ({"type": "string", "format": "uuid"}, Scalar("UUID")),
        ({"type": "string", "format": "decimal"}, Scalar("Decimal")),
        ({"not": {}, **ours(type="unset")}, Scalar("UnsetType")),
        ({"enum": ["a", 1, True, None, 1]}, LiteralOf(("a", 1, True, None))),
        ({"type": "array", "items": JSON_INT}, ListOf("list", INT)),
        ({"type": "array", "items": JSON_INT, "uniqueItems": True, **ours(type="set")}, ListOf("set", INT)),
        ({"type": "array", "items": JSON_INT, "uniqueItems": True, **ours(type="frozenset")}, ListOf("frozenset", INT)),
        ({"type": "array", "items": JSON_INT, **ours(type="tuple")}, ListOf("tuple", INT)),
        ({"type": "array", "items": [JSON_INT, {}], "minItems": 2, **ours(type="tuple")}, TupleOf((INT, Anything()))),
        ({"type": "array", "minItems": 0, "maxItems": 0, **ours(type="tuple")}, TupleOf(())),
        ({"type": "object", "additionalProperties": JSON_INT}, MapOf(TEXT, INT)),
        ({"type": "object", "additionalProperties": {}, **ours(type="map", keys=JSON_INT)}, MapOf(INT, Anything())),
        ({"anyOf": [JSON_INT, {"type": "null"}]}, UnionOf((INT, NONE))),
        (ref("A"), Ref("A")),
        ({"allOf": [ref("A")], "default": 5}, Ref("A")),
        ({"type": "string", **ours(type="coded", **{"class": "Path"})}, Coded("Path", TEXT)),
        (
            {"type": "integer", "minimum": 0, "title": "T", **ours(type="coded", **{"class": "Money"})},
            Constrained(Coded("Money", Constrained(INT, Bounds(ge=0))), Bounds(title="T")),
        ),
        (
            {"allOf": [{"type": "array", "items": {}, **ours(type="set")}], **ours(type="coded", **{"class": "Bag"})},
            Coded("Bag", ListOf("set", Anything())),
        ),
        (ours(type="descriptor"), Descriptor()),
        (ours(type="buffer"), BufferType()),
        (ours(type="memory"), Memory()),
        (ours(type="stream", items=JSON_INT), StreamOf(INT)),
        (ours(type="object", interface="Vault"), ObjectOf("Vault")),
        ({"type": "integer", "minimum": 0}, Constrained(INT, Bounds(ge=0))),
    ],
)
def test_what_seqrpc_writes_is_read(schema: Any, found: Type) -> None:
    assert reader().read(schema, "here") == found


BOUNDED = {
    "List": {"type": "array", "items": JSON_INT},
    "Set": {"type": "array", "items": JSON_INT, **ours(type="set")},
    "Map": {"type": "object", "additionalProperties": JSON_INT},
    "Text": {"type": "string"},
    "Bytes": {"type": "string", **ours(type="bytes")},
    "Int": JSON_INT,
    "Float": {"type": "number"},
    "Alias": {**ref("Other"), **ours(alias=True)},
    "Other": {"allOf": [ref("List")], "title": "another name"},
    "Class": {"type": "object", "properties": {"a": JSON_INT}, **ours(type="dataclass")},
    "Tuple": {"type": "array", "items": [JSON_INT], "minItems": 1, "maxItems": 1},
    "Union": {"anyOf": [JSON_INT, {"type": "string"}]},
    "Enum": {"enum": [1], **ours(type="intenum", names=["A"])},
    "Coded": {"type": "string", **ours(type="coded", **{"class": "Path"})},
    "Round": {"allOf": [ref("Round")]},
    "Yes": True,
    "Nothing": {},
}


LENGTHS = (("min", 1), ("max", 3))


@pytest.mark.parametrize(
    "name, bounds",
    [
        *((name, {"min_length": 1, "max_length": 3}) for name in ("List", "Set", "Text", "Bytes", "Map")),
        *((name, {"min_length": 1, "max_length": 3}) for name in ("Alias", "Other")),
        ("Int", {"ge": 2}),
        ("Float", {"ge": 2}),
        *((name, {}) for name in ("Class", "Tuple", "Union", "Enum", "Coded", "Round", "Yes", "Nothing")),
    ],
)
def test_bounds_may_stand_beside_the_name_of_what_has_some(name: str, bounds: dict[str, Any]) -> None:
    words = {f"{end}{what}": number for what in ("Items", "Length", "Properties") for end, number in LENGTHS}
    schema = {"allOf": [ref(name)], **words, "minimum": 2}
    expected = Bounds(**bounds) if bounds else None
    found = SchemaReader(Reading(), BOUNDED).read(schema, "here")
    assert found == (Ref(name) if expected is None else Constrained(Ref(name), expected))


def test_classes_and_enums_are_read() -> None:
    read = {name: reader().component(schema, name) for name, schema in SCHEMAS.items()}
    assert read["Colour"] == EnumOf(members=(("RED", "red"), ("GREEN", "green")), title="Colour")
    assert read["Access"] == FlagOf(members=(("READ", 1), ("WRITE", 2)), title="Access")
    moment = UnionOf((Scalar("datetime"), NONE))
    assert read["Entry"] == Fields(
        kind="dataclass",
        title="Entry",
        description="A line of a log.",
        fields=(
            Field(name="text", wire_name="text", type=TEXT, required=True),
            Field(name="when", wire_name="when", type=moment, required=False, default=Default()),
            Field(
                name="next",
                wire_name="next",
                type=Ref("Entry"),
                required=False,
                default=Default(words="Entry(...)"),
                in_init=False,
            ),
            Field(
                name="tags",
                wire_name="tags",
                type=ListOf("list", TEXT),
                required=False,
                default=Default(value=[], is_factory=True),
            ),
        ),
    )
    assert read["Circle"] == Fields(
        kind="struct",
        title="Circle",
        fields=(Field(name="radius", wire_name="the-radius", type=Scalar("float"), required=True),),
        tag=Tag("type", "Circle"),
        forbids_unknown=True,
    )
    assert read["Pair"] == Fields(
        kind="namedtuple",
        title="Pair",
        is_array=True,
        fields=(
            Field(name="a", wire_name="a", type=INT, required=True),
            Field(name="b", wire_name="b", type=TEXT, required=False, default=Default(value="b")),
        ),
    )
    json = Ref("Json")
    assert read["Json"] == AliasOf(UnionOf((MapOf(TEXT, json), ListOf("list", json), TEXT, NONE)))


@pytest.mark.parametrize(
    "schema, found",
    [
        (True, Anything()),
        (False, Anything()),
        ({"type": ["string", "null"]}, UnionOf((TEXT, NONE))),
        ({"type": ["string"]}, TEXT),
        ({"oneOf": [JSON_INT, {"anyOf": [{"type": "string"}, JSON_INT]}]}, UnionOf((INT, TEXT))),
        ({"const": 5}, LiteralOf((5,))),
        ({"enum": [1.5, 2], "type": "number"}, Scalar("float")),
        ({"items": JSON_INT}, ListOf("list", INT)),
        (
            {"type": "array", "items": [JSON_INT, JSON_INT], "minItems": 1},
            Constrained(ListOf("list", Anything()), Bounds(min_length=1)),
        ),
        ({"type": "array", "maxItems": 0}, TupleOf(())),
        ({"type": "object"}, MapOf(TEXT, Anything())),
        ({"type": "string", "format": "email", "contentEncoding": "base64"}, TEXT),
        ({"type": "string", **ours(type="of a later version")}, TEXT),
        ({"allOf": [JSON_INT, {}]}, Anything()),
        ({"$ref": "https://example.org/schema"}, Anything()),
        ({"if": {}, "then": {}}, Anything()),
    ],
)
def test_what_others_write_is_read_as_far_as_it_goes(schema: Any, found: Type) -> None:
    assert reader().read(schema, "here") == found


def test_a_class_of_another_server_stands_where_it_is_used() -> None:
    schema = {"properties": {"a": JSON_INT}, "additionalProperties": False}
    field = Field(name="a", wire_name="a", type=INT, required=False)
    assert reader().read(schema, "here") == Fields(kind="dataclass", fields=(field,), forbids_unknown=True)


@pytest.mark.parametrize(
    "schema, why",
    [
        (5, "here: expected a map, got a number"),
        (ref("B"), "here: the document has no schema 'B'"),
        (ours(type="object", interface="B"), "here: the document has no interface 'B'"),
        ({"type": "text"}, "here: JSON Schema has no type 'text'"),
        ({"type": 5}, "here.type: expected a text, got a number"),
        ({"anyOf": []}, "here.anyOf: a union of nothing"),
        ({"enum": []}, "here: an enum without values"),
        ({"enum": [2**70]}, "here.enum: an integer of more than 64 bits"),
        ({"type": "array", "items": {"type": "array", "items": 5}}, r"here\[\]\[\]: expected a map, got a number"),
        (ours(type="coded"), "here.class: expected a text, got null"),
        ({"enum": ["a", 1], **ours(type="enum", names=["A", "B"])}, "all integers or all texts"),
        ({"enum": [True], **ours(type="enum", names=["A"])}, "all integers or all texts"),
        ({"enum": [], **ours(type="enum", names=[])}, "all integers or all texts"),
        ({"enum": ["a"], **ours(type="intenum", names=["A"])}, "here: the values of an int enum are not of this type"),
        ({"enum": [1], **ours(type="strenum", names=["A"])}, "here: the values of an str enum are not of this type"),
        ({"enum": ["a", "b"], **ours(type="enum", names=["A"])}, "so many names as values, each once"),
        ({"enum": ["a", "a"], **ours(type="enum", names=["A", "B"])}, "so many names as values, each once"),
        (ours(type="flag", names={"A": -1}), "here.A: expected the bits of a flag, got -1"),
        (ours(type="flag", names={"A": True}), "here.A: expected a number, got true"),
        (ours(type="flag"), "here.names: expected a map, got null"),
        ({"items": [{}], **ours(type="namedtuple", fields=[])}, "here: 1 items, and names for 0"),
        ({"items": [{}, {}], **ours(type="namedtuple", fields=["a", "a"])}, "here.a: a second field of this name"),
        ({"properties": [], **ours(type="struct")}, "here.properties: expected a map, got a list"),
        (ours(type="struct", tag={"field": "type"}), "here.tag: expected a text, got null"),
        (ours(type="struct", tag={"field": "type", "value": True}), "here.tag: expected a text, got true"),
    ],
)
def test_what_is_no_schema_is_an_error_with_its_path(schema: Any, why: str) -> None:
    with pytest.raises(DocumentError, match=why):
        reader().read(schema, "here")


def test_a_tag_may_be_a_number() -> None:
    found = reader().read(ours(type="struct", tag={"field": "t", "value": 5}), "here")
    assert found == Fields(kind="struct", fields=(), tag=Tag("t", 5))


def test_a_schema_that_holds_itself_is_too_deep() -> None:
    for word in ("items", "additionalProperties"):
        schema: dict[str, Any] = {"type": "array" if word == "items" else "object"}
        schema[word] = schema
        with pytest.raises(DocumentError, match="nested deeper than 60 levels"):
            reader().read(schema, "here")
    for word in ("anyOf", "allOf"):
        several: dict[str, Any] = {}
        several[word] = [several]
        with pytest.raises(DocumentError, match="nested deeper than 60 levels"):
            reader().read(several, "here")


def test_a_schema_that_is_in_many_places_is_counted_in_each() -> None:
    schema: dict[str, Any] = JSON_INT
    for _ in range(30):
        schema = {"anyOf": [schema, {"type": "array", "items": schema}]}
    with pytest.raises(DocumentError, match="more than 250000 values"):
        reader().read(schema, "here")
