"""Whether shapes can be told apart on the wire: what may be in a union, and what may be the key of a map."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from itertools import combinations
from typing import Final, Literal

import msgspec

from seqrpc.interface.contents import inner_of
from seqrpc.interface.shapes import (
    Alias,
    Anything,
    Array,
    Coded,
    Constrained,
    Kind,
    Map,
    Memory,
    Object,
    Scalar,
    Shape,
    Union,
    Wire,
    name_of,
)

_AS_DESCRIPTORS: Final = frozenset({Wire.DESCRIPTOR, Wire.STREAM, Wire.CHANNEL, Wire.BUFFER})


def look_alike(choices: tuple[Shape, ...]) -> tuple[Shape, Shape, Wire] | None:
    """Return two of several shapes that look alike on the wire, and what both can be there; None if all differ."""
    for one, other in combinations(choices, 2):
        shared = one.wires & other.wires
        if shared and not _told_apart(inner_of(one), inner_of(other)):
            return one, other, min(shared, key=lambda wire: wire.value)
    return None


def _told_apart(one: Shape, other: Shape) -> bool:
    """Return whether two shapes that can be the same on the wire can be told apart by more than that."""
    if isinstance(one, Anything) or isinstance(other, Anything):
        return True  # whoever fits nothing else is that
    if isinstance(one, Object) and isinstance(other, Object) and one.tag and other.tag:
        return one.tag[0] == other.tag[0] and one.tag[1] != other.tag[1]
    if isinstance(one, Coded) and isinstance(other, Coded):
        return bool(one.coding.family and other.coding.family) and one.coding.family != other.coding.family
    if isinstance(one, Scalar) and isinstance(other, Scalar):
        return _are_number_and_float(one, other) or _are_literals_apart(one, other)
    return False


def _are_number_and_float(one: Scalar, other: Scalar) -> bool:
    """Return whether one is an integer and the other a float, which may be written as an integer, too."""
    return {one.annotation, other.annotation} <= {int, float} and one.annotation is not other.annotation


def _are_literals_apart(one: Scalar, other: Scalar) -> bool:
    """Return whether both are literals, and have no value in common."""
    if typing.get_origin(one.annotation) is not Literal or typing.get_origin(other.annotation) is not Literal:
        return False
    return set(typing.get_args(one.annotation)).isdisjoint(typing.get_args(other.annotation))


def why_no_key(shape: Shape) -> str | None:
    """Return why a shape cannot be the key of a map; None if it can.

    A receiver reads an array that is a key as a tuple, and a map as a tuple, too: that fits nothing else.
    """
    for part in _parts_of_key(shape):
        name = name_of(part.annotation)
        if part.wires & _AS_DESCRIPTORS:
            return f"{name} travels as a descriptor"
        if Wire.MAP in part.wires:
            return f"{name} is a map on the wire"
    return why_not_hashable(shape)


def _parts_of_key(shape: Shape) -> Iterator[Shape]:
    """Yield what of a key, or of a member of a set, decides whether it can be one."""
    seen: set[int] = set()
    todo = [shape]
    while todo:
        found = todo.pop()
        if id(found) not in seen:
            seen.add(id(found))
            if isinstance(found, Union | Alias | Constrained):
                todo += found.parts
            elif not isinstance(found, Anything):
                yield found
                todo += found.parts


def why_not_hashable(shape: Shape) -> str | None:
    """Return why values of a shape cannot be in a set; None if they can."""
    for part in _parts_of_key(shape):
        if isinstance(part, Memory):  # which may be gigabytes that a peer did not even write
            return f"{name_of(part.annotation)} is hashed by all that is in it"
        if not _has_hash(part):
            return f"{name_of(part.annotation)} has no hash"
    return None


def _has_hash(shape: Shape) -> bool:
    if isinstance(shape, Array):
        return shape.kind not in (list, set)
    if isinstance(shape, Object):
        return shape.kind is not Kind.TYPED_DICT and _has_hash_of_its_own(shape)
    if isinstance(shape, Coded):
        return shape.coding.kind.__hash__ is not None
    return not isinstance(shape, Map) and shape.annotation is not bytearray


def _has_hash_of_its_own(shape: Object) -> bool:
    config = getattr(shape.cls, "__struct_config__", None)
    if config is not None and config.eq and not config.frozen:  # it has one that raises
        return shape.cls.__hash__ is not msgspec.Struct.__hash__
    return shape.cls.__hash__ is not None
