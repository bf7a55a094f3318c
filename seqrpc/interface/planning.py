"""Annotations to types as msgspec takes them: what it cannot have is swapped for a stand-in.

To msgspec :class:`~seqrpc.OwnedFd` is a type that it does not know, and such a type may not share a union with
anything but None. Where an annotation says more (``OwnedFd | str``, a stream of some type, a service), that part, and
the dataclass around it, are swapped (:mod:`seqrpc.interface.standins`).
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import typing
from typing import Annotated, Any, Final

import msgspec

from seqrpc.interface.service import Service
from seqrpc.interface.standins import (
    DataclassStandIn,
    MemoryStandIn,
    Plan,
    ServiceStandIn,
    StandIn,
    StreamStandIn,
    UnionStandIn,
)
from seqrpc.interface.types import is_dataclass, is_service, is_stream, is_union, item_type, unknown_types
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

_MEMORY: Final = MemoryStandIn()


def plan(annotation: Any) -> Plan:
    """Return what msgspec converts to in place of ``annotation``.

    Raises:
        TypeError: msgspec cannot convert to it; the message says why.
        NameError: it is a dataclass whose annotations cannot be resolved.
    """
    planned = type(None) if annotation is None else _plan(annotation, {})
    for unknown in unknown_types(planned):
        if not isinstance(unknown, StandIn) and not is_stream(unknown) and not issubclass(unknown, (OwnedFd, Buffer)):
            where = " within a Struct (a dataclass would do)" if is_service(unknown) else ""
            raise TypeError(f"values of type {unknown.__qualname__} cannot be sent{where}")
    return planned


@functools.cache
def plan_stream(annotation: Any) -> StreamStandIn:
    """Return what stands in for a stream.

    Raises:
        TypeError: msgspec cannot convert to the type of its items.
    """
    items = item_type(annotation)
    return StreamStandIn(items, plan(items))


@functools.cache
def _plan_service(cls: type[Service]) -> ServiceStandIn:
    return ServiceStandIn(cls)


def _plan_living(annotation: Any, within: dict[type, DataclassStandIn]) -> StandIn | None:
    """Return the stand-in of a type that msgspec cannot have by itself, or None."""
    if is_stream(annotation):
        if not within:
            return plan_stream(annotation)
        items = item_type(annotation)  # which may be a dataclass that this is in
        return StreamStandIn(items, _plan(items, within))
    if is_service(annotation):
        return _plan_service(annotation)
    return _MEMORY if annotation is memoryview else None


def _is_living(annotation: Any) -> bool:
    return is_stream(annotation) or is_service(annotation) or annotation is memoryview


def _is_mixed(annotation: Any) -> bool:
    """Return whether it is a union of what travels as a descriptor and something besides None."""
    if not is_union(annotation):
        return False
    args = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
    return len(args) > 1 and any(arg in (OwnedFd, Buffer) or _is_living(arg) for arg in args)


def _holds_mixed(annotation: Any, seen: set[Any]) -> bool:
    """Return whether such a union, or a living value, is anywhere inside, through dataclasses too."""
    if _is_mixed(annotation) or _is_living(annotation):
        return True
    if is_dataclass(annotation):
        if annotation in seen:
            return False
        seen.add(annotation)
        hints = typing.get_type_hints(annotation, include_extras=True)
        return any(_holds_mixed(hint, seen) for hint in hints.values())
    return any(_holds_mixed(arg, seen) for arg in typing.get_args(annotation))


def _plan(annotation: Any, within: dict[type, DataclassStandIn]) -> Plan:
    """Swap what msgspec cannot have; ``within`` holds the stand-ins of the dataclasses around it."""
    if not _holds_mixed(annotation, set()):
        return annotation
    living = _plan_living(annotation, within)
    if living is not None:
        return living
    if is_dataclass(annotation):
        return within.get(annotation) or _plan_dataclass(annotation, within)
    planned = [_plan(arg, within) for arg in typing.get_args(annotation)]
    if is_union(annotation):
        return _plan_union(planned, annotation)
    if typing.get_origin(annotation) is Annotated:
        return Annotated[(planned[0], *annotation.__metadata__)]
    return typing.get_origin(annotation)[tuple(planned)]


def _plan_union(planned: list[Plan], annotation: Any) -> Plan:
    for kind, name in ((StreamStandIn, "a stream"), (ServiceStandIn, "a service")):
        if sum(isinstance(arg, kind) for arg in planned) > 1:
            raise TypeError(f"{annotation} cannot be sent: {name} does not say which of them it is")
    carriers = [arg for arg in planned if isinstance(arg, type) and issubclass(arg, (OwnedFd, Buffer))]
    stand_ins = [arg for arg in planned if isinstance(arg, StandIn)]
    others = [arg for arg in planned if arg not in carriers and arg not in stand_ins]
    if len(carriers) + len(stand_ins) == 1 and others in ([], [type(None)]):
        return functools.reduce(operator.or_, planned)
    rest = [functools.reduce(operator.or_, others)] if others else []
    return UnionStandIn(tuple(carriers), (*rest, *stand_ins))


def _plan_dataclass(original: Any, within: dict[type, DataclassStandIn]) -> DataclassStandIn:
    stand_in = within[original] = DataclassStandIn(original)
    hints = typing.get_type_hints(original, include_extras=True)
    stand_in.mirror(
        [_mirrored(field, _plan(hints[field.name], within)) for field in dataclasses.fields(original) if field.init]
    )
    return stand_in


def _mirrored(field: dataclasses.Field[Any], planned: Plan) -> tuple[str, Plan, Any]:
    if field.default_factory is not dataclasses.MISSING:
        return field.name, planned, msgspec.field(default_factory=field.default_factory)
    if field.default is not dataclasses.MISSING:
        return field.name, planned, msgspec.field(default_factory=lambda: field.default)
    return field.name, planned, msgspec.field()
