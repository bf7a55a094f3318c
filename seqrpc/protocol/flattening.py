"""What Python has and MessagePack has not, taken apart: dataclasses, Structs, enums, sets, UUIDs.

msgspec does most of the work. At the receiver, where the annotation is known, it puts these together again.
"""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import enum
import typing
import uuid
from typing import Any, Final

import msgspec

from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.codings import coding_of
from seqrpc.protocol.kinds import by_class, fields_of, names_of
from seqrpc.protocol.values import SCALARS


class Borrowed:
    """Wraps what msgspec does not know while it takes the value around it apart."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        """Wrap it."""
        self.value = value


_NATIVE: Final = (bytes, bytearray, memoryview, dt.datetime, OwnedFd, Borrowed)

_CONTAINERS: Final = (list, tuple, set, frozenset, dict)

_KNOWN: Final = (dt.date, dt.time, dt.timedelta, uuid.UUID, decimal.Decimal, msgspec.UnsetType)
"""Classes that msgspec takes apart as they should be, besides the scalars and enums."""


def flatten(value: Any) -> Any:
    """Return what msgpack knows in place of a value that it does not, one level of it or more.

    What msgspec does not know either is left in it, in a :class:`Borrowed`.

    Args:
        value: neither plain data, nor a datetime, nor what travels as a descriptor.

    Raises:
        TypeError, ValueError: it cannot be sent; the message says why.
        Exception: what a registered class raises as it is encoded.
    """
    kind = type(value)
    coding = coding_of(kind)
    if coding is not None:
        return coding.encode(value)
    if is_one_level(kind):  # its fields come here themselves, and some may be whole services
        return fields_of(value)
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, dt.date | dt.time):  # msgspec knows no subclasses of them
        return value.isoformat()
    if isinstance(value, msgspec.Struct) and not _is_plain(kind):
        value = _with_borrowed_fields(value)
    plain = msgspec.to_builtins(value, builtin_types=_NATIVE, enc_hook=Borrowed)
    if type(plain) is Borrowed:
        raise TypeError(f"a value of type {kind.__name__} cannot be sent; make it a dataclass, or send its parts")
    return plain


def is_one_level(kind: type) -> bool:
    """Return whether objects of a class travel as a map of their fields, and as nothing else."""
    return names_of(kind) is not None and not issubclass(kind, msgspec.Struct) and coding_of(kind) is None


@by_class
def _is_plain(kind: type) -> bool:
    """Return whether the annotations of a Struct let it hold nothing but what msgspec takes apart as it should be."""
    seen: set[Any] = set()
    todo: list[Any] = [kind]
    while todo:
        annotation = todo.pop()
        if isinstance(annotation, type) and annotation is not kind and coding_of(annotation) is not None:
            return False
        if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
            if annotation not in seen:
                seen.add(annotation)
                try:
                    todo += typing.get_type_hints(annotation).values()
                except Exception:  # annotations that are text hold any expression
                    return False
        elif typing.get_origin(annotation) is not None:
            if typing.get_origin(annotation) is not typing.Literal:
                todo += (argument for argument in typing.get_args(annotation) if argument is not ...)
        elif not _is_plain_leaf(annotation):
            return False
    return True


def _is_plain_leaf(annotation: Any) -> bool:
    if annotation in SCALARS or annotation in _CONTAINERS or annotation in _KNOWN:
        return True
    return isinstance(annotation, type) and issubclass(annotation, enum.Enum | dt.date)


def _with_borrowed_fields(value: msgspec.Struct) -> msgspec.Struct:
    """Return a copy of a Struct in which msgspec looks no further than one level.

    It would take apart as plain data what is a dataclass and also a service, or has a coding of its own.
    """
    copied = copy.copy(value)
    for name in copied.__struct_fields__:
        field = getattr(copied, name, None)
        if type(field) not in SCALARS and field is not msgspec.UNSET:
            msgspec.structs.force_setattr(copied, name, Borrowed(field))
    return copied
