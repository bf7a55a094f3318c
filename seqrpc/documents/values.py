"""Defaults as code: from the JSON form of what is on the wire to the expression that makes the value.

Only what fits its type is written, as literals and calls of constructors. What another Python wrote for people is not
taken for code, but for the literals of bytes.
"""

from __future__ import annotations

import ast
import datetime as dt
import decimal
import ipaddress
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from seqrpc.documents.fits import bits_of
from seqrpc.documents.identifiers import attribute_names, member_names
from seqrpc.documents.layout import Brackets, Node, bytes_literal, flat, text_literal
from seqrpc.documents.trees import (
    AliasOf,
    Anything,
    Coded,
    Constrained,
    Default,
    EnumOf,
    Field,
    Fields,
    FlagOf,
    ListOf,
    LiteralOf,
    MapOf,
    Ref,
    Scalar,
    TupleOf,
    Type,
    UnionOf,
)
from seqrpc.documents.vocabulary import CODED, Side, Vocabulary, before, json_node, literal
from seqrpc.documents.walks import resolved

_PLAIN: Final[dict[str, Callable[[Any], bool]]] = {
    "None": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
}

_MADE_OF_TEXT: Final = {
    "datetime": dt.datetime,
    "date": dt.date,
    "time": dt.time,
    "timedelta": dt.timedelta,
    "UUID": uuid.UUID,
    "Decimal": decimal.Decimal,
}

_MOST_STEPS: Final = 500_000
"""Values that are tried to be written, anew with each type of a union and for each class that lacks them: twice as many
as a document may have. They take two seconds; after that no default is known."""

_LONGEST_WORDS: Final = 10_000  # characters of the literal of bytes


class NoCode(Exception):
    """A value does not fit its type, or there is no code for it."""


class Values:
    """Writes values.

    Args:
        vocabulary: the names of the module.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Begin."""
        self._vocabulary = vocabulary
        self._schemas = vocabulary.document.schemas
        self._steps = 0
        self._members: dict[str, dict[tuple[type, Any], str]] = {}  # of enums and flags, by their values
        self._attributes: dict[str, dict[str, str]] = {}
        self.known: set[str] = set()
        """The names of the classes with fields that are defined already: of others no value can be written."""

    def default(self, found: Type, default: Default | None, side: Side = Side.ASYNC) -> Node | None:
        """Return a default as code; None if nobody says what it is, or it does not fit its type."""
        if default is None:
            return None
        try:
            if default.words is not None:
                return self._of_words(found, default.words)
            return self._node(found, default.value, side)
        except NoCode:
            return None

    def factory(self, found: Type, default: Default | None, side: Side = Side.ASYNC) -> Node | None:
        """Return what makes an empty default anew each time, such as ``list[int]``; None if nothing does."""
        if default is None or not default.is_factory or default.value not in ([], {}):
            return None
        choices = [resolved(choice, self._schemas) for choice in _choices(resolved(found, self._schemas))]
        wanted = ListOf if isinstance(default.value, list) else MapOf
        for choice in choices:
            if isinstance(choice, wanted):
                return self._vocabulary.node(choice, side, quoted=True)
        if Anything() not in choices:
            return None
        anything = ListOf("list", Anything()) if wanted is ListOf else MapOf(Anything(), Anything())
        return self._vocabulary.node(anything, side, quoted=True)

    def _of_words(self, found: Type, words: str) -> Node:
        kinds = [resolved(choice, self._schemas) for choice in _choices(resolved(found, self._schemas))]
        if Scalar("bytes") not in kinds or len(words) > _LONGEST_WORDS or not words.startswith(("b'", 'b"')):
            raise NoCode
        try:
            value = ast.literal_eval(words)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise NoCode from None
        if not isinstance(value, bytes):
            raise NoCode
        return bytes_literal(value)

    def _node(self, found: Type, value: Any, side: Side) -> Node:
        """Return a value as code.

        Raises:
            NoCode: it does not fit, or too many did not.
        """
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise NoCode
        found = self._without_names(found)
        if isinstance(found, Coded) and found.class_name not in CODED:
            return self._node(found.inner, value, side)
        if isinstance(found, Ref):
            return self._named(found, value, side)
        if isinstance(found, UnionOf):
            return self._first_fit(found, value, side)
        if isinstance(found, ListOf | TupleOf | MapOf):
            return self._container(found, value, side)
        return self._leaf(found, value)

    def _without_names(self, found: Type) -> Type:
        """Return a type without bounds, and without names but those of classes and enums."""
        while True:
            target = self._schemas[found.name] if isinstance(found, Ref) else found
            if not isinstance(target, Constrained | AliasOf):
                return found
            found = target.parts[0]

    def _leaf(self, found: Type, value: Any) -> Node:
        if isinstance(found, Anything):
            return json_node(value)
        if isinstance(found, Scalar):
            return self._scalar(found, value)
        if isinstance(found, Coded):
            return self._coded(found, value)
        is_known = isinstance(found, LiteralOf) and any(
            type(known) is type(value) and known == value for known in found.values
        )
        if not is_known:
            raise NoCode
        return literal(value)

    def _first_fit(self, found: UnionOf, value: Any, side: Side) -> Node:
        choices = sorted(found.choices, key=lambda choice: isinstance(choice, Anything))
        if isinstance(value, float):  # an integer may be a float's, too, but no float an integer's
            choices.sort(key=lambda choice: choice != Scalar("float"))
        for choice in choices:
            try:
                return self._node(choice, value, side)
            except NoCode:
                continue
        raise NoCode

    def _scalar(self, found: Scalar, value: Any) -> Node:
        if found.name in _PLAIN:
            if not _PLAIN[found.name](value):
                raise NoCode
            return literal(value)
        if found.name not in _MADE_OF_TEXT or not isinstance(value, str):
            raise NoCode
        kind = _MADE_OF_TEXT[found.name]
        try:
            made: Any = msgspec.convert(value, kind)
        except msgspec.ValidationError:
            raise NoCode from None
        module = self._vocabulary.module(kind.__module__)
        called = f"{module}.{kind.__name__}("
        if kind in (uuid.UUID, decimal.Decimal):
            return Brackets(called, (text_literal(str(made)),), ")")
        numbers, tzinfo, zone = repr(made).replace("datetime.", f"{module}.")[len(called) : -1].partition("tzinfo=")
        items = [item for item in numbers.split(", ") if item]
        return Brackets(called, (*items, f"{tzinfo}{zone}") if zone else tuple(items), ")")

    def _coded(self, found: Coded, value: Any) -> Node:
        if not isinstance(value, str):
            raise NoCode
        if CODED[found.class_name] == "ipaddress":
            try:
                getattr(ipaddress, found.class_name)(value)
            except ValueError:
                raise NoCode from None
        module = self._vocabulary.module(CODED[found.class_name])
        return Brackets(f"{module}.{found.class_name}(", (text_literal(value),), ")")

    def _container(self, found: Type, value: Any, side: Side) -> Node:
        if isinstance(found, ListOf) and isinstance(value, list):
            return self._array(found, [self._node(found.item, item, side) for item in value])
        if isinstance(found, TupleOf) and isinstance(value, list) and len(value) == len(found.items):
            items = (self._node(item, one, side) for item, one in zip(found.items, value, strict=True))
            return Brackets("(", tuple(items), ")", is_literal=True)
        if isinstance(found, MapOf) and isinstance(value, dict):
            pairs = (
                (self._node(found.key, key, side), self._node(found.value, one, side)) for key, one in value.items()
            )
            return Brackets("{", tuple(before(f"{flat(key)}: ", one) for key, one in pairs), "}", is_literal=True)
        raise NoCode

    def _array(self, found: ListOf, items: list[Node]) -> Node:
        brackets = {"list": ("[", "]"), "tuple": ("(", ")")}.get(found.kind, ("{", "}"))
        whole = Brackets(brackets[0], tuple(items), brackets[1], is_literal=True)
        if found.kind in ("list", "tuple"):
            return whole
        kind = self._vocabulary.builtin(found.kind)
        if not items:
            return f"{kind}()"
        return whole if found.kind == "set" else Brackets(f"{kind}(", (whole,), ")")

    # What has a name

    def _named(self, found: Ref, value: Any, side: Side) -> Node:
        schema = self._schemas[found.name]
        name = self._vocabulary.seen(self._vocabulary.class_of(found.name, side))
        if isinstance(schema, EnumOf):
            return f"{name}.{self._member(found.name, schema, value)}"
        if isinstance(schema, FlagOf):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0 or value & ~bits_of(schema):
                raise NoCode
            is_member = (type(value), value) in self._members_of(found.name, schema)
            return f"{name}.{self._member(found.name, schema, value)}" if is_member else f"{name}({value})"
        assert isinstance(schema, Fields)
        if found.name not in self.known and schema.kind != "typeddict":
            raise NoCode
        return self._object(found.name, schema, name, value, side)

    def _members_of(self, key: str, schema: EnumOf | FlagOf) -> dict[tuple[type, Any], str]:
        """Return the names in code of the members of an enum or flag, by their values."""
        if key not in self._members:
            chosen = member_names(name for name, _value in schema.members)
            self._members[key] = {(type(value), value): chosen[name] for name, value in reversed(schema.members)}
        return self._members[key]

    def _member(self, key: str, schema: EnumOf | FlagOf, value: Any) -> str:
        members = self._members_of(key, schema)
        if not isinstance(value, str | int | float | None) or (type(value), value) not in members:
            raise NoCode
        return members[type(value), value]

    def _object(self, key: str, schema: Fields, name: str, value: Any, side: Side) -> Node:
        if schema.is_array:
            if not isinstance(value, list):
                raise NoCode
            given = dict(zip((field.wire_name for field in schema.fields), value, strict=False))
        else:
            if not isinstance(value, dict):
                raise NoCode
            given = value
        self._check_tag(schema, value)
        if any(field.wire_name not in given and self._has_to_be_given(schema, field, side) for field in schema.fields):
            raise NoCode
        fields = [field for field in schema.fields if field.wire_name in given and field.in_init]
        nodes = [self._node(field.type, given[field.wire_name], side) for field in fields]
        if schema.kind == "typeddict":
            keys = (f"{text_literal(field.wire_name)}: " for field in fields)
            return Brackets("{", tuple(map(before, keys, nodes)), "}", is_literal=True)
        if key not in self._attributes:
            self._attributes[key] = attribute_names((field.name for field in schema.fields), "field")
        names = self._attributes[key]
        return Brackets(f"{name}(", tuple(map(before, (f"{names[one.name]}=" for one in fields), nodes)), ")")

    def _has_to_be_given(self, schema: Fields, field: Field, side: Side) -> bool:
        """Return whether the constructor of a class wants a field, as it is written here."""
        if field.required or schema.kind == "typeddict" or not field.in_init:
            return field.required
        is_factory = field.default is not None and field.default.is_factory
        return (self.factory if is_factory else self.default)(field.type, field.default, side) is None

    def _check_tag(self, schema: Fields, value: Any) -> None:
        if schema.tag is not None and (not isinstance(value, dict) or value.get(schema.tag.field) != schema.tag.value):
            raise NoCode


def _choices(found: Type) -> tuple[Type, ...]:
    return found.choices if isinstance(found, UnionOf) else (found,)
