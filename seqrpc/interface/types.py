"""Types as they are written in annotations, and as msgspec takes them: what they are, and one walk over all in them.

Whoever wants to know what a type holds asks here: whether it may carry descriptors, be large, or run code of the
application's, and where sets may be in it (:mod:`seqrpc.interface.sets`).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import types
import typing
from collections.abc import Iterable
from typing import Any, Final, Union

from msgspec import inspect

from seqrpc.interface.service import Service
from seqrpc.interface.standins import DataclassStandIn, Plan, StandIn, UnionStandIn
from seqrpc.interface.streams import Items, ReceivedStream
from seqrpc.protocol import typeinfo

# Annotations

_STREAMS: Final = (collections.abc.AsyncIterator, collections.abc.AsyncIterable, collections.abc.AsyncGenerator, Items)


def is_stream(annotation: Any) -> bool:
    """Return whether an annotation is that of a stream: ``AsyncIterator[T]``, ``AsyncGenerator[T]``, ``Stream[T]``."""
    origin = typing.get_origin(annotation) or annotation
    return origin in _STREAMS or (isinstance(origin, type) and issubclass(origin, ReceivedStream))


def item_type(annotation: Any) -> Any:
    """Return the annotation of a stream's items; Any where it does not say."""
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments else Any


def is_service(annotation: Any) -> bool:
    """Return whether an annotation is that of a service as a value."""
    return isinstance(annotation, type) and issubclass(annotation, Service)


def is_union(annotation: Any) -> bool:
    """Return whether an annotation is a union, which ``Optional[T]`` is, too."""
    return typing.get_origin(annotation) in (Union, types.UnionType)


def is_dataclass(annotation: Any) -> bool:
    """Return whether an annotation is a dataclass."""
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


# Types as msgspec takes them

_EXACT: Final = (int, str, bool, bytes, type(None))

_SMALL: Final = (
    inspect.BoolType,
    inspect.DateTimeType,
    inspect.DateType,
    inspect.EnumType,
    inspect.FloatType,
    inspect.IntType,
    inspect.LiteralType,
    inspect.NoneType,
    inspect.TimeDeltaType,
    inspect.TimeType,
    inspect.UUIDType,
)


def exact_type(planned: Plan) -> type | None:
    """Return the type whose values, and no others of which anything is known, need no conversion to ``planned``.

    None if there is no such type: where values are converted, and where anything goes.
    """
    return planned if planned in _EXACT else None


def types_in(planned: Plan) -> list[inspect.Type]:
    """Return what msgspec knows of a type, and of all types in it: through stand-ins, too."""
    return typeinfo.types_in(planned, _parts_of)


def _parts_of(info: inspect.Type) -> Iterable[inspect.Type]:
    stand_in = _stand_in(info)
    return typeinfo.parts_of(info) if stand_in is None else _infos_of(stand_in)


@functools.cache
def _infos_of(stand_in: StandIn) -> list[inspect.Type]:
    return list(map(inspect.type_info, stand_in.parts))


def _stand_in(info: inspect.Type) -> StandIn | None:
    cls = getattr(info, "cls", None)
    return cls if isinstance(cls, StandIn) else None


def unknown_types(planned: Plan) -> list[Any]:
    """Return the types in a type that msgspec does not know: stand-ins, descriptors, buffers, and others."""
    return [
        info.cls  # type: ignore[attr-defined] # one of a class
        for info in types_in(planned)
        if isinstance(info, inspect.CustomType) or is_service(getattr(info, "cls", None))
    ]


def holds_descriptors(planned: Plan) -> bool:
    """Return whether values of a type may hold streams, descriptors, buffers or services."""
    return bool(unknown_types(planned)) or any(isinstance(info, inspect.AnyType) for info in types_in(planned))


def may_be_large(planned: Plan) -> bool:
    """Return whether values of a type may be too long for a packet, apart from what travels as a descriptor."""
    return not all(isinstance(info, (*_SMALL, inspect.CustomType)) for info in _choices(inspect.type_info(planned)))


def takes_descriptors(planned: Plan) -> bool:
    """Return whether a value of this type may travel with descriptors: it may hold some, or be large (section 5)."""
    return not all(isinstance(info, _SMALL) for info in _choices(inspect.type_info(planned)))


def _choices(info: inspect.Type) -> list[inspect.Type]:
    """Return what a type is: more than one if it is a union."""
    if isinstance(info, inspect.UnionType):
        return [choice for part in info.types for choice in _choices(part)]
    if isinstance(info, inspect.Metadata):
        return _choices(info.type)
    stand_in = _stand_in(info)
    if isinstance(stand_in, UnionStandIn):
        return [info, *(choice for part in _infos_of(stand_in) for choice in _choices(part))]
    return [info]


def runs_code(planned: Plan) -> bool:
    """Return whether converting to a type runs code of the application's as objects are made."""
    classes = [getattr(info, "cls", None) for info in types_in(planned)]
    made = [cls.original if isinstance(cls, DataclassStandIn) else cls for cls in classes]
    return any(hasattr(cls, name) for cls in made for name in ("__post_init__", "__attrs_post_init__"))
