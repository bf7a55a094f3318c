"""What elements of sets, and keys of maps, may cost that were chosen to collide.

The hashes of strings and byte strings have a secret in them, those of numbers, moments, UUIDs and tuples have none:
whoever chooses such elements can make all of them collide. Each is then compared with all that are there before it, so
that the time to make a set grows with the square of their number, with what one comparison takes, and, if they have
parts, with how many. One unit here is such a comparison of integers twice: some 10 ns.
"""

from __future__ import annotations

import decimal
import enum
import typing
import uuid
from collections.abc import Collection
from typing import Any, Final, Literal

from seqrpc.interface.contents import inner_of, shapes_in
from seqrpc.interface.exhaustion import Exhausted
from seqrpc.interface.shapes import Anything, Array, Coded, Constrained, Kind, Map, Object, Scalar, Shape, Union

_SAFE: Final = (bool, bytearray, bytes, str, type(None))
"""Types whose values have a secret in their hashes, or of which there are few. An enum is hashed by its name."""

_NUMBERS: Final = (int, float)
"""Types that no string is converted to: what hashes without a secret was none when it came."""

_IN_PYTHON: Final = 25
"""Units of a comparison that is much code of Python's: of networks, and of what an application registered."""

_WEIGHTS: Final[dict[Any, int]] = {uuid.UUID: 6, decimal.Decimal: 3, Kind.DATACLASS: 5, Kind.ATTRS: 5}
"""Units of other comparisons that are no matter of a moment; of objects for each of their parts."""

_FREE: Final = 64
"""Units for each element that cost nothing: to make it takes as long."""

_LEAST_FREE: Final = 8
"""Elements that every set may have, as most have."""

_MOST_HAVE: Final = 3
"""Parts of most elements that have any."""

_COUNTING: Final = 16
"""Units that it takes to count one part."""

_LARGEST: Final = 6
"""Sets of as many integers as may be that one message may have."""


class Elements:
    """What elements of a shape may cost in one set.

    Args:
        shape: that of the elements.
        strings_count: whether such that came as strings or byte strings are no more harmless than others.
    """

    __slots__ = ("_free", "_has_parts", "_has_sets", "_strings_count", "_weight")

    def __init__(self, shape: Shape, *, strings_count: bool) -> None:
        """Find out how they are compared."""
        inside = list(shapes_in(shape))
        self._strings_count = strings_count
        self._weight = max(map(_weight_of, inside))
        self._has_parts = not all(
            isinstance(found, Union | Constrained | Scalar) and found.annotation is not decimal.Decimal
            for found in inside
        )
        self._free = max(_LEAST_FREE, _FREE // (self._weight * (_MOST_HAVE if self._has_parts else 1)))
        self._has_sets = any(isinstance(found, Array) and found.kind is frozenset for found in inside)

    def take(self, elements: Collection[Any], allowance: Allowance) -> None:
        """Let a set be made of such elements.

        Raises:
            Exhausted: there are too many of them, or in all sets of the message.
        """
        number = len(elements)
        if number <= self._free and number <= allowance.most:
            return
        if not self._strings_count:
            number = sum(type(item) is not str and type(item) is not bytes for item in elements)
        allowance.check(number)
        each = self._weight * (number - self._free)
        if each <= 0:
            return
        if not self._has_parts:
            allowance.take(number * each)
            return
        each += _COUNTING
        allowance.take(each * _size(elements, allowance.left // each, has_sets=self._has_sets))


class Allowance:
    """What all sets of one message may cost.

    Args:
        most: elements that each of them may have.
    """

    __slots__ = ("left", "most")

    def __init__(self, most: int) -> None:
        """Begin."""
        self.most = most
        self.left = _LARGEST * most * most
        """Units that may still be spent."""

    def check(self, number: int) -> None:
        """Check how many elements one set has.

        Raises:
            Exhausted: they are too many.
        """
        if number > self.most:
            raise Exhausted(
                "a set, or the keys of a map, of what is neither string nor byte string has at most"
                f" {self.most} elements (max_other_keys), got {number}"
            )

    def take(self, cost: int) -> None:
        """Take what a set may cost.

        Raises:
            Exhausted: it is more than is left.
        """
        self.left -= cost
        if self.left < 0:
            raise Exhausted(
                "all sets, and keys of maps, of what is neither string nor byte string are too large together for"
                f" one message (max_other_keys is {self.most})"
            )


def may_collide(shape: Shape) -> Elements | None:
    """Return what elements of a set or a map cost that can be chosen to collide; None if they cannot, or it is neither.

    Keys that came as they are have been counted.
    """
    if isinstance(shape, Array) and shape.kind in (set, frozenset) and not _is_any(shape.item, also_numbers=False):
        return Elements(shape.item, strings_count=not _is_any(shape.item, also_numbers=True))
    if isinstance(shape, Map) and not _is_any(shape.key, also_numbers=True):
        return Elements(shape.key, strings_count=True)
    return None


def _is_any(shape: Shape, *, also_numbers: bool) -> bool:
    """Return whether a shape, and each choice of a union, is hashed with a secret; or, if wanted, comes as it is."""
    if isinstance(shape, Constrained | Union):
        return all(_is_any(part, also_numbers=also_numbers) for part in shape.parts)
    if isinstance(shape, Anything):
        return also_numbers
    if isinstance(shape, Coded):  # paths are hashed as strings
        return shape.coding.kind.__module__.partition(".")[0] == "pathlib"
    if not isinstance(shape, Scalar):
        return False
    kind = shape.annotation
    if kind in _SAFE or typing.get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        return True
    return also_numbers and kind in _NUMBERS


def _weight_of(shape: Shape) -> int:
    """Return the units of a comparison of two values; if they have parts, for each of these."""
    shape = inner_of(shape)
    if isinstance(shape, Object):
        return _WEIGHTS.get(shape.kind, 2)
    if isinstance(shape, Coded):
        return _IN_PYTHON
    return _WEIGHTS.get(shape.annotation, 1) if isinstance(shape, Scalar) else 1


def _size(elements: Collection[Any], most: int, *, has_sets: bool) -> int:
    """Return how many parts elements have, or more than ``most``. Sets as elements count by their squares."""
    size = 0
    todo = list(elements)
    while todo and size <= most:
        one = todo.pop()
        size += 1
        if isinstance(one, list | tuple):
            size += len(one) ** 2 if has_sets else 0
            todo += one
        elif isinstance(one, dict):
            todo += one.values()
        elif isinstance(one, str | bytes):
            size += len(one) // 64  # the digits of a number, for one
    return size
