"""Classes with fields: which kind of class it is, and what its fields are, whatever it was written with."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from seqrpc.interface.hints import is_typed_dict
from seqrpc.interface.shapes import Anything, Field, Kind

_CONTAINERS = (list, dict, set, frozenset, tuple, str, bytes, int, float)

_UNREAD = Anything(Any)


def kind_of(cls: Any) -> Kind | None:
    """Return what kind of class with fields it is; None if it is none."""
    if not isinstance(cls, type):
        return None
    if issubclass(cls, msgspec.Struct):
        return Kind.STRUCT
    if not issubclass(cls, _CONTAINERS):  # on the wire it would be what it derives from
        if dataclasses.is_dataclass(cls):
            return Kind.DATACLASS
        if isinstance(getattr(cls, "__attrs_attrs__", None), tuple):
            return Kind.ATTRS
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return Kind.NAMED_TUPLE
    return Kind.TYPED_DICT if is_typed_dict(cls) else None


def fields_of(cls: Any, kind: Kind) -> tuple[Field, ...]:
    """Return the fields of a class; their shapes are to be read from their annotations.

    Raises:
        TypeError: it has a parameter that is no field.
    """
    if kind is Kind.STRUCT:
        return tuple(map(_of_struct, msgspec.structs.fields(cls)))
    if kind is Kind.DATACLASS:
        for name, field in cls.__dataclass_fields__.items():
            if isinstance(field.type, dataclasses.InitVar) or str(field.type).startswith(
                ("InitVar", "dataclasses.InitVar")
            ):
                raise TypeError(f"{cls.__qualname__}.{name} is an InitVar, which no object has: make it a field")
        return tuple(map(_of_dataclass, dataclasses.fields(cls)))
    if kind is Kind.ATTRS:
        return tuple(map(_of_attrs, cls.__attrs_attrs__))
    if kind is Kind.NAMED_TUPLE:
        return tuple(_field(name, cls._field_defaults.get(name, msgspec.NODEFAULT)) for name in cls._fields)
    names = [*cls.__annotations__, *(cls.__required_keys__ | cls.__optional_keys__)]
    required = cls.__required_keys__
    return tuple(
        Field(name=name, wire_name=name, shape=_UNREAD, is_required=name in required, init_name=name)
        for name in dict.fromkeys(names)
    )


def _field(name: str, default: Any) -> Field:
    is_required = default is msgspec.NODEFAULT
    return Field(name=name, wire_name=name, shape=_UNREAD, is_required=is_required, default=default, init_name=name)


def _of_struct(info: msgspec.structs.FieldInfo) -> Field:
    return Field(
        name=info.name,
        wire_name=info.encode_name,
        shape=_UNREAD,
        is_required=info.required,
        default=info.default,
        default_factory=info.default_factory,
        init_name=info.name,
    )


def _of_dataclass(info: dataclasses.Field[Any]) -> Field:
    field = _field(info.name, msgspec.NODEFAULT if info.default is dataclasses.MISSING else info.default)
    if info.default_factory is not dataclasses.MISSING:
        field.default_factory, field.is_required = info.default_factory, False
    if not info.init:
        field.init_name, field.is_required = None, False
    return field


def _of_attrs(info: Any) -> Field:
    import attr  # noqa: PLC0415 - whoever has such a class has the package

    is_factory = isinstance(info.default, attr.Factory)  # type: ignore[arg-type] # it is a class at run time
    field = _field(info.name, msgspec.NODEFAULT if info.default is attr.NOTHING or is_factory else info.default)
    if is_factory:
        field.is_required = False
        if not info.default.takes_self:
            field.default_factory = info.default.factory
    if info.init:
        field.init_name = info.alias
    else:
        field.init_name, field.is_required = None, False
    return field
