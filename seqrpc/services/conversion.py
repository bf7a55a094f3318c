"""Plain data to annotated types, with descriptors anywhere inside them.

msgspec does the work. It knows no descriptors; to it :class:`~seqrpc.OwnedFd` is a custom type, which
may not share a union with anything but None. Where an annotation says more, as ``OwnedFd | str``, the
union, and the dataclass around it, are swapped for a stand-in that sorts it out in ``dec_hook``.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
import types
import typing
from typing import Annotated, Any, ClassVar, Final, Union

import msgspec

from seqrpc.kernel.descriptors import OwnedFd

_NATIVE: Final = (bytes, bytearray, memoryview)

_EXACT: Final = (int, str, bool, bytes, type(None))

_TWO_PATHS: Final = re.compile(r" - at `\$([^`]*)` - at `([^`]*)`$")
"""The end of an error that has come through a stand-in: the path inside, and the path to it."""

Plan = Any
"""A type as msgspec takes it, made from an annotation by :func:`plan`."""


class _AnyInstance(type):
    """Lets msgspec take whatever ``build`` returns: it checks that ``dec_hook`` gave what was wanted."""

    def __instancecheck__(cls, instance: object) -> bool:
        return True


class _StandIn(metaclass=_AnyInstance):
    """Base of the types that stand in for what msgspec cannot have."""

    @classmethod
    def build(cls, value: Any) -> Any:
        """Return what ``value`` is converted to, or raise msgspec.ValidationError."""
        raise NotImplementedError


def convert(value: Any, wanted: Plan) -> Any:
    """Return ``value``, as it came off the wire, as the type that ``wanted`` was planned from.

    Raises:
        msgspec.ValidationError: it does not fit; the message says where and why.
    """
    try:
        return msgspec.convert(value, wanted, builtin_types=_NATIVE, dec_hook=_dec_hook)
    except msgspec.ValidationError as exc:
        raise msgspec.ValidationError(_TWO_PATHS.sub(r" - at `\2\1`", str(exc))) from exc


def exact_type(planned: Plan) -> Plan:
    """Return ``planned`` if a value of exactly that type needs no conversion, else a type that no value has."""
    return planned if planned in _EXACT else _StandIn


def _dec_hook(wanted: type, value: Any) -> Any:
    if issubclass(wanted, _StandIn):
        try:
            return wanted.build(value)
        except msgspec.ValidationError as exc:
            raise ValueError(str(exc)) from exc  # to this msgspec adds the path
    if isinstance(value, wanted):
        return value
    raise ValueError(f"Expected a descriptor, got `{type(value).__name__}`")


def plan(annotation: Any) -> Plan:
    """Return what msgspec converts to in place of ``annotation``.

    Raises:
        TypeError: msgspec cannot convert to it; the message says why.
    """
    planned = type(None) if annotation is None else _plan(annotation, {})
    for unknown in _custom_types(planned):
        if not issubclass(unknown, (OwnedFd, _StandIn)):
            raise TypeError(f"values of type {unknown.__qualname__} cannot be sent")
    return planned


def takes_descriptors(planned: Plan) -> bool:
    """Return whether a value of this type may hold descriptors; ``Any`` may."""
    return any(True for _ in _custom_types(planned, anything=True))


def _custom_types(planned: Plan, *, anything: bool = False) -> list[type]:
    """Return the types in ``planned`` that msgspec leaves to ``dec_hook``; with ``anything``, ``object`` for Any."""
    found: list[type] = []
    seen: set[int] = set()

    def walk(info: Any) -> None:
        if id(info) in seen:
            return
        seen.add(id(info))
        if isinstance(info, msgspec.inspect.CustomType):
            found.append(info.cls)
        elif isinstance(info, msgspec.inspect.AnyType) and anything:
            found.append(object)
        elif isinstance(info, msgspec.Struct):
            for child in msgspec.structs.astuple(info):
                for item in child if isinstance(child, tuple) else (child,):
                    walk(item)

    walk(msgspec.inspect.type_info(planned))
    return found


def _is_mixed(annotation: Any) -> bool:
    """Return whether it is a union of descriptors and something besides None."""
    args = typing.get_args(annotation)
    is_union = typing.get_origin(annotation) in (Union, types.UnionType)
    return is_union and OwnedFd in args and any(arg not in (OwnedFd, type(None)) for arg in args)


def _holds_mixed(annotation: Any, seen: set[Any]) -> bool:
    """Return whether such a union is anywhere inside, through dataclasses too."""
    if _is_mixed(annotation):
        return True
    if _is_dataclass(annotation):
        if annotation in seen:
            return False
        seen.add(annotation)
        hints = typing.get_type_hints(annotation, include_extras=True)
        return any(_holds_mixed(hint, seen) for hint in hints.values())
    return any(_holds_mixed(arg, seen) for arg in typing.get_args(annotation))


def _is_dataclass(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _plan(annotation: Any, within: dict[type, Any]) -> Plan:
    """Swap what msgspec cannot have; ``within`` holds the stand-ins of the dataclasses around it."""
    if not _holds_mixed(annotation, set()):
        return annotation
    if _is_dataclass(annotation):
        return within.get(annotation) or _stand_in_dataclass(annotation, within)
    args = typing.get_args(annotation)
    planned = [_plan(arg, within) for arg in args]
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return _plan_union(planned)
    if typing.get_origin(annotation) is Annotated:
        return Annotated[(planned[0], *annotation.__metadata__)]
    return typing.get_origin(annotation)[tuple(planned)]


def _plan_union(planned: list[Plan]) -> Plan:
    special = [arg for arg in planned if isinstance(arg, type) and issubclass(arg, (OwnedFd, _StandIn))]
    others = [arg for arg in planned if arg not in special]
    if len(special) == 1 and others in ([], [type(None)]):
        return functools.reduce(operator.or_, planned)
    return _stand_in_union(special, functools.reduce(operator.or_, others) if others else None)


def _stand_in_union(special: list[Any], rest: Plan) -> type[_StandIn]:
    class Either(_StandIn):
        @classmethod
        def build(cls, value: Any) -> Any:
            if isinstance(value, OwnedFd) and OwnedFd in special:
                return value
            failures: list[str] = []
            for choice in (*([] if rest is None else [rest]), *(kind for kind in special if kind is not OwnedFd)):
                try:
                    return convert(value, choice)
                except msgspec.ValidationError as exc:
                    failures.append(str(exc))
            raise msgspec.ValidationError("; ".join(failures) or "Expected a descriptor")

    return Either


def _stand_in_dataclass(original: Any, within: dict[type, Any]) -> type[_StandIn]:
    """Return what builds ``original`` from a struct of the same fields."""

    class Built(_StandIn):
        mirror: ClassVar[Any]

        @classmethod
        def build(cls, value: Any) -> Any:
            return original(**msgspec.structs.asdict(convert(value, cls.mirror)))

    within[original] = Built  # before its fields, one of which may hold the class itself
    hints = typing.get_type_hints(original, include_extras=True)
    fields = [
        _mirror_field(field, _plan(hints[field.name], within)) for field in dataclasses.fields(original) if field.init
    ]
    Built.mirror = msgspec.defstruct(original.__name__, fields, kw_only=True)
    return Built


def _mirror_field(field: dataclasses.Field[Any], planned: Plan) -> tuple[str, Any, Any]:
    if field.default_factory is not dataclasses.MISSING:
        return field.name, planned, msgspec.field(default_factory=field.default_factory)
    if field.default is not dataclasses.MISSING:
        return field.name, planned, msgspec.field(default_factory=lambda: field.default)
    return field.name, planned, msgspec.field()


def descriptors_in(value: Any) -> list[OwnedFd]:
    """Return the descriptors in a value of any type that can be sent; it may be of any depth, and hold itself."""
    found: list[OwnedFd] = []
    seen: set[int] = set()
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, OwnedFd):
            found.append(item)
            continue
        parts = _parts(item)
        if parts and id(item) not in seen:
            seen.add(id(item))
            todo += parts
    return found


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name, None) for name in value.__struct_fields__]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return []
