"""Where in what is to be converted there are sets, and maps with keys of a type: how much of them there may be.

What msgpack makes has been counted (:mod:`seqrpc.protocol.maps`); here is what msgspec makes of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from seqrpc.interface.collisions import Allowance, Elements, may_collide
from seqrpc.interface.contents import shapes_in
from seqrpc.interface.shapes import Array, Constrained, FixedTuple, Map, Object, Shape, Union


class Bounds(Protocol):
    """What looks for sets and maps of too many elements."""

    def check(self, value: Any, allowance: Allowance) -> None:
        """Look through plain data.

        Args:
            value: what is to be converted.
            allowance: what they may cost, with all others of the message.

        Raises:
            Exhausted: they cost more.
        """
        ...


class SetBounds:
    """Looks for sets and maps of too many elements in what is to be converted to a shape.

    Args:
        shape: the shape.
        apart: the ids of the shapes in it that are converted by themselves, and looked at then.
    """

    __slots__ = ("_elements", "_relevant", "_shape")

    def __init__(self, shape: Shape, apart: Collection[int] = ()) -> None:
        """Find out where in values of the shape there may be such sets."""
        self._shape = shape
        self._elements: dict[int, Elements] = {}
        parents: dict[int, list[int]] = {}
        marked: list[int] = []
        for found in shapes_in(shape):
            if id(found) not in apart or found is shape:
                for part in found.parts:
                    parents.setdefault(id(part), []).append(id(found))
            elements = may_collide(found)
            if elements is not None:
                self._elements[id(found)] = elements
                marked.append(id(found))
        self._relevant: set[int] = set()
        while marked:
            number = marked.pop()
            if number not in self._relevant:
                self._relevant.add(number)
                marked += parents.get(number, ())
        if id(shape) not in self._relevant:
            self._relevant.clear()
        self._relevant.difference_update(set(apart) - {id(shape)})

    def __bool__(self) -> bool:
        """Return whether there is anything to look for."""
        return bool(self._relevant)

    def check(self, value: Any, allowance: Allowance) -> None:
        """Look through plain data, where its shape may have such sets, as :meth:`Bounds.check`."""
        self._check(self._shape, value, allowance)

    def _check(self, shape: Shape, value: Any, allowance: Allowance) -> None:
        if id(shape) not in self._relevant:
            return
        if isinstance(shape, Constrained | Union):
            for choice in shape.parts:
                self._check(choice, value, allowance)
        elif isinstance(shape, Object):
            self._check_fields(shape, value, allowance)
        elif isinstance(value, list | tuple):
            self._check_array(shape, value, allowance)
        elif isinstance(value, dict) and isinstance(shape, Map):
            if id(shape) in self._elements:
                self._elements[id(shape)].take(value, allowance)
            for key, item in value.items():
                self._check(shape.key, key, allowance)
                self._check(shape.value, item, allowance)

    def _check_array(self, shape: Shape, value: list[Any] | tuple[Any, ...], allowance: Allowance) -> None:
        if isinstance(shape, FixedTuple):
            for part, item in zip(shape.parts, value, strict=False):
                self._check(part, item, allowance)
        elif isinstance(shape, Array):
            if id(shape) in self._elements:
                self._elements[id(shape)].take(value, allowance)
            if id(shape.item) in self._relevant:
                for item in value:
                    self._check(shape.item, item, allowance)

    def _check_fields(self, shape: Object, value: Any, allowance: Allowance) -> None:
        if _has_another_tag(shape, value):
            return
        if isinstance(value, dict):
            for field in shape.fields:
                if field.wire_name in value:
                    self._check(field.shape, value[field.wire_name], allowance)
        elif isinstance(value, list | tuple):  # a named tuple, or a Struct that is written as an array
            for field, item in zip(shape.fields, value[1 if shape.tag else 0 :], strict=False):
                self._check(field.shape, item, allowance)


class EachBounds:
    """Looks into each of several values of one shape."""

    __slots__ = ("_bounds",)

    def __init__(self, bounds: Bounds) -> None:
        """Take what looks into one."""
        self._bounds = bounds

    def check(self, value: Any, allowance: Allowance) -> None:
        """Look through an array, as :meth:`Bounds.check`."""
        for item in value:
            self._bounds.check(item, allowance)


class FieldBounds:
    """Looks into values that have names, or positions.

    Args:
        bounds: what looks into each of them, in order, by name.
    """

    __slots__ = ("_bounds",)

    def __init__(self, bounds: Mapping[str, Bounds | None]) -> None:
        """Take what looks into them."""
        self._bounds = bounds

    def __bool__(self) -> bool:
        """Return whether there is anything to look for."""
        return any(self._bounds.values())

    def check(self, value: dict[str, Any] | Sequence[Any], allowance: Allowance) -> None:
        """Look through a map or an array, as :meth:`Bounds.check`."""
        values = [value.get(name) for name in self._bounds] if isinstance(value, dict) else value
        for bounds, item in zip(self._bounds.values(), values, strict=False):
            if bounds:
                bounds.check(item, allowance)


def _has_another_tag(shape: Object, value: Any) -> bool:
    """Return whether plain data is for another Struct of a union than this one."""
    if shape.tag is None:
        return False
    name, tag = shape.tag
    if isinstance(value, dict):
        return name in value and value[name] != tag
    return isinstance(value, list | tuple) and len(value) > 0 and value[0] != tag
