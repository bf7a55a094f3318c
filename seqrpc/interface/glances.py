"""A first look at results, in one pass of msgspec's: it takes no object apart, and makes none of the application's."""

from __future__ import annotations

import types
from typing import Any, Final

import msgspec

from seqrpc.interface.contents import composed, shapes_in, spelling
from seqrpc.interface.planning import takes_union
from seqrpc.interface.shapes import Array, Constrained, FixedTuple, Kind, Map, Object, Scalar, Shape, Union

_MADE_OF: Final = (Array, Constrained, FixedTuple, Map, Union)


class _NotSo(Exception):
    """Values of a shape cannot be looked at in this way."""


def glance_type(shape: Shape) -> Any:
    """Return a type to which msgspec converts, ``from_attributes``, what surely fits a shape; None if there is none.

    In place of dataclasses and Structs it has Structs with the same fields: of an object of the class itself msgspec
    would look at no field. What it does not convert may fit all the same.
    """
    try:
        return _type_of(shape, ())
    except _NotSo:
        return None


def _type_of(shape: Shape, within: tuple[Shape, ...]) -> Any:
    if shape.is_respelled or (isinstance(shape, Union) and not takes_union(shape)):
        raise _NotSo
    if isinstance(shape, Scalar):
        return spelling(shape)
    if isinstance(shape, Object):
        return _mirror(shape, within)
    if isinstance(shape, _MADE_OF):
        return composed(shape, tuple(_type_of(part, within) for part in shape.parts))
    raise _NotSo


def _mirror(shape: Object, within: tuple[Shape, ...]) -> Any:
    if any(shape is outer for outer in within):  # it would have no end
        raise _NotSo
    if shape.kind is Kind.NAMED_TUPLE:
        return types.GenericAlias(tuple, tuple(_type_of(part, (*within, shape)) for part in shape.parts))
    if shape.kind is Kind.TYPED_DICT:  # msgspec looks at its entries, as it knows them
        if any(isinstance(part, Object) for part in shapes_in(shape) if part is not shape):
            raise _NotSo
        [_type_of(part, within) for part in shape.parts]
        return spelling(shape)
    if shape.kind is Kind.ATTRS or shape.is_array or shape.tag is not None:
        raise _NotSo
    if any(field.name != field.wire_name for field in shape.fields):
        raise _NotSo
    fields = [(field.name, _type_of(field.shape, (*within, shape))) for field in shape.fields]
    return msgspec.defstruct(shape.cls.__name__, fields)
