"""What is sent for a word, or for a value of JSON, by the type that is wanted."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Final

from seqrpc.cli.endings import Ending, misused
from seqrpc.cli.learning import choices
from seqrpc.documents.model import spelled
from seqrpc.documents.trees import (
    Anything,
    BufferType,
    Descriptor,
    Document,
    EnumOf,
    Fields,
    FlagOf,
    ListOf,
    LiteralOf,
    MapOf,
    Memory,
    ObjectOf,
    Scalar,
    StreamOf,
    TupleOf,
    Type,
)
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.text import offered, shown

NOTHING: Final = object()
"""What is returned in place of a value if a type does not take it."""

ANYTHING: Final = Anything()

_MOST_OFFERED: Final = 12
"""Members of enums that an error names."""

_MOST_TRIES: Final = 100_000
"""Of types inside of unions inside of unions, which are the server's choice."""

_TEXTS: Final = ("str", "datetime", "date", "time", "timedelta", "UUID", "Decimal")

_BYTES: Final = ("bytes", "bytearray")

_CLASSES: Final[dict[str, tuple[type, ...]]] = {
    "None": (type(None),),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    **dict.fromkeys(_TEXTS, (str,)),
}
"""What of JSON is which scalar."""

_MODES: Final = {
    "<>": os.O_RDWR | os.O_CREAT,
    ">>": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    ">": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "<": os.O_RDONLY,
}


class Values:
    """Makes values.

    Args:
        document: the types that have names.
        opened: what is to close the files that are opened for them.
        opens: whether ``"@PATH"`` in JSON is an open file. Not where the JSON is not of whoever types: the server says
            which texts are files, and would be given those that somebody else has named.
    """

    def __init__(self, document: Document, opened: ExitStack, *, opens: bool = True) -> None:
        """Make nothing yet."""
        self._document = document
        self._opened = opened
        self._opens = opens
        self._tries = 0
        self._makers: dict[type[Type], Callable[[Any, Any, str], Any]] = {
            Anything: lambda value, _choice, _name: value,
            LiteralOf: lambda value, choice, _name: _one_of(value, choice.values),
            EnumOf: _member,
            FlagOf: lambda value, choice, name: value if type(value) is int else _member(value, choice, name),
            Scalar: self._scalar,
            ListOf: self._list,
            StreamOf: self._stream,
            TupleOf: self._tuple,
            MapOf: self._map,
            Fields: self._fields,
            Descriptor: self._descriptor,
            BufferType: self._bytes,
            Memory: self._bytes,
        }

    def file(self, path: str) -> OwnedFd:
        """Return an open file: ``PATH`` or ``<PATH`` to read, ``>PATH``, ``>>PATH`` to write, ``<>PATH`` for both.

        Raises:
            OSError: it cannot be opened.
        """
        mode = next((mode for mode in _MODES if path.startswith(mode)), "")
        flags = _MODES.get(mode, os.O_RDONLY)
        return self._opened.enter_context(
            OwnedFd(os.open(path[len(mode) :], flags | os.O_CLOEXEC | os.O_NOCTTY, 0o666))
        )

    def buffer(self, data: bytes) -> Buffer | bytes:
        """Return memory with some content."""
        return self._opened.enter_context(Buffer.copy_of(data)) if data else data

    def of_word(self, word: str, wanted: Type, name: str) -> Any:
        """Return what is sent for a word: for JSON if the type takes it, else for a text.

        Args:
            word: as it was typed.
            wanted: the type.
            name: what it is for, in errors.

        Raises:
            Ending: the type takes neither.
        """
        found = choices(wanted, self._document)
        parsed = parsed_json(word)
        if parsed is not NOTHING and not isinstance(parsed, str):
            value = self._first(parsed, found, name)
            if value is not NOTHING:
                return value
        for choice in found:
            value = _of_text(word, choice, parsed)
            if value is not NOTHING:
                return value
        raise misused(f"{name}={shown(word, 50) or repr(word)}: {_wish(word, wanted, found)}")

    def of_json(self, value: Any, wanted: Type, name: str) -> Any:
        """Return what is sent for a value of JSON.

        Raises:
            Ending: the type does not take it.
        """
        found = choices(wanted, self._document)
        made = self._first(value, found, name)
        if made is NOTHING:
            raise misused(f"{name}: {shown(json.dumps(value), 50)} is no {spelled(wanted)}{_offer(found)}")
        return made

    def _first(self, value: Any, found: list[Type], name: str) -> Any:
        failure: Ending | None = None
        for choice in found:
            make = self._makers.get(type(choice))
            self._tries += 1
            try:
                made = NOTHING if make is None else make(value, choice, name)
            except Ending as exc:  # in the midst of it, where another may fit
                failure = failure or exc
                if self._tries > _MOST_TRIES:
                    raise
                continue
            if made is not NOTHING:
                return made
        if failure is not None:
            raise failure
        return NOTHING

    def _scalar(self, value: Any, choice: Scalar, name: str) -> Any:
        if choice.name in _BYTES:
            return self._bytes(value, choice, name)
        fits = isinstance(value, _CLASSES.get(choice.name, ()))
        return value if fits and (choice.name == "bool" or not isinstance(value, bool)) else NOTHING

    def _items(self, value: Any, item: Type, name: str) -> Any:
        if not isinstance(value, list):
            return NOTHING
        return [self.of_json(each, item, f"{name}[{at}]") for at, each in enumerate(value)]

    def _list(self, value: Any, choice: ListOf, name: str) -> Any:
        return self._items(value, choice.item, name)

    def _stream(self, value: Any, choice: StreamOf, name: str) -> Any:
        items = self._items(value, choice.item, name)
        return items if items is NOTHING else iter(items)

    def _tuple(self, value: Any, choice: TupleOf, name: str) -> Any:
        if not isinstance(value, list) or len(value) != len(choice.items):
            return NOTHING
        pairs = zip(value, choice.items, strict=True)
        return [self.of_json(each, wanted, f"{name}[{at}]") for at, (each, wanted) in enumerate(pairs)]

    def _map(self, value: Any, choice: MapOf, name: str) -> Any:
        if not isinstance(value, dict):
            return NOTHING
        return {
            self._key(key, choice.key, name): self.of_json(each, choice.value, f"{name}[{shown(key, 50)!r}]")
            for key, each in value.items()
        }

    def _key(self, key: str, wanted: Type, name: str) -> Any:
        made = self.of_word(key, wanted, f"a key of {name}")
        return tuple(made) if isinstance(made, list) else made

    def _fields(self, value: Any, choice: Fields, name: str) -> Any:
        if choice.is_array:
            if not isinstance(value, list) or len(value) > len(choice.fields):
                return NOTHING
            pairs = zip(value, choice.fields, strict=False)
            return [self.of_json(each, field.type, f"{name}.{field.name}") for each, field in pairs]
        if not isinstance(value, dict):
            return NOTHING
        tag = choice.tag
        if tag is not None and value.get(tag.field, tag.value) != tag.value:
            return NOTHING
        fields = {field.wire_name: field.type for field in choice.fields}
        if tag is not None:
            fields.setdefault(tag.field, ANYTHING)
        for key in value:
            if key not in fields:  # the other side would leave it out without a word
                raise misused(f"{name} has no field {shown(key, 50)!r}{_near(key, fields)}")
        return {key: self.of_json(each, fields[key], f"{name}.{shown(key, 50)}") for key, each in value.items()}

    def _descriptor(self, value: Any, _choice: Descriptor, _name: str) -> Any:
        # The "@" is the user's word that a file is meant: the server's alone would open whatever a text names.
        is_file = self._opens and isinstance(value, str) and value.startswith("@")
        return self.file(value[1:]) if is_file else NOTHING

    def _bytes(self, value: Any, choice: Type, name: str) -> Any:
        if not isinstance(value, str):
            return NOTHING
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise misused(f"{name}: bytes in JSON are base64, got {shown(value, 50)!r}") from None
        return self.buffer(data) if isinstance(choice, BufferType) else data


def parsed_json(word: str) -> Any:
    """Return what JSON says, or :data:`NOTHING` if it is none."""
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        return NOTHING


def takes_text(choice: Type) -> bool:
    """Return whether a type takes any text."""
    return isinstance(choice, Scalar) and choice.name == "str"


def takes_bytes(choice: Type) -> bool:
    """Return whether a type takes bytes."""
    return isinstance(choice, Memory) or (isinstance(choice, Scalar) and choice.name in _BYTES)


def _one_of(value: Any, values: Any) -> Any:
    return value if any(type(value) is type(each) and value == each for each in values) else NOTHING


def _of_text(word: str, choice: Type, parsed: Any) -> Any:
    """Return what a word is as a text of some kind, or nothing."""
    made: Any = NOTHING
    if isinstance(choice, Anything):
        made = parsed if isinstance(parsed, str) else word
    elif isinstance(choice, LiteralOf):
        made = _one_of(word, choice.values)
    elif isinstance(choice, EnumOf | FlagOf):
        made = _of_members(word, choice)
    elif takes_bytes(choice):
        made = os.fsencode(word)
    elif isinstance(choice, Scalar) and choice.name in _TEXTS:
        made = word
    return made


def _member(value: Any, choice: EnumOf | FlagOf, _name: str) -> Any:
    """Return the value of a member for a value of JSON, which may be its name."""
    if isinstance(value, str):
        return _of_members(value, choice)
    return _one_of(value, [member for _name, member in choice.members])


def _of_members(word: str, choice: EnumOf | FlagOf) -> Any:
    """Return the value of a member by its name; members of flags may be several: ``READ|WRITE``."""
    members: dict[str, Any] = dict(choice.members)
    if isinstance(choice, EnumOf):
        return word if word in members.values() else members.get(word, NOTHING)
    number = 0
    for name in word.split("|"):
        if name not in members:
            return NOTHING
        number |= members[name]
    return number


def _wish(word: str, wanted: Type, found: list[Type]) -> str:
    """Return what an error says that is wanted in place of a word."""
    if any(isinstance(choice, ObjectOf) for choice in found):
        return "an object of this side is wanted, and the command line has none"
    if any(isinstance(choice, Descriptor | BufferType | StreamOf) for choice in found):
        return f"{spelled(wanted)} is wanted: write @PATH, or - for standard input"
    said = f"{spelled(wanted)} is wanted"
    offer = _offer(found)
    if offer:
        return f"{said}{offer}"
    layout = next(filter(None, map(_layout, found)), "")
    if layout and word[:1] in ("{", "[") and parsed_json(word) is NOTHING:
        return f"{said}, and this is no JSON: '{layout}', in quotes, which the shell takes away otherwise"
    return f"{said}: '{layout}'" if layout else said


def _offer(found: list[Type]) -> str:
    """Return what members there are, for the end of an error; nothing if there are none."""
    members = [member for choice in found for member in _members_of(choice)]
    if not members:
        return ""
    return f": one of {', '.join(members[:_MOST_OFFERED])}{', …' if len(members) > _MOST_OFFERED else ''}"


def _near(key: str, fields: Iterable[str]) -> str:
    """Return which field may be meant, or which there are, for the end of an error."""
    names = [*fields]
    return offered(key, names) or f": one of {shown(', '.join(names), 200)}" if names else ""


def _members_of(choice: Type) -> list[str]:
    if isinstance(choice, EnumOf):
        return [shown(value, 50) for _name, value in choice.members]
    if isinstance(choice, FlagOf):
        return [shown(name, 50) for name, _value in choice.members]
    if isinstance(choice, LiteralOf):
        return [shown(value if isinstance(value, str) else json.dumps(value), 50) for value in choice.values]
    return []


def _layout(choice: Type) -> str:
    """Return how a value that has parts is written, roughly; nothing of one that has none."""
    if isinstance(choice, Fields):
        parts = [f"{json.dumps(field.wire_name)}: …" for field in choice.fields if field.required] or ["…"]
        inner = shown(", ".join(parts), 100)
        return f"[{inner}]" if choice.is_array else f"{{{inner}}}"
    if isinstance(choice, MapOf):
        return '{"key": …}'
    return "[…]" if isinstance(choice, ListOf | TupleOf) else ""
