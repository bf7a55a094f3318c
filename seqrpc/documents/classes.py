"""The classes of a document as code: with fields, enums, flags, errors, and names that stand for other types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from seqrpc import errors as known_errors
from seqrpc.documents.identifiers import Names, attribute_names, identifier_like, is_attribute, member_names
from seqrpc.documents.layout import WIDTH, Brackets, Node, assigned, docstring, flat, lines, text_literal
from seqrpc.documents.trees import AliasOf, Default, Document, EnumOf, Failure, Field, Fields, FlagOf, Ref, Type
from seqrpc.documents.values import Values
from seqrpc.documents.vocabulary import Side, Vocabulary, before, literal
from seqrpc.documents.walks import hashed_in, may_be_renamed, methods_in, types_in

_INDENT: Final = 4


class Classes:
    """Writes the classes.

    Args:
        vocabulary: the names of the module.
        values: writes the defaults of fields.
    """

    def __init__(self, vocabulary: Vocabulary, values: Values) -> None:
        """Find out what has to have a hash."""
        self._vocabulary = vocabulary
        self._values = values
        self._document: Document = vocabulary.document
        self._frozen = hashed_in(self._document) | frozenset(_in_defaults(self._document))
        self.errors: dict[str, str] = {}
        """What the class of each error is called where it is used, by its code; once they are written."""

    def error_lines(self) -> Iterator[str]:
        """Yield the lines of the classes of errors."""
        declared = {error.code: error for method in methods_in(self._document) for error in method.errors}
        for code in sorted(filter(None, declared)):
            yield from self._error(declared[code])

    def _error(self, error: Failure) -> Iterator[str]:
        wanted = identifier_like(error.code.rpartition(".")[2], "Failure")
        seqrpc = self._vocabulary.module("seqrpc")
        if error.code.startswith("rpc."):  # those of seqrpc's own; of a later version nothing is known here
            if error.code in known_errors.RpcError._classes:  # noqa: SLF001 - who may be raised by which code
                self.errors[error.code] = f"{seqrpc}.{known_errors.RpcError._classes[error.code].__name__}"  # noqa: SLF001
            return
        name = self._vocabulary.names.claim(wanted)
        self.errors[error.code] = self._vocabulary.seen(name)
        bases: tuple[Node, ...] = (f"{seqrpc}.RpcError", f"code={text_literal(error.code)}", "shared=True")
        yield from self._class(name, bases, docstring("", error.description, indent=_INDENT), [])

    def enum_lines(self) -> Iterator[str]:
        """Yield the lines of enums and flags."""
        for name, schema in sorted(self._document.schemas.items()):
            if isinstance(schema, EnumOf | FlagOf):
                yield from self._enum(self._vocabulary.class_of(name), schema)

    def _enum(self, name: str, schema: EnumOf | FlagOf) -> Iterator[str]:
        kind = _enum_kind(schema)
        chosen = member_names(member for member, _value in schema.members)
        body = [
            line
            for member, value in schema.members
            for line in assigned(chosen[member], literal(value), indent=_INDENT)
        ]
        doc = docstring("", schema.description, indent=_INDENT)
        yield from self._class(name, (f"{self._vocabulary.module('enum')}.{kind}",), doc, body)

    def field_class_lines(self) -> Iterator[str]:
        """Yield the lines of classes with fields, each after those that its defaults are made of."""
        for name in self._in_order():
            schema = self._document.schemas[name]
            assert isinstance(schema, Fields)
            for side in (Side.ASYNC, Side.TAKEN) if name in self._vocabulary.living else (Side.ASYNC,):
                yield from self._fields(name, schema, side)
            self._values.known.add(name)

    def _in_order(self) -> Iterator[str]:
        """Yield the names of classes with fields, each after those that its defaults are made of, if that can be."""
        begun: set[str] = set()
        todo = [(name, False) for name in sorted(self._document.schemas, reverse=True)]
        while todo:
            name, is_ready = todo.pop()
            schema = self._document.schemas[name]
            if is_ready:
                if isinstance(schema, Fields):
                    yield name
            elif name not in begun:
                begun.add(name)
                todo.append((name, True))
                todo += [(inner, False) for inner in sorted(_needed(schema), reverse=True)]

    def alias_lines(self) -> Iterator[str]:
        """Yield the lines of names that stand for other types, each after the one that it stands for."""
        written: set[str] = set()
        for name in sorted(self._document.schemas):
            chain = []
            while name not in written and isinstance(schema := self._document.schemas[name], AliasOf):
                written.add(name)
                chain.append((name, schema.target))
                if not isinstance(schema.target, Ref):
                    break
                name = schema.target.name  # noqa: PLW2901 - along the chain, which has an end
            for one, target in reversed(chain):
                yield from self._alias(one, target)

    def _alias(self, name: str, target: Type) -> Iterator[str]:
        for side in (Side.ASYNC, Side.TAKEN) if name in self._vocabulary.living else (Side.ASYNC,):
            node = self._vocabulary.node(target, side, quoted=not isinstance(target, Ref))
            yield from self._vocabulary.alias(self._vocabulary.class_of(name, side), node)

    # Classes with fields

    def _fields(self, key: str, schema: Fields, side: Side) -> Iterator[str]:
        name = self._vocabulary.class_of(key, side)
        doc = docstring("", schema.description, indent=_INDENT)
        if schema.kind == "typeddict" and not schema.is_array:
            if all(is_attribute(field.wire_name) for field in schema.fields):
                yield from self._class(name, (self._typing("TypedDict"),), doc, self._keys(schema, side, name))
            else:
                yield from self._typed_dict(name, schema, side)
            return
        defaults = _with_defaults_last(schema, [self._default_of(field, side) for field in schema.fields])
        if schema.kind == "namedtuple":
            fields = list(zip(schema.fields, _tuple_names(schema), defaults, strict=True))
            yield from self._class(name, (self._typing("NamedTuple"),), doc, self._attributes(name, fields, side))
            return
        names = attribute_names((field.name for field in schema.fields), "field")
        fields = list(zip(schema.fields, names.values(), defaults, strict=True))
        renamed = {attribute: one.wire_name for one, attribute, _default in fields if attribute != one.wire_name}
        if schema.is_array and not all(map(may_be_renamed, renamed.values())):
            renamed = {}  # they are not on the wire
        is_struct = schema.kind == "struct" or schema.is_array or schema.forbids_unknown or bool(renamed)
        is_struct |= schema.tag is not None or schema.omits_defaults
        options = _options(schema, defaults, is_frozen=key in self._frozen, is_struct=is_struct)
        if is_struct:
            bases = (f"{self._vocabulary.module('msgspec')}.Struct", *_struct_options(schema, renamed), *options)
            yield from self._class(name, bases, doc, self._attributes(name, fields, side, "msgspec"))
            return
        decorator = f"@{self._vocabulary.module('dataclasses')}.dataclass"
        head = lines("", Brackets(f"{decorator}(", options, ")")) if options else [decorator]
        yield from self._class(
            name, (), doc, self._attributes(name, fields, side, "dataclasses"), decorators=list(head)
        )

    def _class(
        self, name: str, bases: tuple[Node, ...], doc: list[str], body: list[str], decorators: list[str] | None = None
    ) -> Iterator[str]:
        yield from ("", "", *(decorators or ()))
        yield from lines("class ", Brackets(f"{name}(", bases, ")") if bases else name, ":")
        yield from doc
        if doc and body:
            yield ""
        yield from body or ([] if doc else ["    pass"])
        yield from self._vocabulary.also(name)

    def _typing(self, name: str) -> str:
        return f"{self._vocabulary.module('typing')}.{name}"

    def _keys(self, schema: Fields, side: Side, name: str) -> list[str]:
        body: list[str] = []
        for field in schema.fields:
            wrapped = 0 if field.required else len(f"{self._typing('NotRequired')}[]")
            room = WIDTH - _INDENT - len(field.wire_name) - len(": ") - wrapped
            node: Node = self._vocabulary.annotation(field.type, side, room, name, field.wire_name)
            if wrapped:
                node = Brackets(f"{self._typing('NotRequired')}[", (node,), "]")
            body += lines(f"{field.wire_name}: ", node, indent=_INDENT)
        return body

    def _typed_dict(self, name: str, schema: Fields, side: Side) -> Iterator[str]:
        """Yield the lines of a TypedDict that has keys which are no names."""
        items = []
        for field in schema.fields:
            node = self._vocabulary.node(field.type, side, quoted=True)
            if not field.required:
                node = Brackets(f"{self._typing('NotRequired')}[", (node,), "]")
            items.append(before(f"{text_literal(field.wire_name)}: ", node))
        keys = Brackets("{", tuple(items), "}", is_literal=True)
        yield from ("", "")
        yield from assigned(name, Brackets(f"{self._typing('TypedDict')}(", (text_literal(name), keys), ")"))
        yield from self._vocabulary.also(name)

    def _default_of(self, field: Field, side: Side) -> Node | None:
        """Return the default of a field, or what makes one."""
        if field.default is not None and field.default.is_factory:
            return self._values.factory(field.type, field.default, side)
        node = self._values.default(field.type, field.default, side)
        if node is None and field.default == Default():  # None where the annotation has none, as many write it
            typing = self._vocabulary.module("typing")
            node = Brackets(f"{typing}.cast(", (f"{typing}.Any", "None"), ")")
        return node

    def _attributes(
        self, name: str, fields: Iterable[tuple[Field, str, Node | None]], side: Side, module: str = ""
    ) -> list[str]:
        """Return the lines of the fields of a class.

        Args:
            name: the class's.
            fields: each with its name in code, and its default.
            side: who reads it.
            module: that whose ``field`` says of a field more than its default; none where nothing can.
        """
        body: list[str] = []
        for field, attribute, default in fields:
            node = default
            if module:
                node = self._with_factory(field, default, f"{self._vocabulary.module(module)}.field(")
            elif node is not None and field.default is not None and field.default.is_factory:
                node = f"{flat(node)}()"
            least = 0 if node is None else 3 + len(node if isinstance(node, str) else node.before)
            room = WIDTH - _INDENT - len(attribute) - 2 - least
            head = f"{attribute}: {self._vocabulary.annotation(field.type, side, room, name, attribute)}"
            body += [f"    {head}"] if node is None else assigned(head, node, indent=_INDENT)
        return body

    def _with_factory(self, field: Field, default: Node | None, called: str) -> Node | None:
        options: list[Node] = ["init=False"] if not field.in_init and "dataclasses." in called else []
        if default is not None and field.default is not None and field.default.is_factory:
            if "msgspec." in called:  # Structs make a new one of these each time, and know it for the default
                kind = flat(default).partition("[")[0]
                empty = {"list": "[]", "dict": "{}", "set": f"{kind}()"}.get(kind.rpartition(".")[2])
                if empty is not None:
                    return empty
            options.append(before("default_factory=", default))
        elif default is not None and (flat(default).rpartition(".")[2] == "set()" or flat(default)[0] in "[{"):
            options.append(before("default_factory=lambda: ", default))
        elif options and default is not None:
            options.append(before("default=", default))
        return Brackets(called, tuple(options), ")") if options else default


def _enum_kind(schema: EnumOf | FlagOf) -> str:
    """Return what an enum is made of; one whose members would hide what numbers or texts have is a plain one."""
    if isinstance(schema, FlagOf):
        return "IntFlag" if schema.is_int else "Flag"
    base = {"int": int, "str": str}.get(schema.base)
    if base is None or any(hasattr(base, name) for name, _value in schema.members):
        return "Enum"
    return "IntEnum" if base is int else "StrEnum"


def _in_defaults(document: Document) -> Iterator[str]:
    """Yield the names of classes whose objects are defaults of fields: they must not change."""
    for schema in document.schemas.values():
        yield from _needed(schema)


def _needed(schema: Type) -> set[str]:
    """Return the names in the types of those fields that have objects for defaults."""
    fields = schema.fields if isinstance(schema, Fields) else ()
    with_objects = [
        field for field in fields if field.default is not None and isinstance(field.default.value, dict | list)
    ]
    return {part.name for field in with_objects for part in types_in(field.type) if isinstance(part, Ref)}


def _with_defaults_last(schema: Fields, defaults: list[Node | None]) -> list[Node | None]:
    """Return the defaults of fields; of what is an array only those after which no field has none."""
    if schema.is_array:
        last = max((index for index, default in enumerate(defaults) if default is None), default=-1)
        return [None] * (last + 1) + defaults[last + 1 :]
    return defaults


def _options(schema: Fields, defaults: list[Node | None], *, is_frozen: bool, is_struct: bool) -> tuple[Node, ...]:
    given = [default for field, default in zip(schema.fields, defaults, strict=True) if field.in_init or is_struct]
    first = next((index for index, default in enumerate(given) if default is not None), len(given))
    options = ["frozen=True"] if is_frozen else []
    return tuple([*options, "kw_only=True"] if None in given[first:] else options)


def _struct_options(schema: Fields, renamed: dict[str, str]) -> Iterator[Node]:
    if schema.tag is not None:
        yield f"tag={literal(schema.tag.value)}"
        if schema.tag.field != "type":
            yield f"tag_field={text_literal(schema.tag.field)}"
    if schema.is_array:
        yield "array_like=True"
    if schema.forbids_unknown:
        yield "forbid_unknown_fields=True"
    if schema.omits_defaults:
        yield "omit_defaults=True"
    if renamed:
        pairs = tuple(f"{text_literal(name)}: {text_literal(wire_name)}" for name, wire_name in renamed.items())
        yield Brackets("rename={", pairs, "}", is_literal=True)


def _tuple_names(schema: Fields) -> list[str]:
    """Return the names of a NamedTuple's fields in code, in their order; they are not on the wire."""
    names = Names()
    like = (identifier_like(field.name, "field") for field in schema.fields)
    return [names.claim(f"field{name}" if name.startswith("_") else name) for name in like]
