"""What is in shapes: one walk through all of a shape, and what is asked of it."""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Final

import msgspec

from seqrpc.interface.shapes import (
    Alias,
    Anything,
    Array,
    BufferShape,
    Constrained,
    Descriptor,
    FixedTuple,
    Map,
    Memory,
    Object,
    Scalar,
    ServiceObject,
    Shape,
    Stream,
    Union,
)

_BOUNDS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")

LIVING: Final = (Stream, ServiceObject, Descriptor, BufferShape, Memory)
"""What travels as a descriptor."""


def shapes_in(shape: Shape) -> Iterator[Shape]:
    """Yield a shape and all in it, each once, also if it holds itself."""
    seen = {id(shape)}
    todo = [shape]
    while todo:
        found = todo.pop()
        yield found
        for part in found.parts:
            if id(part) not in seen:
                seen.add(id(part))
                todo.append(part)


def holds_living(shape: Shape) -> bool:
    """Return whether its values hold, or may hold, streams, descriptors, buffers or services that are named in it."""
    return any(isinstance(found, LIVING) for found in shapes_in(shape))


def holds_descriptors(shape: Shape) -> bool:
    """Return whether its values may hold streams, descriptors, buffers or services."""
    return any(isinstance(found, (*LIVING, Anything)) for found in shapes_in(shape))


def may_be_large(shape: Shape) -> bool:
    """Return whether its values may be too long for a packet, apart from what travels as a descriptor."""
    return not all(_is_small(choice) or isinstance(choice, LIVING) for choice in choices_of(shape))


def takes_descriptors(shape: Shape) -> bool:
    """Return whether a value may travel with descriptors: it may hold some, or be large (protocol section 5)."""
    return not all(map(_is_small, choices_of(shape)))


def choices_of(shape: Shape) -> list[Shape]:
    """Return what a shape is, without bounds, notes and names: more than one if it is a union."""
    if isinstance(shape, Union | Constrained | Alias):
        return [choice for part in shape.parts for choice in choices_of(part)]
    return [shape]


def _is_small(shape: Shape) -> bool:
    return isinstance(shape, Scalar) and shape.is_small


_EXACT: Final = (int, str, bool, bytes, type(None))


def exact_type(shape: Shape | None) -> type | None:
    """Return the type whose values, and no others of which anything is known, need no conversion to a shape.

    None if there is no such type: where values are converted, and where anything goes.
    """
    is_exact = isinstance(shape, Scalar) and shape.annotation in _EXACT
    return shape.annotation if is_exact and shape is not None else None


def inner_of(shape: Shape) -> Shape:
    """Return a shape without its bounds and notes."""
    while isinstance(shape, Constrained):
        shape = shape.inner
    return shape


def spelling(shape: Shape) -> Any:
    """Return an annotation that says what a shape does, by itself: without type variables, texts and ``Self``."""
    if isinstance(shape, Object):
        arguments = tuple(map(spelling, shape.arguments))
        return shape.cls[arguments] if arguments else shape.cls
    return composed(shape, tuple(map(spelling, shape.parts)))


def composed(shape: Shape, parts: tuple[Any, ...]) -> Any:
    """Return the annotation of a shape that consists of ``parts``; of one without parts its own."""
    if isinstance(shape, Union):
        return functools.reduce(operator.or_, parts)
    if isinstance(shape, Constrained):
        return Annotated[parts[0], *shape.metas]
    if isinstance(shape, Array):
        return types.GenericAlias(shape.kind, (*parts, ...) if shape.kind is tuple else parts)
    if isinstance(shape, FixedTuple | Map):
        return types.GenericAlias(dict if isinstance(shape, Map) else tuple, parts)
    if isinstance(shape, Anything):
        return Any
    return types.GenericAlias(AsyncIterator, parts) if isinstance(shape, Stream) else shape.annotation


def has_bounds(meta: msgspec.Meta) -> bool:
    """Return whether a note has bounds to be checked."""
    return any(getattr(meta, name) is not None for name in _BOUNDS)
