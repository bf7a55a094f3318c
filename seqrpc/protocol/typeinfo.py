"""What msgspec knows of a type and of all types in it: one walk, whatever is looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec import inspect

_OBJECTS: Final = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.NamedTupleType)


def parts_of(info: inspect.Type) -> list[inspect.Type]:
    """Return the types that a type is made of: elements, keys, fields, choices."""
    if isinstance(info, _OBJECTS):
        return [field.type for field in info.fields]
    parts: list[inspect.Type] = []
    for part in msgspec.structs.astuple(info):
        parts += [item for item in (part if isinstance(part, tuple) else (part,)) if isinstance(item, inspect.Type)]
    return parts


def types_in(kind: Any, parts: Callable[[inspect.Type], Iterable[inspect.Type]] = parts_of) -> list[inspect.Type]:
    """Return what msgspec knows of a type, and of all types in it, also if it holds itself.

    Args:
        kind: the type.
        parts: returns what a type is made of, the same objects each time.

    Raises:
        TypeError: msgspec does not take it for a type.
    """
    found: dict[int, inspect.Type] = {}
    todo = [inspect.type_info(kind)]
    while todo:
        info = todo.pop()
        if id(info) not in found:
            found[id(info)] = info
            todo += parts(info)
    return list(found.values())
