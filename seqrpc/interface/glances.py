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
        return _Glances().type_of(shape)
    except _NotSo:
        return None


class _Glances:
    """Makes the types for one shape."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}  # None: it is being made

    def type_of(self, shape: Shape) -> Any:
        """Return the type for a shape, made once."""
        if id(shape) not in self._made:
            self._made[id(shape)] = None
            self._made[id(shape)] = self._make(shape)
        made = self._made[id(shape)]
        if made is None:  # it holds itself, and would have no end
            raise _NotSo
        return made

    def _make(self, shape: Shape) -> Any:
        if shape.is_respelled or (isinstance(shape, Union) and not takes_union(shape)):
            raise _NotSo
        if isinstance(shape, Scalar):
            return spelling(shape)
        if isinstance(shape, Object):
            return self._mirror(shape)
        if isinstance(shape, _MADE_OF):
            return composed(shape, tuple(map(self.type_of, shape.parts)))
        raise _NotSo

    def _mirror(self, shape: Object) -> Any:
        kinds = tuple(map(self.type_of, shape.parts))
        if shape.kind is Kind.NAMED_TUPLE:
            return types.GenericAlias(tuple, kinds)
        if shape.kind is Kind.TYPED_DICT:  # msgspec looks at its entries, as it knows them
            if any(isinstance(part, Object) for part in shapes_in(shape) if part is not shape):
                raise _NotSo
            return spelling(shape)
        if shape.kind is Kind.ATTRS or shape.is_array or shape.tag is not None:
            raise _NotSo
        if any(field.name != field.wire_name for field in shape.fields):
            raise _NotSo
        names = [field.name for field in shape.fields]
        return msgspec.defstruct(shape.cls.__name__, list(zip(names, kinds, strict=True)))
