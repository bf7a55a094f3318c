"""From schemas to types: what :mod:`seqrpc.interface.schemas` writes, and what others do as far as it goes.

JSON Schema has many words. Those that say nothing of what values are here, and combinations that Python has no type
for, are read as ``Any``; what contradicts itself, or is no schema, is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from seqrpc.documents.notes import constrained, default_of
from seqrpc.documents.raw import (
    DEEPEST,
    LONGEST_TEXT,
    DocumentError,
    Reading,
    count_of,
    flag_of,
    inside,
    list_of,
    map_of,
    number_of,
    ours_of,
    text_of,
    texts_of,
)
from seqrpc.documents.trees import (
    AliasOf,
    Anything,
    BufferType,
    Coded,
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

_REFERENCE: Final = "#/components/schemas/"

_SIMPLE: Final = {"null": "None", "boolean": "bool", "integer": "int", "number": "float", "string": "str"}

_FORMATS: Final = {
    "date-time": "datetime",
    "date": "date",
    "time": "time",
    "duration": "timedelta",
    "uuid": "UUID",
    "decimal": "Decimal",
}

_WITHOUT_PARTS: Final[dict[str, Callable[[], Type]]] = {
    "descriptor": Descriptor,
    "buffer": BufferType,
    "memory": Memory,
    "unset": lambda: Scalar("UnsetType"),
}

_ENUMS: Final = {"enum": "", "intenum": "int", "strenum": "str"}

_CLASSES: Final = ("dataclass", "struct", "attrs", "typeddict", "namedtuple")

_ItemsOf = Callable[[Mapping[str, Any], str], Iterator[tuple[str, Any, bool]]]
"""Yields name, schema, and whether it is required, of each field of a class."""


class SchemaReader:
    """Reads the schemas of one document.

    Args:
        reading: the reading of the document.
        schemas: those that have a name, as they came.
        interfaces: the keys of its interfaces.
    """

    def __init__(
        self, reading: Reading, schemas: Mapping[str, Any] = MappingProxyType({}), interfaces: Collection[str] = ()
    ) -> None:
        """Begin."""
        self._reading = reading
        self._schemas = schemas
        self._interfaces = interfaces

    def component(self, schema: Any, path: str) -> Type:
        """Return what a schema says that has a name; what is no class or enum has it as another name.

        Raises:
            DocumentError: it is no schema.
        """
        found = self.read(schema, path)
        return found if isinstance(found, Fields | EnumOf | FlagOf) else AliasOf(found)

    def read(self, schema: Any, path: str, depth: int = 0) -> Type:
        """Return what a schema says.

        Raises:
            DocumentError: it is no schema.
        """
        self._reading.count(path, depth)
        if isinstance(schema, bool):
            return Anything()
        schema = map_of(schema, path)
        if "$ref" in schema:
            return self._reference(schema["$ref"], path)
        found = self._kind(schema, path, depth)
        titled = not isinstance(found, Fields | EnumOf | FlagOf)
        bounded = self._bounded(found) if isinstance(found, Ref) else found
        return constrained(found, schema, path, self._reading, bounded=bounded, titled=titled)

    def _reference(self, reference: Any, path: str) -> Type:
        target = text_of(reference, inside(path, "$ref"))
        if not target.startswith(_REFERENCE):
            return Anything()  # elsewhere, where nobody looks
        name = target.removeprefix(_REFERENCE)
        if name not in self._schemas:
            raise DocumentError(f"{path}: the document has no schema {name!r:.100}")
        return Ref(name)

    def _bounded(self, found: Ref) -> Type:
        """Return what kind of type a name stands for, as far as that says which bounds may stand beside it."""
        schema: Any = self._schemas[found.name]
        for _ in range(DEEPEST):
            parts = schema.get("allOf") if isinstance(schema, dict) else None
            inner = parts[0] if isinstance(parts, list) and len(parts) == 1 else schema
            name = inner.get("$ref") if isinstance(inner, dict) else None
            if not isinstance(name, str) or name.removeprefix(_REFERENCE) not in self._schemas:
                break
            schema = self._schemas[name.removeprefix(_REFERENCE)]
        if not isinstance(schema, dict) or {"anyOf", "oneOf", "const", "enum", "allOf", "$ref"} & schema.keys():
            return found
        kind = ours_of(schema, found.name).get("type")
        if kind not in (None, "set", "frozenset", "tuple", "map", "bytes", "bytearray"):
            return found
        if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
            return ListOf("list", Anything())
        if schema.get("type") == "object" and "properties" not in schema:
            return MapOf(Scalar("str"), Anything())
        if schema.get("type") == "string":
            return self._string(schema, found.name)
        return Scalar(_SIMPLE[schema["type"]]) if schema.get("type") in ("integer", "number") else found

    def _kind(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:
        kind = ours_of(schema, path).get("type")
        readers: dict[str, Callable[[Mapping[str, Any], str, int], Type]] = {
            "coded": self._coded,
            **dict.fromkeys(_ENUMS, self._enum),
            "flag": self._flag,
            "intflag": self._flag,
            "stream": self._stream,
            "object": self._object,
            **dict.fromkeys(_CLASSES, self._class),
        }
        if isinstance(kind, str) and kind in readers:
            return readers[kind](schema, path, depth)
        if isinstance(kind, str) and kind in _WITHOUT_PARTS:
            return _WITHOUT_PARTS[kind]()
        if "allOf" in schema:
            return self._only_part(schema["allOf"], path, depth)
        return self._by_json(schema, path, depth)

    def _only_part(self, parts: Any, path: str, depth: int) -> Type:
        """Return what stands in ``allOf`` by itself; Python has no type for several at once."""
        parts = list_of(parts, inside(path, "allOf"))
        return self.read(parts[0], path, depth + 1) if len(parts) == 1 else Anything()

    def _coded(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:
        name = text_of(ours_of(schema, path).get("class"), inside(path, "class"))
        if "allOf" in schema:
            inner = self._only_part(schema["allOf"], path, depth)
        else:
            inner = self._by_json(schema, path, depth + 1)
            inner = constrained(inner, {**schema, "x-seqrpc": {}}, path, self._reading, titled=False)
        return Coded(name, inner)

    # What JSON Schema has words for

    def _by_json(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self._union(schema[word], inside(path, word), depth)
        if "const" in schema:
            return self._literal([schema["const"]], schema, path, depth)
        if "enum" in schema:
            return self._literal(list_of(schema["enum"], inside(path, "enum")), schema, path, depth)
        return self._by_type(schema, path, depth)

    def _union(self, choices: Any, path: str, depth: int) -> Type:
        read = [self.read(one, f"{path}[{index}]", depth + 1) for index, one in enumerate(list_of(choices, path))]
        return _one_of(read, path)

    def _literal(self, values: list[Any], schema: Mapping[str, Any], path: str, depth: int) -> Type:
        if all(value is None or isinstance(value, str | int) for value in values):
            for value in values:
                self._reading.value(value, inside(path, "enum"))
            if not values:
                raise DocumentError(f"{path}: an enum without values")
            return LiteralOf(tuple({(type(value), value): value for value in values}.values()))
        return self._by_type(schema, path, depth)

    def _by_type(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:
        kind = schema.get("type")
        if isinstance(kind, list):
            kinds = texts_of(kind, inside(path, "type"))
            return _one_of([self._by_type({**schema, "type": one}, path, depth) for one in kinds], path)
        if kind is None:
            kind = "array" if "items" in schema else "object" if "properties" in schema else ""
        kind = text_of(kind, inside(path, "type"))
        if kind == "string":
            return self._string(schema, path)
        if kind in _SIMPLE:
            return Scalar(_SIMPLE[kind])
        if kind == "array":
            return self._array(schema, path, depth)
        if kind == "object":
            return self._map(schema, path, depth)
        if kind:
            raise DocumentError(f"{path}: JSON Schema has no type {kind!r:.100}")
        return Anything()

    def _string(self, schema: Mapping[str, Any], path: str) -> Type:
        kind, form = ours_of(schema, path).get("type"), schema.get("format")
        if kind in ("bytes", "bytearray"):
            return Scalar(kind)
        return Scalar(_FORMATS[form]) if isinstance(form, str) and form in _FORMATS else Scalar("str")

    def _array(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:
        kind = ours_of(schema, path).get("type")
        items = schema.get("items", [] if schema.get("maxItems") == 0 else {})
        if isinstance(items, list):
            read = self._items(items, path, depth)
            if kind == "tuple" or count_of(schema.get("minItems", len(items)), inside(path, "minItems")) == len(items):
                return TupleOf(read)
            return ListOf("list", Anything())  # some of them may be left out: Python has no type for that
        item = self.read(items, f"{path}[]", depth + 1)
        if kind in ("set", "frozenset", "tuple"):
            return ListOf(kind, item)
        return ListOf("list", item)

    def _items(self, items: list[Any], path: str, depth: int) -> tuple[Type, ...]:
        return tuple(self.read(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(items))

    def _map(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:
        if "properties" in schema:
            return self._class(schema, path, depth)
        value = schema.get("additionalProperties", True)
        ours = ours_of(schema, path)
        has_keys = ours.get("type") == "map" and "keys" in ours
        key = self.read(ours["keys"], f"{path}'s keys", depth + 1) if has_keys else Scalar("str")
        return MapOf(key, self.read(value, f"{path}[]", depth + 1))

    # What it has none for

    def _stream(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:
        return StreamOf(self.read(ours_of(schema, path).get("items", {}), f"{path}[]", depth + 1))

    def _object(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:  # noqa: ARG002 - as its neighbours
        name = text_of(ours_of(schema, path).get("interface"), inside(path, "interface"))
        if name not in self._interfaces:
            raise DocumentError(f"{path}: the document has no interface {name!r:.100}")
        return ObjectOf(name)

    def _enum(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:  # noqa: ARG002 - as its neighbours
        values = list_of(schema.get("enum"), inside(path, "enum"))
        names = texts_of(ours_of(schema, path).get("names"), inside(path, "names"))
        for value in values:
            self._reading.value(value, inside(path, "enum"))
        kinds = {type(value) for value in values}
        if kinds not in ({int}, {str}):
            raise DocumentError(f"{path}: the values of an enum are all integers or all texts")
        if len(names) != len(values) or len(set(names)) != len(names) or len(set(values)) != len(values):
            raise DocumentError(f"{path}: an enum has so many names as values, each once")
        base: Any = _ENUMS[ours_of(schema, path)["type"]]
        if base and {"int": int, "str": str}[base] not in kinds:
            raise DocumentError(f"{path}: the values of an {base} enum are not of this type")
        return EnumOf(members=tuple(zip(names, values, strict=True)), base=base, **_titles(schema, path))

    def _flag(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:  # noqa: ARG002 - as its neighbours
        ours = ours_of(schema, path)
        found = map_of(ours.get("names"), inside(path, "names"))
        members = []
        for name, value in found.items():
            number = number_of(self._reading.value(value, inside(path, name)), inside(path, name))
            if not isinstance(number, int) or number < 0:
                raise DocumentError(f"{inside(path, name)}: expected the bits of a flag, got {number!r}")
            members.append((name, number))
        return FlagOf(members=tuple(members), is_int=ours["type"] == "intflag", **_titles(schema, path))

    def _class(self, schema: Mapping[str, Any], path: str, depth: int) -> Type:
        ours = ours_of(schema, path)
        kind = ours.get("type")
        is_array = kind == "namedtuple" or flag_of(ours.get("array", False), inside(path, "array"))
        forbids = ours.get("forbid_unknown", not ours and schema.get("additionalProperties") is False)
        fields = self._fields(_array_items if is_array else _map_items, schema, path, depth)
        tag = _tag(ours.get("tag"), inside(path, "tag"))
        if tag is not None and any(field.wire_name == tag.field for field in fields):
            raise DocumentError(f"{path}: the tag is in {tag.field!r:.100}, and so is a field")
        return Fields(
            kind=kind if kind in _CLASSES else "dataclass",
            fields=fields,
            is_array=is_array,
            tag=tag,
            forbids_unknown=flag_of(forbids, inside(path, "forbid_unknown")),
            omits_defaults=flag_of(ours.get("omit_defaults", False), inside(path, "omit_defaults")),
            **_titles(schema, path),
        )

    def _fields(self, items_of: _ItemsOf, schema: Mapping[str, Any], path: str, depth: int) -> tuple[Field, ...]:
        ours = ours_of(schema, path)
        names = map_of(ours.get("names", {}), inside(path, "names"))
        not_taken = set(texts_of(ours.get("no_init", []), inside(path, "no_init")))
        fields: dict[str, Field] = {}
        known: set[str] = set()
        for wire_name, one, required in items_of(schema, path):
            where = inside(path, wire_name)
            if wire_name in fields:
                raise DocumentError(f"{where}: a second field of this name")
            name = text_of(names.get(wire_name, wire_name), inside(path, "names"))
            if name in known:
                raise DocumentError(f"{where}: a second field is {name!r:.100} in Python")
            known.add(name)
            fields[wire_name] = Field(
                name=name,
                wire_name=text_of(wire_name, path),
                type=self.read(one, where, depth + 1),
                required=required,
                default=None if required else default_of(one, where, self._reading),
                in_init=name not in not_taken,
            )
        return tuple(fields.values())


def _map_items(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any, bool]]:
    properties = map_of(schema.get("properties", {}), inside(path, "properties"))
    required = set(texts_of(schema.get("required", []), inside(path, "required")))
    yield from ((name, one, name in required) for name, one in properties.items())


def _array_items(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any, bool]]:
    items = list_of(schema.get("items", []), inside(path, "items"))
    names = texts_of(ours_of(schema, path).get("fields"), inside(path, "fields"))
    least = count_of(schema.get("minItems", len(items)), inside(path, "minItems"))
    if len(names) != len(items):
        raise DocumentError(f"{path}: {len(items)} items, and names for {len(names)}")
    yield from ((name, one, index < least) for index, (name, one) in enumerate(zip(names, items, strict=True)))


def _tag(tag: Any, path: str) -> Tag | None:
    if tag is None:
        return None
    tag = map_of(tag, path)
    value = tag.get("value")
    if isinstance(value, int) and not isinstance(value, bool):
        return Tag(text_of(tag.get("field"), path), _int_64(value, path))
    return Tag(text_of(tag.get("field"), path), text_of(value, path))


def _int_64(value: int, path: str) -> int:
    if not -(2**63) <= value < 2**63:
        raise DocumentError(f"{path}: an integer of more than 63 bits")
    return value


def _one_of(choices: list[Type], path: str) -> Type:
    """Return the union of some types, of which each stands there once."""
    flat = [part for choice in choices for part in (choice.parts if isinstance(choice, UnionOf) else (choice,))]
    kept: list[Type] = []
    for choice in flat:
        if choice not in kept[:30]:  # nobody writes more, and each is compared with each
            kept.append(choice)
    if not kept:
        raise DocumentError(f"{path}: a union of nothing")
    return kept[0] if len(kept) == 1 else UnionOf(tuple(kept))


def _titles(schema: Mapping[str, Any], path: str) -> dict[str, str]:
    return {
        "title": text_of(schema.get("title", ""), inside(path, "title")),
        "description": text_of(schema.get("description", ""), inside(path, "description"), LONGEST_TEXT),
    }
