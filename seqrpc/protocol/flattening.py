"""What Python has and MessagePack has not, taken apart: dataclasses, Structs, enums, sets, datetimes, UUIDs.

msgspec does most of the work. At the receiver, where the annotation is known, it puts these together again.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from collections.abc import Callable
from typing import Any, Final

import msgpack
import msgspec
from msgspec import inspect

from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.typeinfo import types_in
from seqrpc.protocol.values import SCALARS, parts_of

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST_DAY: Final = (dt.datetime.min.replace(tzinfo=dt.UTC) - _EPOCH).days
_END_DAY: Final = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH).days + 1


class Borrowed:
    """Wraps what msgspec does not know while it takes the value around it apart."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        """Wrap it."""
        self.value = value


_NATIVE: Final = (bytes, bytearray, memoryview, dt.datetime, OwnedFd, Borrowed)


def flatten(value: Any, travels: Callable[[Any], bool]) -> Any:
    """Return what msgpack knows in place of a value that it does not, one level of it or more.

    What msgspec does not know either is left in it, in a :class:`Borrowed`.

    Args:
        value: neither plain data nor what travels as a descriptor.
        travels: whether a value travels as a descriptor.

    Raises:
        TypeError, ValueError: it cannot be sent; the message says why.
    """
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            return value.isoformat()  # not a moment, so not a timestamp
        since = value - _EPOCH
        if not _FIRST_DAY <= since.days < _END_DAY:  # and so datetime cannot hold it at the receiver
            raise ValueError("a moment is before the year 1 or after 9999, in UTC")
        return msgpack.Timestamp(since.days * 86_400 + since.seconds, since.microseconds * 1000)
    if dataclasses.is_dataclass(value):  # one level: its fields come here themselves, and some may be whole services
        return _fields_of(value)
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, msgspec.Struct) and _may_hold_objects(type(value)):
        _check_struct(value, travels)
    plain = msgspec.to_builtins(value, builtin_types=_NATIVE, enc_hook=Borrowed)
    if type(plain) is Borrowed:
        raise TypeError(f"a value of type {type(value).__name__} cannot be sent")
    return plain


@functools.lru_cache(maxsize=1024)
def names_of(kind: type) -> tuple[str, ...]:
    """Return the names of the fields of a dataclass."""
    return tuple(kind.__dataclass_fields__)  # type: ignore[attr-defined] # every dataclass has it


def _fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that it has of its own, as msgspec does."""
    own = getattr(value, "__dict__", None)
    if own is None:  # it has slots
        return {name: getattr(value, name) for name in names_of(value.__class__) if hasattr(value, name)}
    return {name: own[name] for name in names_of(value.__class__) if name in own}


@functools.lru_cache(maxsize=1024)
def _may_hold_objects(kind: type) -> bool:
    """Return whether the annotations of a Struct let it hold what is not plain data."""
    return any(isinstance(info, inspect.AnyType | inspect.CustomType) for info in types_in(kind))


def _check_struct(value: Any, travels: Callable[[Any], bool]) -> None:
    """Refuse a Struct with a dataclass in it that is a service: msgspec would take that apart as data, too."""
    todo, seen = [value], {id(value)}
    while todo:
        parts = parts_of(todo.pop())
        if SCALARS.issuperset(map(type, parts)):  # a great many are looked at in C
            continue
        for part in parts:
            if type(part) in SCALARS:
                continue
            if dataclasses.is_dataclass(part) and travels(part):
                raise TypeError(f"a {type(value).__name__} holds a service (a dataclass may)")
            if id(part) not in seen:
                seen.add(id(part))
                todo.append(part)
