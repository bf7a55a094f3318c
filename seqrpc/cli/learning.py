"""What the other side says of itself, as far as it says something."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from seqrpc.blocking.remote import Remote
from seqrpc.cli.endings import FAILED, Ending
from seqrpc.documents.model import DocumentError, read
from seqrpc.documents.trees import (
    AliasOf,
    Coded,
    Constrained,
    Document,
    Method,
    ObjectOf,
    Ref,
    StreamOf,
    Type,
    UnionOf,
)
from seqrpc.errors import MethodNotFound, PermissionDenied
from seqrpc.text import offered

Methods = Mapping[str, Method]
"""By their names on the wire."""

_MOST_STEPS: Final = 10_000


def description_of(remote: Remote) -> Document:
    """Ask for the description of the services at a connection.

    Raises:
        RpcError, ConnectionLost: it is not given.
        Ending: it is none.
    """
    try:
        return read(remote.call("rpc.discover"))
    except DocumentError as exc:
        raise Ending(FAILED, f"the description that came is none: {exc}") from None


def description_if_any(remote: Remote) -> Document | None:
    """Return the description, or None where none is given: to this user, or to anybody."""
    try:
        return description_of(remote)
    except (MethodNotFound, PermissionDenied):
        return None


def by_name(methods: Iterable[Method]) -> Methods:
    """Return methods by their names."""
    return {method.name: method for method in methods}


def found(name: str, methods: Methods | None) -> tuple[str, Method | None]:
    """Return the whole name of a method, and the method if it is known.

    Args:
        name: as it was typed: without its service, if only one has such a method.
        methods: those that are known; None if nobody tells. There may be others, which are kept secret.

    Raises:
        Ending: the name says no service, and none or several have such a method.
    """
    if methods is None or name in methods:
        return name, None if methods is None else methods[name]
    if "." in name:
        return name, None  # who is asked knows better, and says what may have been meant
    named = [method for method in methods.values() if method.short_name == name]
    if len(named) == 1:
        return named[0].name, named[0]
    if named:
        raise Ending(2, f"{name}: which of {', '.join(method.name for method in named)}?")
    raise Ending(3, f"there is no method {name!r}{offered(name, [each.short_name for each in methods.values()])}")


def choices(wanted: Type, document: Document) -> list[Type]:
    """Return the types that values may have, without names, unions, bounds and classes around them."""
    result: list[Type] = []
    seen: set[str] = set()
    todo = [wanted]
    for _ in range(_MOST_STEPS):
        if not todo:
            break
        part = todo.pop()
        if isinstance(part, Ref):
            if part.name not in seen:
                seen.add(part.name)
                todo.append(document.schemas[part.name])
        elif isinstance(part, UnionOf):
            todo += reversed(part.choices)
        elif isinstance(part, AliasOf):
            todo.append(part.target)
        elif isinstance(part, Constrained | Coded):
            todo.append(part.inner)
        else:
            result.append(part)
    return result


def interface_of(result: Type | None, document: Document | None) -> Methods | None:
    """Return the methods of the object that a call gives; None if nobody tells."""
    if result is None or document is None:
        return None
    for choice in choices(result, document):
        if isinstance(choice, ObjectOf):
            return by_name(document.interfaces[choice.interface].methods)
    return None


def item_of(wanted: Type, document: Document) -> Type | None:
    """Return what the items of a stream are; None if it is no stream."""
    for choice in choices(wanted, document):
        if isinstance(choice, StreamOf):
            return choice.item
    return None
