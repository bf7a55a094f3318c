"""Walks over the types of a document: what is in a type, what it refers to, and classes without a name of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from seqrpc.documents.identifiers import Names, identifier_like
from seqrpc.documents.trees import (
    AliasOf,
    Constrained,
    Document,
    EnumOf,
    Field,
    Fields,
    FlagOf,
    Interface,
    ListOf,
    MapOf,
    Method,
    ObjectOf,
    Ref,
    StreamOf,
    TupleOf,
    Type,
    UnionOf,
)

Change = Callable[[Type], Type]


def types_in(found: Type | None) -> Iterator[Type]:
    """Yield a type and all in it; what names refer to is not followed."""
    todo = [] if found is None else [found]
    while todo:
        part = todo.pop()
        yield part
        todo += part.parts


def bare(found: Type) -> Type:
    """Return a type without its bounds and notes."""
    while isinstance(found, Constrained):
        found = found.inner
    return found


def resolved(found: Type, schemas: Mapping[str, Type]) -> Type:
    """Return what a type is in the end, without names that only stand for others, bounds and notes."""
    while True:
        if isinstance(found, Constrained):
            found = found.inner
        elif isinstance(found, AliasOf):
            found = found.target
        elif isinstance(found, Ref):
            found = schemas[found.name]
        else:
            return found


def methods_in(document: Document) -> Iterator[Method]:
    """Yield all methods: of services and of interfaces."""
    yield from document.methods
    for interface in document.interfaces.values():
        yield from interface.methods


def living_in(schemas: Mapping[str, Type]) -> frozenset[str]:
    """Return the names of those types whose values may hold streams or objects."""
    holders: dict[str, set[str]] = {name: set() for name in schemas}
    todo: list[str] = []
    for name, schema in schemas.items():
        for part in types_in(schema):
            if isinstance(part, Ref):
                holders[part.name].add(name)
            elif isinstance(part, StreamOf | ObjectOf):
                todo.append(name)
    living: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in living:
            living.add(name)
            todo += holders[name]
    return frozenset(living)


def without_end(schemas: Mapping[str, Type]) -> frozenset[str]:
    """Return the names of aliases that lead to themselves, or to others that do: what is in them has no bounds."""
    inner: dict[str, set[str]] = {}
    users: dict[str, set[str]] = {name: set() for name in schemas}
    for name, schema in schemas.items():
        if isinstance(schema, AliasOf):
            refs = {part.name for part in types_in(schema) if isinstance(part, Ref)}
            inner[name] = {ref for ref in refs if isinstance(schemas[ref], AliasOf)}
            for ref in inner[name]:
                users[ref].add(name)
    todo = [name for name, refs in inner.items() if not refs]
    while todo:
        ended = todo.pop()
        del inner[ended]
        for name in users[ended]:
            inner[name].discard(ended)
            if not inner[name]:
                todo.append(name)
    return frozenset(inner)


def hashed_in(document: Document) -> frozenset[str]:
    """Return the names of classes whose objects are keys of maps, or in sets: they have to have a hash."""
    everywhere = [*document.schemas.values()]
    for method in methods_in(document):
        everywhere += [param.type for param in method.params]
        everywhere += [] if method.result is None else [method.result]
    todo: list[Type] = []
    for whole in everywhere:
        for part in types_in(whole):
            if isinstance(part, MapOf):
                todo.append(part.key)
            elif isinstance(part, ListOf) and part.kind in ("set", "frozenset"):
                todo.append(part.item)
    found: set[str] = set()
    while todo:
        for part in types_in(todo.pop()):
            if isinstance(part, Ref) and part.name not in found:
                found.add(part.name)
                todo.append(document.schemas[part.name])
    return frozenset(found)


def with_names(document: Document) -> Document:
    """Return a document in which each class and each enum has a name, and each field one that a class may have.

    All documents of seqrpc are so; in others a class whose fields cannot be attributes becomes a ``TypedDict``.
    """
    lifting = _Lifting(document)
    methods = tuple(map(lifting.method, document.methods))
    interfaces = {key: lifting.interface(one) for key, one in document.interfaces.items()}
    schemas = {name: lifting.schema(name, schema) for name, schema in document.schemas.items()}
    everything = {name: _as_dict(schema) for name, schema in {**schemas, **lifting.lifted}.items()}
    return msgspec.structs.replace(document, methods=methods, interfaces=interfaces, schemas=everything)


def _as_dict(schema: Type) -> Type:
    if not isinstance(schema, Fields) or schema.is_array or all(may_be_renamed(one.wire_name) for one in schema.fields):
        return schema
    return msgspec.structs.replace(schema, kind="typeddict", tag=None, forbids_unknown=False)


def may_be_renamed(wire_name: str) -> bool:
    """Return whether a field of a Struct may have a name on the wire, by msgspec."""
    return bool(wire_name) and not any(char in '\\"' or char < " " for char in wire_name)


class _Lifting:
    """Gives names to classes that stand where they are used."""

    def __init__(self, document: Document) -> None:
        self._names = Names(document.schemas)
        self.lifted: dict[str, Type] = {}

    def method(self, method: Method) -> Method:
        params = tuple(
            msgspec.structs.replace(param, type=self._named(param.type, method.short_name, param.name))
            for param in method.params
        )
        result = None if method.result is None else self._named(method.result, method.short_name, "Result")
        return msgspec.structs.replace(method, params=params, result=result)

    def interface(self, interface: Interface) -> Interface:
        return msgspec.structs.replace(interface, methods=tuple(map(self.method, interface.methods)))

    def schema(self, name: str, schema: Type) -> Type:
        """Return what has a name already, with names for what is in it."""
        return changed(schema, lambda part: self._named(part, name))

    def _named(self, found: Type, *around: str) -> Type:
        inside = changed(found, lambda part: self._named(part, *around))
        if not isinstance(inside, Fields | EnumOf | FlagOf):
            return inside
        wanted = identifier_like(inside.title, "") or "_".join(identifier_like(word, "") for word in around)
        name = self._names.claim(wanted or "Value")
        self.lifted[name] = inside
        return Ref(name)


def changed(found: Type, change: Change) -> Type:
    """Return a type whose parts are what ``change`` makes of them; the type itself if that changes none."""
    parts = found.parts
    made = tuple(map(change, parts))
    if all(new is old for new, old in zip(made, parts, strict=True)):
        return found
    return _remade(found, made)


def _remade(found: Type, parts: tuple[Type, ...]) -> Type:
    """Return a type with other parts."""
    replace = msgspec.structs.replace
    if isinstance(found, Fields):
        return replace(found, fields=tuple(map(_with_type, found.fields, parts)))
    if isinstance(found, TupleOf | UnionOf):
        return type(found)(parts)
    if isinstance(found, MapOf):
        return MapOf(*parts)
    names = {ListOf: "item", StreamOf: "item", AliasOf: "target"}
    return replace(found, **{names.get(type(found), "inner"): parts[0]})


def _with_type(field: Field, found: Type) -> Field:
    return msgspec.structs.replace(field, type=found)
