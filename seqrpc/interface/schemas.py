"""Shapes as JSON Schema, for documents that describe services: classes and enums once each, by name.

What JSON has no word for stands in ``x-seqrpc``; ``docs/discovery.md`` lists it. Everything in a schema is a map with
strings for keys, a list, a string, a number, a boolean or null.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import typing
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from seqrpc.interface.annotations import SENSITIVE, is_sensitive
from seqrpc.interface.components import Names, has_name, identity_of, wanted_name
from seqrpc.interface.contents import inner_of
from seqrpc.interface.defaults import form_of, forms_of, text, told_default
from seqrpc.interface.shapes import (
    Alias,
    Array,
    BufferShape,
    Coded,
    Constrained,
    Descriptor,
    Field,
    FixedTuple,
    Kind,
    Map,
    Memory,
    Object,
    Scalar,
    ServiceObject,
    Shape,
    Stream,
    Union,
    Wire,
)

Schema = dict[str, Any]
"""A JSON Schema, of the vocabulary of draft 7."""

OURS: Final = "x-seqrpc"
"""The key of what JSON Schema has no word for."""

_REFERENCE: Final = "#/components/schemas/"

_DEEPEST: Final = 8
"""Levels of containers in one schema: what is deeper is written elsewhere, for a message has 64 levels at most."""

_SCALARS: Final[dict[Any, Schema]] = {
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string", "contentEncoding": "base64", OURS: {"type": "bytes"}},
    bytearray: {"type": "string", "contentEncoding": "base64", OURS: {"type": "bytearray"}},
    dt.datetime: {"type": "string", "format": "date-time"},
    dt.date: {"type": "string", "format": "date"},
    dt.time: {"type": "string", "format": "time"},
    dt.timedelta: {"type": "string", "format": "duration"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    decimal.Decimal: {"type": "string", "format": "decimal"},
    msgspec.UnsetType: {"not": {}, OURS: {"type": "unset"}},
}

_LIVING: Final = {Descriptor: "descriptor", BufferShape: "buffer", Memory: "memory"}

_KINDS: Final = {
    Kind.DATACLASS: "dataclass",
    Kind.STRUCT: "struct",
    Kind.ATTRS: "attrs",
    Kind.NAMED_TUPLE: "namedtuple",
    Kind.TYPED_DICT: "typeddict",
}

_BOUNDS: Final = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}


def doc_of(cls: type) -> str | None:
    """Return the docstring that somebody wrote in a class, without indentation; None if nobody did."""
    doc = vars(cls).get("__doc__")
    if not isinstance(doc, str) or doc.startswith(f"{cls.__name__}("):  # as dataclasses and NamedTuples have
        return None
    import inspect  # noqa: PLC0415 - with a docstring somebody wrote

    return text(inspect.cleandoc(doc)) or None


def beside(schema: Schema, keys: Schema, ours: Schema) -> Schema:
    """Return a schema with more keys, and more in its ``x-seqrpc``; what a schema refers to stays as it is."""
    if not keys and not ours:
        return schema
    made: Schema = {"allOf": [schema]} if "$ref" in schema else dict(schema)
    made.update(keys)
    if ours:
        made[OURS] = {**made.get(OURS, {}), **ours}
    return made


def defaulted(schema: Schema, shape: Shape, default: Any, factory: Any = msgspec.NODEFAULT) -> Schema:
    """Return the schema of a field or parameter with its default, if it has one."""
    return beside(schema, *told_default(default, factory, sensitive=is_sensitive(shape)))


class Schemas:
    """Makes schemas of shapes; what has a name is made once, and referred to.

    Args:
        interface_of: returns the name of the interface of objects that are values, by their annotation.
    """

    def __init__(self, interface_of: Callable[[Any], str]) -> None:
        """Begin with no component."""
        self._interface_of = interface_of
        self._names = Names()
        self._lifted: set[Any] = set()  # what has a name only because it is deep inside of something
        self._unmade: list[tuple[str, Shape]] = []  # of many classes, each may lead to the next
        self._made: dict[str, Schema] = {}

    @property
    def components(self) -> dict[str, Schema]:
        """The schemas that are referred to, by their names, in alphabetical order."""
        return dict(sorted(self._made.items()))

    def of(self, shape: Shape) -> Schema:
        """Return the schema of a shape; what it refers to is among the components."""
        self._name_parts(shape)
        schema = self._schema(shape)
        while self._unmade:
            name, unmade = self._unmade.pop()
            self._made[name] = self._component(unmade)
        return schema

    def _name_parts(self, root: Shape) -> None:
        """Name what has a name in a shape, in the order in which it is written, however many classes there are."""
        seen: set[int] = set()
        todo = [(root, 0)]
        while todo:
            shape, depth = todo.pop()
            if id(shape) in seen:
                continue
            seen.add(id(shape))
            is_deep = depth >= _DEEPEST and bool(shape.parts)
            if is_deep or has_name(shape):
                key, depth = identity_of(shape), 0
                if key in self._names:
                    continue
                self._unmade.append((self._names.of(key, wanted_name(shape)), shape))
                if is_deep:
                    self._lifted.add(key)
            todo += [(part, depth + 1) for part in reversed(shape.parts)]

    def _schema(self, shape: Shape) -> Schema:
        if has_name(shape) or (self._lifted and shape.parts and identity_of(shape) in self._lifted):
            return {"$ref": f"{_REFERENCE}{self._names[identity_of(shape)]}"}
        return self._body(shape)

    def _body(self, shape: Shape) -> Schema:
        """Return the schema of what has no name, or apart from its name."""
        if isinstance(shape, Union):
            return {"anyOf": [self._schema(part) for part in shape.parts]}
        if isinstance(shape, Constrained):
            return self._constrained(shape)
        if isinstance(shape, Coded):
            return self._coded(shape)
        return self._container(shape) or self._living(shape) or _leaf(shape)

    def _container(self, shape: Shape) -> Schema | None:
        if isinstance(shape, Array):
            schema: Schema = {"type": "array", "items": self._schema(shape.item)}
            if shape.kind in (set, frozenset):
                schema["uniqueItems"] = True
            return schema if shape.kind is list else {**schema, OURS: {"type": shape.kind.__name__}}
        if isinstance(shape, FixedTuple):
            return {**self._items([self._schema(part) for part in shape.parts]), OURS: {"type": "tuple"}}
        if isinstance(shape, Map):
            schema = {"type": "object", "additionalProperties": self._schema(shape.value)}
            has_texts = isinstance(shape.key, Scalar) and shape.key.annotation is str
            return schema if has_texts else {**schema, OURS: {"type": "map", "keys": self._schema(shape.key)}}
        return None

    def _living(self, shape: Shape) -> Schema | None:
        """Return the schema of what travels as a descriptor."""
        if isinstance(shape, Stream):
            return {OURS: {"type": "stream", "items": self._schema(shape.item)}}
        if isinstance(shape, ServiceObject):
            return {OURS: {"type": "object", "interface": self._interface_of(shape.annotation)}}
        return {OURS: {"type": _LIVING[type(shape)]}} if type(shape) in _LIVING else None

    def _items(self, items: list[Schema], required: int | None = None) -> Schema:
        """Return the schema of an array of so many items; JSON Schema knows no empty list of schemas."""
        least = len(items) if required is None else required
        return {"type": "array", **({"items": items} if items else {}), "minItems": least, "maxItems": len(items)}

    def _coded(self, shape: Coded) -> Schema:
        inner = self._schema(shape.inner)
        whole = {"allOf": [inner]} if OURS in inner else inner
        return beside(whole, {}, {"type": "coded", "class": text(shape.coding.kind.__name__)})

    def _constrained(self, shape: Constrained) -> Schema:
        schema = self._schema(shape.inner)
        keys: Schema = {}
        ours: Schema = {}
        for meta in shape.metas:
            keys |= _notes(meta, inner_of(shape))
            if meta.tz is not None:
                ours["tz"] = meta.tz
            if meta == SENSITIVE:
                ours["sensitive"] = True
        for key in keys.keys() & schema.keys() & {"minItems", "maxItems"}:  # of a tuple
            keys[key] = (max if key == "minItems" else min)(keys[key], schema[key])
        return beside(schema, keys, ours)

    # What has a name

    def _component(self, shape: Shape) -> Schema:
        if isinstance(shape, Object):
            return self._object(shape)
        if isinstance(shape, Alias):
            assert shape.target is not None
            return beside(self._schema(shape.target), {}, {"alias": True})
        if not has_name(shape):
            return beside(self._body(shape), {}, {"alias": True})
        return _enum(shape.coding.kind if isinstance(shape, Coded) else shape.annotation)

    def _object(self, shape: Object) -> Schema:
        fields = [self._field(field) for field in shape.fields]
        required = [number for number, field in enumerate(shape.fields) if field.is_required]
        ours: Schema = {"type": _KINDS[shape.kind]}
        if shape.is_array:
            body = self._items(fields, required[-1] + 1 if required else 0)
            ours |= {"array": True, "fields": [text(field.wire_name) for field in shape.fields]}
        else:
            body = {
                "type": "object",
                "properties": {text(field.wire_name): one for field, one in zip(shape.fields, fields, strict=True)},
                "required": [text(shape.fields[number].wire_name) for number in required],
            }
        renamed = {text(field.wire_name): field.name for field in shape.fields if field.wire_name != field.name}
        unset = [text(field.name) for field in shape.fields if field.init_name is None]
        ours |= {**({"names": renamed} if renamed else {}), **({"no_init": unset} if unset else {})}
        if shape.tag is not None:
            ours["tag"] = {"field": text(shape.tag[0]), "value": form_of(shape.tag[1])}
        config = getattr(shape.cls, "__struct_config__", None)
        if config is not None and config.forbid_unknown_fields:
            ours["forbid_unknown"] = True
        if config is not None and config.omit_defaults:
            ours["omit_defaults"] = True
        return {**_titled(shape.cls), **body, OURS: ours}

    def _field(self, field: Field) -> Schema:
        return defaulted(self._schema(field.shape), field.shape, field.default, field.default_factory)


def _leaf(shape: Shape) -> Schema:
    """Return the schema of what has no parts; of anything it is one that says nothing."""
    if not isinstance(shape, Scalar):
        return {}
    if typing.get_origin(shape.annotation) is typing.Literal:
        return {"enum": list(map(form_of, typing.get_args(shape.annotation)))}
    return dict(_SCALARS[shape.annotation])


def _notes(meta: msgspec.Meta, inner: Shape) -> Schema:
    """Return what a note says of the values of a shape, in JSON Schema's words."""
    counted = "Properties" if Wire.MAP in inner.wires else "Items" if Wire.ARRAY in inner.wires else "Length"
    words = {**_BOUNDS, "min_length": f"min{counted}", "max_length": f"max{counted}"}
    words |= {"title": "title", "description": "description"}
    found = {word: getattr(meta, name) for name, word in words.items()}
    keys = {
        word: text(value) if isinstance(value, str) else value for word, value in found.items() if value is not None
    }
    examples = forms_of(meta.examples or ())
    return {**keys, "examples": examples} if examples else keys


def _enum(cls: type[enum.Enum]) -> Schema:
    if issubclass(cls, enum.Flag):
        kind = "intflag" if issubclass(cls, enum.IntFlag) else "flag"
        numbers = {text(name): form_of(int(member.value)) for name, member in cls.__members__.items()}
        return {**_titled(cls), "type": "integer", OURS: {"type": kind, "names": numbers}}
    kind = "intenum" if issubclass(cls, int) else "strenum" if issubclass(cls, str) else "enum"
    members = list(cls)
    names = [text(member.name) for member in members]
    values = [form_of(member.value) for member in members]
    return {**_titled(cls), "enum": values, OURS: {"type": kind, "names": names}}


def _titled(cls: type) -> Schema:
    doc = doc_of(cls)
    return {"title": text(cls.__name__), **({} if doc is None else {"description": doc})}
