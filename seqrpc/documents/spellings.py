"""How types and methods of a document are written for people: as in Python, on one line, whatever came in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from seqrpc.documents.trees import (
    AliasOf,
    Anything,
    Bounds,
    BufferType,
    Coded,
    Constrained,
    Default,
    Descriptor,
    EnumOf,
    Fields,
    FlagOf,
    ListOf,
    LiteralOf,
    MapOf,
    Memory,
    Method,
    ObjectOf,
    Param,
    Ref,
    Scalar,
    StreamOf,
    TupleOf,
    Type,
    UnionOf,
)
from seqrpc.text import shown

_LONGEST_VALUE: Final = 60  # characters of a default, or of a value of a literal
_MOST_VALUES: Final = 20  # values of a literal that are named

_META: Final = ("ge", "gt", "le", "lt", "multiple_of", "pattern", "min_length", "max_length", "tz")


def spelled(found: Type | None) -> str:
    """Return a type as it is written in Python: ``dict[str, list[Entry]] | None``.

    Args:
        found: the type; None, which is the result of a one-way method, is written ``None``.
    """
    return "None" if found is None else _SPELLERS[type(found)](found)


def _array(found: Any) -> str:
    item = spelled(found.item)
    return f"tuple[{item}, ...]" if found.kind == "tuple" else f"{found.kind}[{item}]"


def _literal(found: Any) -> str:
    values = [shown(repr(value), _LONGEST_VALUE) for value in found.values[:_MOST_VALUES]]
    return f"Literal[{', '.join(values)}{', ...' if len(found.values) > _MOST_VALUES else ''}]"


def _titled(found: Any) -> str:
    """Return the name of a class that stands where it is used, as other OpenRPC servers write them."""
    return shown(found.title or ("dict[str, Any]" if isinstance(found, Fields) else "Any"))


def _constrained(found: Any) -> str:
    bounds: Bounds = found.bounds
    notes = []
    if any(getattr(bounds, name) is not None for name in _META):
        notes.append(f"Meta({_told(bounds)})")
    if bounds.sensitive:
        notes.append("SENSITIVE")
    inner = spelled(found.inner)
    return f"Annotated[{', '.join([inner, *notes])}]" if notes else inner


def _told(bounds: Bounds) -> str:
    told = [(name, getattr(bounds, name)) for name in _META]
    return ", ".join(f"{name}={shown(repr(value), _LONGEST_VALUE)}" for name, value in told if value is not None)


_SPELLERS: Final[dict[type[Type], Callable[[Any], str]]] = {
    Anything: lambda _found: "Any",
    Scalar: lambda found: shown(found.name),
    LiteralOf: _literal,
    ListOf: _array,
    TupleOf: lambda found: f"tuple[{', '.join(map(spelled, found.items)) or '()'}]",
    MapOf: lambda found: f"dict[{spelled(found.key)}, {spelled(found.value)}]",
    UnionOf: lambda found: " | ".join(map(spelled, found.choices)),
    Ref: lambda found: shown(found.name),
    Coded: lambda found: shown(found.class_name),
    Descriptor: lambda _found: "OwnedFd",
    BufferType: lambda _found: "Buffer",
    Memory: lambda _found: "memoryview",
    StreamOf: lambda found: f"stream of {spelled(found.item)}",
    ObjectOf: lambda found: shown(found.interface),
    Constrained: _constrained,
    Fields: _titled,
    EnumOf: _titled,
    FlagOf: _titled,
    AliasOf: lambda found: spelled(found.target),
}


def signature(method: Method, width: int | None = None) -> str:
    """Return how a method is called: ``follow(name: str, *, since: datetime | None = None) -> stream of Entry``.

    Args:
        method: which.
        width: of a line; if that is not enough, each parameter has one. None is as much as there is.
    """
    given: list[str] = []
    marked = ""
    for param in method.params:
        if marked == "/" and not param.positional_only:
            given.append("/")
        if param.keyword_only and marked != "*":
            given.append("*")
        marked = "/" if param.positional_only else "*" if param.keyword_only else ""
        given.append(_param(param))
    if marked == "/":
        given.append("/")
    opening, closing = f"{shown(method.short_name)}(", f") -> {spelled(method.result)}"
    line = f"{opening}{', '.join(given)}{closing}"
    if width is None or len(line) <= width or not given:
        return line
    return "\n".join([opening, *[f"    {each}," for each in given], closing])


def _param(param: Param) -> str:
    told = f"{shown(param.name)}: {spelled(param.type)}"
    return told if param.required else f"{told} = {default_text(param.default)}"


def default_text(default: Default | None) -> str:
    """Return a default as it is written in Python; ``...`` if nobody says what it is."""
    if default is None:
        return "..."
    return shown(default.words if default.words is not None else repr(default.value), _LONGEST_VALUE)
