"""How a method is called: the line for the command line, and those for Python, with arguments of the right types."""

from __future__ import annotations

import base64
import json
import keyword
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from seqrpc.documents.trees import (
    AliasOf,
    Bounds,
    BufferType,
    Coded,
    Constrained,
    Descriptor,
    EnumOf,
    Field,
    Fields,
    FlagOf,
    ListOf,
    LiteralOf,
    MapOf,
    Memory,
    Method,
    ObjectOf,
    Param,
    Ref,
    Scalar,
    StreamOf,
    TupleOf,
    Type,
    UnionOf,
)

_MOST_PARTS: Final = 40
"""The values that an argument is made of; what is beyond is left to the reader."""

_LONGEST: Final = 60
"""The characters of a text in it."""

_LEFT_OUT: Final = "..."

_SCALARS: Final[dict[str, Any]] = {
    "None": None,
    "bool": True,
    "int": 1,
    "float": 1.5,
    "datetime": "2025-12-31T12:00:00Z",
    "date": "2025-12-31",
    "time": "12:00:00",
    "timedelta": "PT1M",
    "UUID": "12345678-1234-5678-1234-567812345678",
    "Decimal": "1.5",
}
"""A value of each type, as it is on the wire; of those that are not here it is a text."""


@dataclass(frozen=True, slots=True)
class Stand:
    """What stands for a value that has no literal.

    Args:
        python: an expression: the name of something that the reader has.
        word: what a command line has for the whole argument; None if it cannot have any.
        inner: what it has inside of JSON.
    """

    python: str
    word: str | None
    inner: Any = None

    def __repr__(self) -> str:
        """Return the expression, as it stands in a list that Python shows."""
        return self.python


_BYTES: Final = base64.b64encode(_LEFT_OUT.encode()).decode()

_ANY: Final = Stand(_LEFT_OUT, _LEFT_OUT, _LEFT_OUT)

_STANDS: Final[dict[type[Type], Stand]] = {
    Descriptor: Stand("file", "@FILE", "@FILE"),
    BufferType: Stand("buffer", "@FILE", _BYTES),
    Memory: Stand('b"..."', "@FILE", _BYTES),
    StreamOf: Stand("items()", "@FILE", []),
    ObjectOf: Stand("service", None),
}

_PLAIN_BYTES: Final = Stand('b"..."', _LEFT_OUT, _BYTES)


class Recipes:
    """Writes how the methods of a document are called.

    Args:
        schemas: what has a name in the document.
        address: where the services are, or a word for that.
    """

    def __init__(self, schemas: Mapping[str, Type], address: str) -> None:
        """Hold both."""
        self._schemas = schemas
        self._address = address
        self._required: dict[str, list[Field]] = {}

    def command_line(self, method: Method) -> str | None:
        """Return the command that calls a method; None if a command line cannot have what it needs."""
        words = [method.name]
        for param, value in self._arguments(method):
            try:
                word = _word(value)
            except _NoWordError:
                return None
            words.append(f"{param.name}={word}" if param.name.isidentifier() else word)
        if any(word.startswith("-") for word in words):
            return None  # it would be an option, such as --exec, to whoever pastes the line
        return shlex.join(["seqrpc", "call", self._address, *words])

    def python(self, method: Method, callee: str, *, is_async: bool) -> str:
        """Return the expression that calls a method on a connection, or an object, that is called ``callee``."""
        given = self._arguments(method)
        if method.param_structure == "by-position":
            told = [repr(value) for _param, value in given]
        elif all(_is_identifier(param.name) for param, _value in given):
            told = [f"{param.name}={value!r}" for param, value in given]
        else:
            told = [f"**{ {param.name: value for param, value in given}!r}"]
        call = f"{callee}.{'notify' if method.oneway else 'call'}({', '.join([repr(method.name), *told])})"
        return f"await {call}" if is_async else call

    def _arguments(self, method: Method) -> list[tuple[Param, Any]]:
        """Return the parameters that have to be given, each with an argument."""
        return [(param, _Sample(self).of(param.type)) for param in method.params if param.required]

    def named(self, name: str) -> Type:
        """Return what has a name."""
        return self._schemas[name]

    def required(self, name: str, kind: Fields) -> list[Field]:
        """Return the first fields that a class of this name needs; it is looked for once."""
        if name not in self._required:
            self._required[name] = [*islice((field for field in kind.fields if field.required), _MOST_PARTS)]
        return self._required[name]


class _NoWordError(Exception):
    """A command line has no word for a value."""


class _Sample:
    """Makes one value of bounded size, in the form that it has on the wire."""

    def __init__(self, recipes: Recipes) -> None:
        self._recipes = recipes
        self._left = _MOST_PARTS

    def of(self, kind: Type, within: tuple[str, ...] = ()) -> Any:
        """Return a value of a type; ``within`` has the names of the types that it is a part of."""
        self._left -= 1
        if self._left < 0:
            return _ANY
        if type(kind) in _STANDS:
            return _STANDS[type(kind)]
        making = _MAKERS.get(type(kind))
        return _single(kind) if making is None else making(self, kind, within)

    def named(self, kind: Ref, within: tuple[str, ...]) -> Any:
        """Return a value of what has a name."""
        if kind.name in within:
            return _ANY
        found = self._recipes.named(kind.name)
        if isinstance(found, Fields):
            return self._object(found, self._recipes.required(kind.name, found), (*within, kind.name))
        return self.of(found, (*within, kind.name))

    def fields(self, kind: Fields, within: tuple[str, ...]) -> Any:
        """Return an object of a class that has no name in the document."""
        return self._object(kind, [field for field in kind.fields if field.required], within)

    def mapping(self, kind: MapOf, within: tuple[str, ...]) -> Any:
        """Return a map with one entry."""
        key = self.of(kind.key, within)
        return {_LEFT_OUT if isinstance(key, list | dict | Stand) else key: self.of(kind.value, within)}

    def sequence(self, kind: ListOf | TupleOf, within: tuple[str, ...]) -> Any:
        """Return a list with one item, or the items of a tuple."""
        return [self.of(part, within) for part in kind.parts[:_MOST_PARTS]]

    def _object(self, kind: Fields, fields: list[Field], within: tuple[str, ...]) -> Any:
        values = {field.wire_name: self.of(field.type, within) for field in fields[:_MOST_PARTS]}
        tag = {} if kind.tag is None else {kind.tag.field: kind.tag.value}
        return [*tag.values(), *values.values()] if kind.is_array else {**tag, **values}


_MAKERS: Final[dict[type[Type], Callable[[_Sample, Any, tuple[str, ...]], Any]]] = {
    Ref: _Sample.named,
    Constrained: lambda sample, kind, within: _bounded(sample.of(kind.inner, within), kind.bounds),
    Coded: lambda sample, kind, within: sample.of(kind.inner, within),
    AliasOf: lambda sample, kind, within: sample.of(kind.target, within),
    UnionOf: lambda sample, kind, within: sample.of(_fullest(kind.choices), within),
    ListOf: _Sample.sequence,
    TupleOf: _Sample.sequence,
    MapOf: _Sample.mapping,
    Fields: _Sample.fields,
}
"""How a value is made of those that are its parts."""


def _bounded(value: Any, bounds: Bounds) -> Any:
    """Return a value that is within bounds, if that is easy."""
    if bounds.examples and _is_small(bounds.examples[0]):
        return bounds.examples[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    least = bounds.ge if bounds.gt is None else bounds.gt + 1
    most = bounds.le if bounds.lt is None else bounds.lt - 1
    if least is not None and value < least:
        value = least
    elif most is not None and value > most:
        value = most
    step = bounds.multiple_of
    return value if step is None else type(value)(math.ceil(value / step) * step)


def _single(kind: Type) -> Any:
    """Return a value without parts."""
    if isinstance(kind, Scalar):
        return _PLAIN_BYTES if kind.name in ("bytes", "bytearray") else _SCALARS.get(kind.name, _LEFT_OUT)
    if isinstance(kind, LiteralOf):
        return kind.values[0] if _is_small(kind.values[0]) else _ANY
    if isinstance(kind, EnumOf):
        return kind.members[0][1] if _is_small(kind.members[0][1]) else _ANY
    if isinstance(kind, FlagOf):
        return kind.members[0][1] if kind.members else 0
    return _LEFT_OUT


def _fullest(choices: tuple[Type, ...]) -> Type:
    """Return the first choice that is more than None."""
    return next((one for one in choices if not (isinstance(one, Scalar) and one.name in _EMPTY)), choices[0])


_EMPTY: Final = ("None", "UnsetType")


def _is_small(value: Any) -> bool:
    """Return whether a value takes little room in a line."""
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _LONGEST)


def _is_identifier(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _word(value: Any) -> str:
    """Return a value as an argument of a command line.

    Raises:
        _NoWordError: there is none.
    """
    if isinstance(value, Stand):
        return str(_inner(value) if value.word is None else value.word)
    if isinstance(value, str):
        return f"@{value}" if value.startswith("@") else "\\-" if value == "-" else value
    return json.dumps(value, ensure_ascii=False, default=_inner)


def _inner(stand: Stand) -> Any:
    if stand.word is None:
        raise _NoWordError
    return stand.inner
