"""Sets, and maps with keys of a type, as annotations make them: how many elements may be chosen to collide.

The hashes of strings and byte strings have a secret in them, those of numbers, moments, UUIDs and tuples have none:
whoever chooses such elements can make all of them collide, and the time to make a set of them grows with the square of
their number. What msgpack makes has been counted (:mod:`seqrpc.protocol.maps`); here is what msgspec makes of it.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from seqrpc.interface.contents import shapes_in
from seqrpc.interface.shapes import Anything, Array, Constrained, FixedTuple, Map, Object, Scalar, Shape, Union

_SAFE: Final = (bool, bytearray, bytes, str, type(None))
"""Types whose values have a secret in their hashes, or of which there are few. An enum is hashed by its name."""

_NUMBERS: Final = (int, float)
"""Types that no string is converted to: what hashes without a secret was none when it came."""


class Bounds(Protocol):
    """What looks for sets and maps of too many elements."""

    def check(self, value: Any, most: int) -> None:
        """Look through plain data.

        Args:
            value: what is to be converted.
            most: elements that each of them may have.

        Raises:
            msgspec.ValidationError: one has more.
        """
        ...


class SetBounds:
    """Looks for sets and maps of too many elements in what is to be converted to a shape.

    Args:
        shape: the shape.
        apart: the ids of the shapes in it that are converted by themselves, and looked at then.
    """

    __slots__ = ("_relevant", "_shape")

    def __init__(self, shape: Shape, apart: Collection[int] = ()) -> None:
        """Find out where in values of the shape there may be such sets."""
        self._shape = shape
        parents: dict[int, list[int]] = {}
        marked: list[int] = []
        for found in shapes_in(shape):
            if id(found) not in apart or found is shape:
                for part in found.parts:
                    parents.setdefault(id(part), []).append(id(found))
            if _is_open(found):
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

    def check(self, value: Any, most: int) -> None:
        """Look through plain data, where its shape may have such sets, as :meth:`Bounds.check`."""
        self._check(self._shape, value, most)

    def _check(self, shape: Shape, value: Any, most: int) -> None:
        if id(shape) not in self._relevant:
            return
        if isinstance(shape, Constrained | Union):
            for choice in shape.parts:
                self._check(choice, value, most)
        elif isinstance(shape, Object):
            self._check_fields(shape, value, most)
        elif isinstance(value, list | tuple):
            self._check_array(shape, value, most)
        elif isinstance(value, dict) and isinstance(shape, Map):
            if _is_open(shape):
                _check_size(value, most, all_count=True)
            for key, item in value.items():
                self._check(shape.key, key, most)
                self._check(shape.value, item, most)

    def _check_array(self, shape: Shape, value: list[Any] | tuple[Any, ...], most: int) -> None:
        if isinstance(shape, FixedTuple):
            for part, item in zip(shape.parts, value, strict=False):
                self._check(part, item, most)
        elif isinstance(shape, Array):
            if _is_open(shape):
                _check_size(value, most, all_count=not _is_any(shape.item, also_numbers=True))
            if id(shape.item) in self._relevant:
                for item in value:
                    self._check(shape.item, item, most)

    def _check_fields(self, shape: Object, value: Any, most: int) -> None:
        if _has_another_tag(shape, value):
            return
        if isinstance(value, dict):
            for field in shape.fields:
                if field.wire_name in value:
                    self._check(field.shape, value[field.wire_name], most)
        elif isinstance(value, list | tuple):  # a named tuple, or a Struct that is written as an array
            for field, item in zip(shape.fields, value[1 if shape.tag else 0 :], strict=False):
                self._check(field.shape, item, most)


class EachBounds:
    """Looks into each of several values of one shape."""

    __slots__ = ("_bounds",)

    def __init__(self, bounds: Bounds) -> None:
        """Take what looks into one."""
        self._bounds = bounds

    def check(self, value: Any, most: int) -> None:
        """Look through an array, as :meth:`Bounds.check`."""
        for item in value:
            self._bounds.check(item, most)


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

    def check(self, value: dict[str, Any] | Sequence[Any], most: int) -> None:
        """Look through a map or an array, as :meth:`Bounds.check`."""
        values = [value.get(name) for name in self._bounds] if isinstance(value, dict) else value
        for bounds, item in zip(self._bounds.values(), values, strict=False):
            if bounds:
                bounds.check(item, most)


def _has_another_tag(shape: Object, value: Any) -> bool:
    """Return whether plain data is for another Struct of a union than this one."""
    if shape.tag is None:
        return False
    name, tag = shape.tag
    if isinstance(value, dict):
        return name in value and value[name] != tag
    return isinstance(value, list | tuple) and len(value) > 0 and value[0] != tag


def _is_open(shape: Shape) -> bool:
    """Return whether elements of a shape can be chosen to collide; keys that came as such have been counted."""
    if isinstance(shape, Array):
        return shape.kind in (set, frozenset) and not _is_any(shape.item, also_numbers=False)
    return isinstance(shape, Map) and not _is_any(shape.key, also_numbers=True)


def _is_any(shape: Shape, *, also_numbers: bool) -> bool:
    """Return whether a shape, and each choice of a union, is hashed with a secret; or, if wanted, comes as it is."""
    if isinstance(shape, Constrained | Union):
        return all(_is_any(part, also_numbers=also_numbers) for part in shape.parts)
    if isinstance(shape, Anything):
        return also_numbers
    if not isinstance(shape, Scalar):
        return False
    kind = shape.annotation
    if kind in _SAFE or typing.get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        return True
    return also_numbers and kind in _NUMBERS


def _check_size(value: Any, most: int, *, all_count: bool) -> None:
    if len(value) <= most:
        return
    number = len(value) if all_count else sum(type(item) is not str and type(item) is not bytes for item in value)
    if number > most:
        raise msgspec.ValidationError(
            f"a set, or the keys of a map, of what is neither string nor byte string has at most {most} elements"
            f" (max_other_keys), got {number}"
        )
