"""What of a description is written once and referred to: classes, enums and aliases, and their names."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import Any, Final

from seqrpc.interface.contents import inner_of
from seqrpc.interface.shapes import (
    Alias,
    Array,
    Coded,
    Constrained,
    FixedTuple,
    Map,
    Object,
    Scalar,
    Shape,
    Union,
    name_of,
)
from seqrpc.protocol.codings import coding_of

_LONGEST_NAME: Final = 100  # characters of the name of a component, which the arguments of generic classes lengthen

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")


class Names:
    """Names for different things, each once: what would be called as another one gets a number."""

    def __init__(self) -> None:
        """Begin with none."""
        self._names: dict[Any, str] = {}
        self._taken: set[str] = set()

    def __contains__(self, key: object) -> bool:
        """Return whether something has a name."""
        return key in self._names

    def __getitem__(self, key: Any) -> str:
        """Return the name of what has one."""
        return self._names[key]

    def of(self, key: Any, wanted: str) -> str:
        """Return the name of what is told apart by ``key``; give it one like ``wanted`` if it has none."""
        known = self._names.get(key)
        if known is None:
            number, known = 1, wanted
            while known in self._taken:
                number += 1
                known = f"{wanted}_{number}"
            self._names[key] = known
            self._taken.add(known)
        return known


def has_name(shape: Shape) -> bool:
    """Return whether a shape is written once and referred to."""
    if isinstance(shape, Coded):  # of a registered class it is what the class travels as
        return issubclass(shape.coding.kind, enum.Flag) and shape.coding is not coding_of(shape.coding.kind)
    if isinstance(shape, Scalar):
        return isinstance(shape.annotation, type) and issubclass(shape.annotation, enum.Enum)
    return isinstance(shape, Object | Alias)


def wanted_name(shape: Shape) -> str:
    """Return how a shape is called if nothing else is called so: by its class, and what that is bound to."""
    name = _NO_NAME.sub("_", "_".join(_words(shape)))[:_LONGEST_NAME]
    return (name.rstrip("_") if isinstance(shape, Object) and shape.arguments else name) or "_"


def _words(shape: Shape) -> Iterator[str]:
    """Yield the words of which a shape's name is made, in the order in which they are written."""
    shape = inner_of(shape)
    if isinstance(shape, Object):
        yield shape.cls.__name__
        parts = shape.arguments
    elif isinstance(shape, Array | Map | FixedTuple):
        yield shape.kind.__name__ if isinstance(shape, Array) else "dict" if isinstance(shape, Map) else "tuple"
        parts = shape.parts
    elif isinstance(shape, Union):
        parts = shape.parts
    else:
        yield name_of(shape.annotation).rpartition(".")[2]
        return
    for part in parts:
        yield from _words(part)


def identity_of(shape: Shape, around: tuple[Shape, ...] = ()) -> Any:
    """Return what is equal for shapes that say the same, also where each method has an alias of its own of a name.

    Args:
        shape: the shape.
        around: the aliases that it is in.
    """
    if isinstance(shape, Object):
        return (shape.cls, *(identity_of(argument, around) for argument in shape.arguments))
    if isinstance(shape, Alias):
        if shape in around:
            return ("itself", len(around) - around.index(shape))
        return ("alias", name_of(shape.annotation), *(identity_of(part, (*around, shape)) for part in shape.parts))
    if isinstance(shape, Coded):
        return shape.coding.kind
    kind = shape.kind if isinstance(shape, Array) else type(shape)
    notes = tuple(map(repr, shape.metas)) if isinstance(shape, Constrained) else ()
    if shape.parts:
        return (kind, *notes, *(identity_of(part, around) for part in shape.parts))
    return (kind, shape.annotation)
