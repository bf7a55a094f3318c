"""What annotations say, as JSON Schema."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import json
import pathlib
import typing
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import attrs
import jsonschema  # type: ignore[import-untyped] # its types are a package of their own, which is not needed
import msgspec
import pytest

from seqrpc.interface.annotations import SENSITIVE, shape_of
from seqrpc.interface.hints import Scope
from seqrpc.interface.methods import method
from seqrpc.interface.registering import register_type
from seqrpc.interface.schemas import Schema, Schemas, beside, defaulted, doc_of
from seqrpc.interface.service import Service
from seqrpc.interface.shapes import Shape
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

T = TypeVar("T")

BYTES = {"type": "string", "contentEncoding": "base64", "x-seqrpc": {"type": "bytes"}}


class Token(Service):
    @method
    async def look(self) -> None: ...


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"
    AZURE = "blue"  # noqa: PIE796 - another name of the same member


class Word(enum.StrEnum):
    A = "a"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    BOTH = 3


class Mode(enum.IntFlag):
    READ = 4


@dataclasses.dataclass
class Point:
    """A place."""

    x: int
    y: float = 0
    tags: list[str] = dataclasses.field(default_factory=list)
    made: str = dataclasses.field(default="here", init=False)


@dataclasses.dataclass
class Bare:
    colour: Colour = Colour.RED
    point: Point | None = None


class Circle(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    radius: float


class Row(msgspec.Struct, tag="row", tag_field="kind", array_like=True):
    x: int
    y: int = 5


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    last_name: str | msgspec.UnsetType = msgspec.UNSET


class Pair(NamedTuple):
    a: int
    b: bytes = b"b"


class Nothing(NamedTuple):
    pass


class Movie(TypedDict):
    title: str
    year: typing.NotRequired[int]


@attrs.define
class Song:
    _year: int = 1970


@dataclasses.dataclass
class Node:
    next: Node | None = None
    children: dict[str, Node] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


class Blob:
    pass


register_type(Money, wire_type=int, encode=lambda money: money.cents, decode=Money)
register_type(Blob, wire_type=bytes, encode=lambda blob: b"", decode=lambda data: Blob())

_dict: Any = dict
_list: Any = list
Json: Any = _dict[str, "Json"] | _list["Json"] | str | None


def shape(annotation: Any) -> Shape:
    return shape_of(annotation, Scope(globals()))


def interface_of(annotation: Any) -> str:
    return f"the {annotation.__name__}"


def schema_of(annotation: Any) -> tuple[Schema, dict[str, Schema]]:
    schemas = Schemas(interface_of)
    return schemas.of(shape(annotation)), schemas.components


@pytest.mark.parametrize(
    "annotation, schema",
    [
        (Any, {}),
        (object, {}),
        (None, {"type": "null"}),
        (bool, {"type": "boolean"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (str, {"type": "string"}),
        (typing.LiteralString, {"type": "string"}),
        (bytes, BYTES),
        (bytearray, {"type": "string", "contentEncoding": "base64", "x-seqrpc": {"type": "bytearray"}}),
        (dt.datetime, {"type": "string", "format": "date-time"}),
        (dt.date, {"type": "string", "format": "date"}),
        (dt.time, {"type": "string", "format": "time"}),
        (dt.timedelta, {"type": "string", "format": "duration"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (decimal.Decimal, {"type": "string", "format": "decimal"}),
        (Literal["a", 1, True], {"enum": ["a", 1, True]}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (list, {"type": "array", "items": {}}),
        (collections.abc.Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "x-seqrpc": {"type": "set"}}),
        (
            frozenset[int],
            {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "x-seqrpc": {"type": "frozenset"}},
        ),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}, "x-seqrpc": {"type": "tuple"}}),
        (
            tuple[int, str],
            {
                "type": "array",
                "items": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
                "x-seqrpc": {"type": "tuple"},
            },
        ),
        (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0, "x-seqrpc": {"type": "tuple"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (
            dict[int, str],
            {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "x-seqrpc": {"type": "map", "keys": {"type": "integer"}},
            },
        ),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (OwnedFd, {"x-seqrpc": {"type": "descriptor"}}),
        (Buffer, {"x-seqrpc": {"type": "buffer"}}),
        (memoryview, {"x-seqrpc": {"type": "memory"}}),
        (AsyncIterator[int], {"x-seqrpc": {"type": "stream", "items": {"type": "integer"}}}),
        (Token, {"x-seqrpc": {"type": "object", "interface": "the Token"}}),
        (pathlib.Path, {"anyOf": [{"type": "string"}, BYTES], "x-seqrpc": {"type": "coded", "class": "Path"}}),
        (ipaddress.IPv4Address, {"type": "string", "x-seqrpc": {"type": "coded", "class": "IPv4Address"}}),
        (Money, {"type": "integer", "x-seqrpc": {"type": "coded", "class": "Money"}}),
        (Blob, {"allOf": [BYTES], "x-seqrpc": {"type": "coded", "class": "Blob"}}),
    ],
)
def test_what_has_no_name_is_written_where_it_stands(annotation: Any, schema: Schema) -> None:
    assert schema_of(annotation) == (schema, {})


def bounded(annotation: Any, **bounds: Any) -> Any:
    return Annotated[annotation, msgspec.Meta(**bounds)]


@pytest.mark.parametrize(
    "annotation, schema",
    [
        (
            bounded(int, ge=0, lt=10, multiple_of=2, title="T", description="D", examples=[2, b"x"]),
            {
                "type": "integer",
                "minimum": 0,
                "exclusiveMaximum": 10,
                "multipleOf": 2,
                "title": "T",
                "description": "D",
                "examples": [2],
            },
        ),
        (bounded(float, gt=0.5, le=1), {"type": "number", "exclusiveMinimum": 0.5, "maximum": 1}),
        (
            bounded(str, min_length=1, max_length=3, pattern="^a"),
            {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^a"},
        ),
        (bounded(bytes, max_length=3), {**BYTES, "maxLength": 3}),
        (
            bounded(list[int], min_length=1, max_length=3),
            {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
        ),
        (
            bounded(tuple[int, int], min_length=1, max_length=3),
            {
                "type": "array",
                "items": [{"type": "integer"}, {"type": "integer"}],
                "minItems": 2,
                "maxItems": 2,
                "x-seqrpc": {"type": "tuple"},
            },
        ),
        (
            bounded(dict[str, int], min_length=1, max_length=3),
            {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 3},
        ),
        (bounded(dt.datetime, tz=True), {"type": "string", "format": "date-time", "x-seqrpc": {"tz": True}}),
        (Annotated[str, SENSITIVE], {"type": "string", "x-seqrpc": {"sensitive": True}}),
        (Annotated[str, "a note"], {"type": "string"}),
        (
            Annotated[bytes, SENSITIVE, msgspec.Meta(title="T\udc80")],
            {**BYTES, "title": "T\\udc80", "x-seqrpc": {"type": "bytes", "sensitive": True}},
        ),
    ],
)
def test_bounds_and_notes_stand_beside_what_they_are_of(annotation: Any, schema: Schema) -> None:
    assert schema_of(annotation) == (schema, {})


def test_bounds_of_what_is_referred_to_stand_beside_the_reference() -> None:
    schema, components = schema_of(Annotated[Point, msgspec.Meta(description="Where.")])
    assert schema == {"allOf": [{"$ref": "#/components/schemas/Point"}], "description": "Where."}
    assert list(components) == ["Point"]


COMPONENTS: dict[Any, Schema] = {
    Colour: {
        "title": "Colour",
        "description": "A colour.",
        "enum": ["red", "blue"],
        "x-seqrpc": {"type": "enum", "names": ["RED", "BLUE"]},
    },
    Level: {"title": "Level", "enum": [1], "x-seqrpc": {"type": "intenum", "names": ["LOW"]}},
    Word: {"title": "Word", "enum": ["a"], "x-seqrpc": {"type": "strenum", "names": ["A"]}},
    Access: {
        "title": "Access",
        "type": "integer",
        "x-seqrpc": {"type": "flag", "names": {"READ": 1, "WRITE": 2, "BOTH": 3}},
    },
    Mode: {"title": "Mode", "type": "integer", "x-seqrpc": {"type": "intflag", "names": {"READ": 4}}},
    Point: {
        "title": "Point",
        "description": "A place.",
        "type": "object",
        "properties": {
            "x": {"type": "integer"},
            "y": {"type": "number", "default": 0},
            "tags": {
                "type": "array",
                "items": {"type": "string"},
                "default": [],
                "x-seqrpc": {"factory": True},
            },
            "made": {"type": "string", "default": "here"},
        },
        "required": ["x"],
        "x-seqrpc": {"type": "dataclass", "no_init": ["made"]},
    },
    Circle: {
        "title": "Circle",
        "type": "object",
        "properties": {"radius": {"type": "number"}},
        "required": ["radius"],
        "x-seqrpc": {"type": "struct", "tag": {"field": "type", "value": "Circle"}, "forbid_unknown": True},
    },
    Row: {
        "title": "Row",
        "type": "array",
        "items": [{"type": "integer"}, {"type": "integer", "default": 5}],
        "minItems": 1,
        "maxItems": 2,
        "x-seqrpc": {
            "type": "struct",
            "array": True,
            "fields": ["x", "y"],
            "tag": {"field": "kind", "value": "row"},
        },
    },
    Renamed: {
        "title": "Renamed",
        "type": "object",
        "properties": {
            "firstName": {"type": "string"},
            "lastName": {
                "anyOf": [{"type": "string"}, {"not": {}, "x-seqrpc": {"type": "unset"}}],
                "x-seqrpc": {"default": "UNSET"},
            },
        },
        "required": ["firstName"],
        "x-seqrpc": {"type": "struct", "names": {"firstName": "first_name", "lastName": "last_name"}},
    },
    Pair: {
        "title": "Pair",
        "type": "array",
        "items": [{"type": "integer"}, {**BYTES, "x-seqrpc": {"type": "bytes", "default": "b'b'"}}],
        "minItems": 1,
        "maxItems": 2,
        "x-seqrpc": {"type": "namedtuple", "array": True, "fields": ["a", "b"]},
    },
    Nothing: {
        "title": "Nothing",
        "type": "array",
        "minItems": 0,
        "maxItems": 0,
        "x-seqrpc": {"type": "namedtuple", "array": True, "fields": []},
    },
    Movie: {
        "title": "Movie",
        "type": "object",
        "properties": {"title": {"type": "string"}, "year": {"type": "integer"}},
        "required": ["title"],
        "x-seqrpc": {"type": "typeddict"},
    },
    Song: {
        "title": "Song",
        "type": "object",
        "properties": {"_year": {"type": "integer", "default": 1970}},
        "required": [],
        "x-seqrpc": {"type": "attrs"},
    },
    Node: {
        "title": "Node",
        "type": "object",
        "properties": {
            "next": {"anyOf": [{"$ref": "#/components/schemas/Node"}, {"type": "null"}], "default": None},
            "children": {
                "type": "object",
                "additionalProperties": {"$ref": "#/components/schemas/Node"},
                "default": {},
                "x-seqrpc": {"factory": True},
            },
        },
        "required": [],
        "x-seqrpc": {"type": "dataclass"},
    },
}


@pytest.mark.parametrize("cls", COMPONENTS, ids=lambda cls: cls.__name__)
def test_classes_and_enums_are_components(cls: Any) -> None:
    name = cls.__name__
    assert schema_of(cls) == ({"$ref": f"#/components/schemas/{name}"}, {name: COMPONENTS[cls]})
    jsonschema.Draft7Validator.check_schema(COMPONENTS[cls])


def test_what_a_component_refers_to_is_a_component_too() -> None:
    schema, components = schema_of(list[Bare])
    assert schema == {"type": "array", "items": {"$ref": "#/components/schemas/Bare"}}
    assert list(components) == ["Bare", "Colour", "Point"]
    assert components["Bare"]["properties"]["colour"] == {
        "allOf": [{"$ref": "#/components/schemas/Colour"}],
        "default": "red",
    }


def test_generic_classes_are_named_by_what_they_are_bound_to() -> None:
    schemas = Schemas(interface_of)
    for annotation in (Page[int], Page[Page[str]], Page[int], Page):
        schemas.of(shape(annotation))
    assert list(schemas.components) == ["Page", "Page_Page_str", "Page_int", "Page_str"]
    assert schemas.components["Page_int"]["title"] == "Page"
    assert schemas.components["Page_int"]["properties"]["items"]["items"] == {"type": "integer"}


def test_classes_of_one_name_are_told_apart() -> None:
    other = dataclasses.make_dataclass("Point", [("z", int)])
    schemas = Schemas(interface_of)
    assert schemas.of(shape(Point)) == {"$ref": "#/components/schemas/Point"}
    assert schemas.of(shape(other)) == {"$ref": "#/components/schemas/Point_2"}
    assert schemas.of(shape(Point)) == {"$ref": "#/components/schemas/Point"}
    assert "z" in schemas.components["Point_2"]["properties"]
    assert "description" not in schemas.components["Point_2"]


def test_an_alias_that_holds_itself_is_one_component_for_all_methods() -> None:
    schemas = Schemas(interface_of)
    reference = {"$ref": "#/components/schemas/Json"}
    choices = [
        {"type": "object", "additionalProperties": reference},
        {"type": "array", "items": reference},
        {"type": "string"},
        {"type": "null"},
    ]
    for _method in range(2):
        assert schemas.of(shape("Json")) == reference
    assert schemas.components == {"Json": {"anyOf": choices, "x-seqrpc": {"alias": True}}}


def test_what_is_deep_inside_is_written_elsewhere() -> None:
    deep: Any = int
    for level in range(50):
        deep = (list[deep], dict[str, deep], tuple[deep, int], deep | None, set[deep])[level % 4]
    schema, components = schema_of(deep)
    assert depth_of(schema) < 25
    assert len(components) == 6
    for component in components.values():
        assert depth_of(component) < 25
        assert component["x-seqrpc"]["alias"] is True
    assert json.dumps([schema, components]).count('"integer"') == 13, "of each tuple, and at the bottom"


def depth_of(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth_of, parts), default=0)


def test_many_classes_that_lead_to_one_another_are_no_burden_for_the_stack() -> None:
    classes: list[Any] = [int]
    for number in range(2_000):
        classes.append(dataclasses.make_dataclass(f"C{number}", [("x", classes[-1])]))
    _schema, components = schema_of(classes[-1])
    assert len(components) == 2_000


def test_docstrings_are_those_that_somebody_wrote() -> None:
    assert doc_of(Point) == "A place."
    assert doc_of(Bare) is None, "dataclasses make one"
    assert doc_of(Pair) is None, "so do NamedTuples"
    assert doc_of(type("Empty", (), {"__doc__": "   "})) is None
    assert doc_of(type("Odd", (), {"__doc__": 5})) is None


def test_a_default_stands_beside_the_schema() -> None:
    schema = {"type": "integer"}
    assert defaulted(schema, shape(int), 5) == {"type": "integer", "default": 5}
    assert defaulted(schema, shape(int), msgspec.NODEFAULT) is schema
    assert defaulted({"type": "string"}, shape(Annotated[str, SENSITIVE]), "hunter2")["x-seqrpc"] == {"default": "..."}
    assert beside({"$ref": "#"}, {}, {}) == {"$ref": "#"}
    assert schema == {"type": "integer"}
