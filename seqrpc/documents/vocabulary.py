"""What things are called in code that is made of a document: modules, classes, and types as annotations.

A class may have a method ``list``, or a field ``datetime``. Within it these names mean the method and the field to type
checkers, so what is called like an attribute of any class is imported under another name.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, Final

from seqrpc.documents.identifiers import Names, camel_case, identifier_like
from seqrpc.documents.layout import Brackets, Node, assigned, bytes_literal, flat, text_literal
from seqrpc.documents.trees import (
    AliasOf,
    Anything,
    BufferType,
    Coded,
    Constrained,
    Descriptor,
    Document,
    EnumOf,
    Fields,
    FlagOf,
    ListOf,
    LiteralOf,
    MapOf,
    Memory,
    ObjectOf,
    Ref,
    Scalar,
    StreamOf,
    TupleOf,
    Type,
    UnionOf,
)
from seqrpc.documents.walks import living_in, methods_in, without_end

MODULES: Final = (
    "builtins",
    "collections.abc",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "ipaddress",
    "pathlib",
    "typing",
    "uuid",
)
"""Those of Python that code may need; it needs msgspec and seqrpc besides."""

_BUILTINS: Final = (
    "NotImplementedError",
    "bool",
    "bytearray",
    "bytes",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "memoryview",
    "set",
    "str",
    "tuple",
)

_SCALARS: Final = {
    "datetime": ("datetime", "datetime"),
    "date": ("datetime", "date"),
    "time": ("datetime", "time"),
    "timedelta": ("datetime", "timedelta"),
    "UUID": ("uuid", "UUID"),
    "Decimal": ("decimal", "Decimal"),
    "UnsetType": ("msgspec", "UnsetType"),
}

_SHORT: Final = 25  # characters of a type that has no need of another name, and of such names

CODED: Final = {
    **dict.fromkeys(("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath"), "pathlib"),
    **{f"IPv{version}{kind}": "ipaddress" for version in (4, 6) for kind in ("Address", "Network", "Interface")},
}
"""Classes that travel as something else and are known everywhere, and their modules."""

_WORDS: Final = ("title", "description")

_BOUNDS: Final = ("ge", "gt", "le", "lt", "multiple_of", "pattern", "min_length", "max_length", "tz", *_WORDS)


class Side(enum.Enum):
    """Who is to read a type: a stream is another thing to those who block."""

    ASYNC = "async"
    GIVEN = "given"
    """Who blocks, as an argument."""
    TAKEN = "taken"
    """Who blocks, as a result, or as a field."""


class Vocabulary:
    """The names in one module.

    Args:
        document: what it is made of, with names for all classes.
    """

    def __init__(self, document: Document) -> None:
        """Name what the document has a name for."""
        self.document = document
        self.attributes = frozenset(_attributes(document)) | {"version"}
        taken = {module.partition(".")[0] for module in (*MODULES, "msgspec", "seqrpc")} | set(_BUILTINS)
        self.names = Names({*taken, "ClassVar"})
        self._second: dict[str, str] = {}
        self._imports: set[str] = set()
        self.living = living_in(document.schemas)
        self._without_end = without_end(document.schemas)
        self._classes = {name: self.names.claim(identifier_like(name, "Value")) for name in document.schemas}
        self._blocking = {name: self.names.claim(f"Blocking{self._classes[name]}") for name in sorted(self.living)}
        self.objects: dict[tuple[str, Side], str] = {}
        """The classes of objects, by the keys of their interfaces and who reads; named by whoever writes them."""
        self._aliases: dict[str, tuple[str, Node]] = {}  # by how they would be spelled

    # Modules and what is in them

    def imports(self) -> list[str]:
        """Return the lines that import what was named until now."""
        ours = {"msgspec", "seqrpc", "seqrpc.blocking"}
        groups = [sorted(self._imports - ours), sorted(self._imports & ours)]
        return [line for group in groups if group for line in (*map(self._import, group), "")][:-1]

    def _import(self, module: str) -> str:
        if module.partition(".")[0] not in self.attributes:
            return f"import {module}"
        return f"import {module} as {self._second_name(module.replace('.', '_'))}"

    def module(self, module: str) -> str:
        """Return what a module is called, which is imported then."""
        self._imports.add(module)
        if module.partition(".")[0] not in self.attributes:
            return module
        return self._second_name(module.replace(".", "_"))

    def builtin(self, name: str) -> str:
        """Return what something of Python's own is called."""
        return f"{self.module('builtins')}.{name}" if name in self.attributes else name

    def _second_name(self, name: str) -> str:
        """Return another name of what is called like an attribute; within classes it means nothing else."""
        if name not in self._second:
            second = f"{name}_" if name.startswith("_") else f"_{name}"  # classes change two underscores
            while second in self.attributes or second in self.names:
                second += "_"
            self._second[name] = self.names.claim(second)
        return self._second[name]

    def class_of(self, name: str, side: Side = Side.ASYNC) -> str:
        """Return the name that the class of a schema is defined with."""
        return self._blocking[name] if side is not Side.ASYNC and name in self.living else self._classes[name]

    def seen(self, name: str) -> str:
        """Return what a class of this module is called where it is used."""
        return self._second_name(name) if name in self.attributes else name

    def also(self, name: str) -> list[str]:
        """Return the lines, after the definition of a class, that give it the name by which it is used."""
        return ["", "", *assigned(self.seen(name), name)] if name in self.attributes else []

    # Types

    def annotation(self, found: Type, side: Side, room: int, *wanted: str) -> str:
        """Return the annotation of a type; what does not fit in the room gets a name.

        Args:
            found: the type.
            side: who reads it.
            room: how many characters there are for it.
            wanted: words for the name.
        """
        text = flat(self.node(found, side))
        if len(text) <= max(room, _SHORT):
            return text
        known = self._aliases.get(text)
        if known is None:
            words = camel_case(*(identifier_like(one, "") for one in wanted))
            name = self.names.claim(identifier_like(words[:_SHORT], "Value"))
            known = self._aliases[text] = (name, self.node(found, side, quoted=True))
        return self.seen(known[0])

    def alias_lines(self) -> Iterator[str]:
        """Yield the lines of the definitions of names that were given to long types."""
        for name, node in self._aliases.values():
            yield from self.alias(name, node)

    def alias(self, name: str, node: Node) -> Iterator[str]:
        """Yield the lines of the definition of a name that stands for a type."""
        yield from assigned(f"{name}: {self.module('typing')}.TypeAlias", node)
        if name in self.attributes:
            yield from assigned(self.seen(name), name)

    def node(self, found: Type, side: Side, *, quoted: bool = False) -> Node:
        """Return a type as code.

        Args:
            found: the type.
            side: who reads it.
            quoted: whether it is read at once, and names of classes are not yet known.
        """
        if isinstance(found, AliasOf) or (isinstance(found, Coded) and found.class_name not in CODED):
            return self.node(found.parts[0], side, quoted=quoted)
        if isinstance(found, Ref | ObjectOf):
            name = self._name(found, side)
            return text_literal(name) if quoted else name
        if isinstance(found, UnionOf | Constrained | LiteralOf):
            return self._form(found, side, quoted=quoted)
        if isinstance(found, ListOf | TupleOf | MapOf | StreamOf):
            return self._container(found, side, quoted=quoted)
        return self._leaf(found)

    def _form(self, found: UnionOf | Constrained | LiteralOf, side: Side, *, quoted: bool) -> Node:
        """Return what the typing module has a form for."""
        parts = tuple(self.node(part, side, quoted=quoted) for part in found.parts)
        if isinstance(found, UnionOf) and not quoted:
            return " | ".join(map(flat, parts))
        typing = self.module("typing")
        if isinstance(found, UnionOf):
            return Brackets(f"{typing}.Union[", parts, "]")
        if isinstance(found, Constrained):
            return Brackets(f"{typing}.Annotated[", (*parts, *self._notes(found)), "]")
        return Brackets(f"{typing}.Literal[", tuple(map(literal, found.values)), "]")

    def _name(self, found: Ref | ObjectOf, side: Side) -> str:
        if isinstance(found, Ref):
            return self.seen(self.class_of(found.name, side))
        return self.seen(self.objects[found.interface, side])

    def _container(self, found: Type, side: Side, *, quoted: bool) -> Node:
        parts = tuple(self.node(part, side, quoted=quoted) for part in found.parts)
        if isinstance(found, StreamOf):
            before = {
                Side.ASYNC: ("collections.abc", "AsyncIterator"),
                Side.GIVEN: ("collections.abc", "Iterator"),
                Side.TAKEN: ("seqrpc.blocking", "Stream"),
            }[side]
            return Brackets(f"{self.module(before[0])}.{before[1]}[", parts, "]")
        kind = found.kind if isinstance(found, ListOf) else "dict" if isinstance(found, MapOf) else "tuple"
        ends = ("...",) if isinstance(found, ListOf) and kind == "tuple" else () if parts else ("()",)
        return Brackets(f"{self.builtin(kind)}[", (*parts, *ends), "]")

    def _leaf(self, found: Type) -> str:
        if isinstance(found, Scalar):
            if found.name in _SCALARS:
                module, name = _SCALARS[found.name]
                return f"{self.module(module)}.{name}"
            return "None" if found.name == "None" else self.builtin(found.name)
        if isinstance(found, Coded):
            return f"{self.module(CODED[found.class_name])}.{found.class_name}"
        if isinstance(found, Memory):
            return self.builtin("memoryview")
        if isinstance(found, Descriptor | BufferType):
            return f"{self.module('seqrpc')}.{'OwnedFd' if isinstance(found, Descriptor) else 'Buffer'}"
        assert isinstance(found, Anything)
        return f"{self.module('typing')}.Any"

    def _notes(self, found: Constrained) -> Iterator[Node]:
        bounds = found.bounds
        has_bounds = not (isinstance(found.inner, Ref) and found.inner.name in self._without_end)  # nobody checks them
        told = [(name, getattr(bounds, name)) for name in (_BOUNDS if has_bounds else _WORDS)]
        keys = [f"{name}={literal(value)}" for name, value in told if value is not None]
        examples = (before("examples=", json_node(list(bounds.examples))),) if bounds.examples else ()
        if keys or examples:
            yield Brackets(f"{self.module('msgspec')}.Meta(", (*keys, *examples), ")")
        if bounds.sensitive:
            yield f"{self.module('seqrpc')}.SENSITIVE"


def literal(value: Any) -> str:
    """Return the literal of a value without parts."""
    if isinstance(value, str):
        return text_literal(value)
    return bytes_literal(value) if isinstance(value, bytes) else repr(value).replace("e+", "e")  # as ruff writes floats


def json_node(value: Any) -> Node:
    """Return a value of JSON as code."""
    if isinstance(value, list):
        return Brackets("[", tuple(map(json_node, value)), "]", is_literal=True)
    if isinstance(value, dict):
        items = tuple(before(f"{text_literal(key)}: ", json_node(one)) for key, one in value.items())
        return Brackets("{", items, "}", is_literal=True)
    return literal(value)


def before(text: str, node: Node) -> Node:
    """Return code with something before it: a keyword, a key."""
    if isinstance(node, str):
        return f"{text}{node}"
    return Brackets(f"{text}{node.before}", node.items, node.after, node.is_literal)


def _attributes(document: Document) -> Iterator[str]:
    """Yield what attributes of classes are called, or may be called in their place."""
    for name in _written_names(document):
        yield name
        yield identifier_like(name, name)


def _written_names(document: Document) -> Iterator[str]:
    for method in methods_in(document):
        yield method.short_name
    for schema in document.schemas.values():
        if isinstance(schema, Fields):
            yield from (field.name for field in schema.fields)
        elif isinstance(schema, EnumOf | FlagOf):
            yield from (name for name, _value in schema.members)
