"""How types are spelled: tables of what annotations may be, and the shapes of those that have no parts."""

from __future__ import annotations

import collections.abc
import datetime as dt
import decimal
import enum
import sys
import typing
import uuid
from typing import Any, Final

import msgspec

from seqrpc.interface.shapes import Scalar, Wire
from seqrpc.interface.streams import Items

STREAMS: Final = (collections.abc.AsyncIterator, collections.abc.AsyncIterable, collections.abc.AsyncGenerator, Items)
"""What a stream is annotated with, besides the class of its reading end."""

PLAIN_STREAMS: Final = (collections.abc.Iterator, collections.abc.Generator)
"""What a stream is annotated with in a class of plain functions, which describes a service to those who block."""

ARRAYS: Final[dict[Any, tuple[type, bool]]] = {
    list: (list, True),
    typing.List: (list, True),  # noqa: UP006 - as it may be written
    collections.abc.Sequence: (list, True),
    collections.abc.MutableSequence: (list, True),
    collections.abc.Collection: (list, True),
    collections.abc.Iterable: (list, False),
    collections.abc.Reversible: (list, False),
    set: (set, True),
    typing.Set: (set, True),  # noqa: UP006 - as it may be written
    collections.abc.Set: (set, True),
    collections.abc.MutableSet: (set, True),
    frozenset: (frozenset, True),
    typing.FrozenSet: (frozenset, True),  # noqa: UP006 - as it may be written
}
"""What any number of values is annotated with: what is made, and whether msgspec knows this spelling."""

MAPS: Final = (dict, typing.Dict, collections.abc.Mapping, collections.abc.MutableMapping)  # noqa: UP006 - likewise

QUALIFIERS: Final = tuple(
    qualifier
    for qualifier in (
        typing.Required,
        typing.NotRequired,
        typing.Final,
        getattr(typing, "ReadOnly", None),
        getattr(sys.modules.get("typing_extensions"), "ReadOnly", None),
    )
    if qualifier is not None
)
"""What is said of a field, and not of its type."""

MEMORIES: Final = (memoryview, getattr(collections.abc, "Buffer", memoryview))
"""What memory that is only read is annotated with."""

_SCALARS: Final[dict[Any, tuple[tuple[Wire, ...], bool]]] = {
    type(None): ((Wire.NIL,), True),
    bool: ((Wire.BOOL,), True),
    int: ((Wire.INT,), True),
    float: ((Wire.FLOAT, Wire.INT), True),
    str: ((Wire.STR,), False),
    bytes: ((Wire.BYTES,), False),
    bytearray: ((Wire.BYTES,), False),
    dt.datetime: ((Wire.TIME, Wire.STR), True),
    dt.date: ((Wire.STR,), True),
    dt.time: ((Wire.STR,), True),
    dt.timedelta: ((Wire.STR,), True),
    uuid.UUID: ((Wire.STR,), True),
    decimal.Decimal: ((Wire.STR,), False),
    msgspec.UnsetType: ((), True),
}

_WIRES_OF: Final = {type(None): Wire.NIL, bool: Wire.BOOL, int: Wire.INT, str: Wire.STR}


def scalar_shape(annotation: Any) -> Scalar | None:
    """Return the shape of a class without parts; None for all else."""
    if annotation is getattr(typing, "LiteralString", None):
        text = Scalar(str, (Wire.STR,), is_small=False)
        text.is_respelled = True
        return text
    try:
        wires, is_small = _SCALARS[annotation]
    except (KeyError, TypeError):  # it may have no hash
        return None
    return Scalar(annotation, wires, is_small=is_small)


def literal_shape(annotation: Any) -> Scalar | None:
    """Return the shape of a ``Literal``, or None if one of its values cannot be one on the wire."""
    try:
        wires = [_WIRES_OF[type(value)] for value in typing.get_args(annotation)]
    except KeyError:
        return None
    return Scalar(annotation, wires, is_small=True)


def enum_shape(annotation: type[enum.Enum]) -> Scalar | None:
    """Return the shape of an enum; None if it cannot be sent: msgspec knows those of integers, and those of strings."""
    values = [member.value for member in annotation]
    for kind, wire in ((int, Wire.INT), (str, Wire.STR)):
        if values and all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
            return Scalar(annotation, (wire,), is_small=True)
    return None
