"""Why values of a type cannot be sent, and what would do in its place."""

from __future__ import annotations

import collections
import collections.abc
import enum
import io
import typing
from typing import Any, Final

from seqrpc.interface.shapes import Wire, name_of
from seqrpc.protocol.kinds import lends_by_class

_INSTEAD: Final[tuple[tuple[tuple[Any, ...], str], ...]] = (
    ((collections.abc.Callable,), "pass an object of a service, whose methods can be called"),
    (
        (collections.abc.Iterator, collections.abc.Generator),
        "write AsyncIterator[...] for a stream, or list[...] for several values at once",
    ),
    ((collections.abc.Awaitable, collections.abc.Coroutine), "await it, and send what comes of it"),
    ((collections.OrderedDict, collections.defaultdict, collections.Counter, collections.ChainMap), "write dict[...]"),
    ((collections.deque, range), "write list[...]"),
    ((typing.Never, typing.NoReturn), "write None"),
    ((type,), "send its name"),
    ((io.BytesIO,), "write bytes"),
    ((io.StringIO,), "write str"),
)

_SUBCLASSES: Final = (str, int, float, bytes, list, tuple, dict, set, frozenset)

_A_DESCRIPTOR: Final = "write seqrpc.OwnedFd, and send seqrpc.OwnedFd.dup(...) of it"

_REGISTER: Final = "make it a dataclass or a msgspec.Struct, or tell seqrpc.register_type how it travels"


def way_out(annotation: Any) -> str:
    """Return why an annotation cannot be sent, and what to write in its place."""
    return f"values of type {name_of(annotation)} cannot be sent: {_instead_of(annotation)}"


def _instead_of(annotation: Any) -> str:
    origin = typing.get_origin(annotation) or annotation
    for kinds, text in _INSTEAD:
        if any(origin is kind for kind in kinds):
            return text
    if origin is typing.Literal:
        return "a Literal holds strings, integers, booleans and None; write an Enum"
    return _instead_of_class(origin) if isinstance(origin, type) else "it is no type that is known; write a class"


def _instead_of_class(cls: type) -> str:
    if issubclass(cls, enum.Enum):
        return "write an Enum whose values are all strings, or all integers"
    if issubclass(cls, BaseException):
        return "raise it, as a subclass of seqrpc.RpcError"
    if cls in (typing.IO, typing.TextIO, typing.BinaryIO) or lends_by_class(cls):
        return _A_DESCRIPTOR
    base = next((base for base in _SUBCLASSES if issubclass(cls, base)), None)
    if base is None:
        return _REGISTER
    return f"write {base.__name__} (or a typing.NewType of it), or tell seqrpc.register_type how it travels"


_TAGS: Final = "make them msgspec.Structs with tags (class A(msgspec.Struct, tag=True)), whose unions can be told apart"


def why_alike(one: str, other: str, wire: Wire, *, have_tags: bool) -> str:
    """Return why a union cannot be sent, of which two choices are the same on the wire."""
    if wire is Wire.STREAM:
        return f"a stream does not say which of {one} and {other} it is: write one of them"
    if wire is Wire.CHANNEL:
        return f"a service does not say which of {one} and {other} it is: write one of them, or a base of both"
    if have_tags:
        return f"{one} and {other} cannot be told apart: give them different tags, in the same tag_field"
    return f"{one} and {other} cannot be told apart, for both may be {wire.value} on the wire: {_TAGS}"
