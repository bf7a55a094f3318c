"""What the page has of each method, type and error: articles in groups, from which its contents are made, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, LiteralString

from seqrpc.documents.hypertext import bounds_of, default, notes_of, signature, type_of
from seqrpc.documents.markup import MOST_OF_NAME, Markup, anchor, element, joined, literal, name, text, to
from seqrpc.documents.prose import described, inline, prose
from seqrpc.documents.recipes import Recipes
from seqrpc.documents.trees import (
    AliasOf,
    Default,
    Document,
    EnumOf,
    Failure,
    Field,
    Fields,
    FlagOf,
    Interface,
    Method,
    Param,
    Service,
    StreamOf,
    Type,
)

MOST_OF_LINE: Final = 600
"""The most characters that are shown of a line that calls a method, and of a rule."""

_NO_LINE: Final = "# It takes an object, which only programs have."

_NOTHING: Final = literal("")

_KINDS: Final[dict[str, LiteralString]] = {
    "dataclass": "A dataclass.",
    "struct": "A Struct.",
    "attrs": "A class of attrs.",
    "typeddict": "A TypedDict.",
    "namedtuple": "A NamedTuple.",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A method, a type, or an error.

    Args:
        label: how the contents name it.
        target: its id.
        parts: what there is to know of it, under its heading.
        title: its whole name, in its heading.
    """

    label: Markup
    target: str
    title: Markup
    parts: Markup


@dataclass(frozen=True, slots=True)
class Group:
    """Entries under one heading.

    Args:
        title: the heading, and what the contents have.
        target: its id.
        intro: what is said of them all.
        entries: the entries, in order.
    """

    title: Markup
    target: str
    intro: Markup
    entries: list[Entry]

    def section(self) -> Markup:
        """Return the group as a section of the page."""
        articles = [
            element("article", _heading("h3", entry.title, entry.target), entry.parts, class_="entry", id=entry.target)
            for entry in self.entries
        ]
        return element(
            "section", _heading("h2", self.title, self.target), self.intro, *articles, class_="group", id=self.target
        )

    def contents(self) -> Markup:
        """Return the group as an item of the contents."""
        items = [
            element("li", element("a", entry.label, href=to(entry.target)), class_="entry") for entry in self.entries
        ]
        inner = element("ul", *items) if items else _NOTHING
        return element("li", element("a", self.title, href=to(self.target)), inner, class_="group")


def service_group(service: Service, methods: list[Method], recipes: Recipes | None) -> Group:
    """Return what there is to know of a service; without recipes it is not told how its methods are called."""
    title = joined([text("Service "), _code(service.name)]) if service.name else literal("Methods")
    intro = [prose(service.description)]
    if service.bases:
        bases = joined([_code(base) for base in service.bases], ", ")
        intro.append(element("p", text("It has what these have: "), bases, text("."), class_="note"))
    entries = [
        Entry(
            _code(method.short_name),
            anchor(method.name),
            _code(method.name),
            joined(_method(method, recipes, "connection")),
        )
        for method in methods
    ]
    return Group(title, anchor(service.name, "service"), joined(intro), entries)


def interface_group(key: str, interface: Interface, recipes: Recipes | None) -> Group:
    """Return what there is to know of objects that are given away."""
    target = anchor(key, "object")
    intro = joined(
        [
            prose(interface.description),
            literal(
                '<p class="note">An object is called where it is: whoever holds it may call it until it lets go.</p>'
            ),
        ]
    )
    entries = [
        _method_entry(method, f"{target}/{anchor(method.name)}", _method(method, recipes, ""))
        for method in interface.methods
    ]
    return Group(joined([text("Object "), _code(key)]), target, intro, entries)


def type_group(schemas: Mapping[str, Type]) -> Group:
    """Return what there is to know of the types that have names."""
    entries = [
        Entry(_code(key), anchor(key, "type"), _code(key), joined(_type(schemas[key])))
        for key in sorted(schemas, key=lambda key: (key.casefold(), key))
    ]
    return Group(literal("Types"), "page:types", _NOTHING, entries)


def error_group(document: Document) -> Group:
    """Return what there is to know of the errors that methods declare, and which do."""
    declared: dict[str, list[tuple[Failure, Markup]]] = {}
    for target, method in _all_methods(document):
        for failure in method.errors:
            link = element("a", _code(method.name), href=to(target))
            declared.setdefault(failure.code, []).append((failure, link))
    entries = [
        Entry(_code(code), anchor(code, "error"), _code(code), joined(_error(declared[code])))
        for code in sorted(declared)
    ]
    return Group(literal("Errors"), "page:errors", _NOTHING, entries)


def _all_methods(document: Document) -> Iterator[tuple[str, Method]]:
    for method in document.methods:
        yield anchor(method.name), method
    for key, interface in document.interfaces.items():
        for method in interface.methods:
            yield f"{anchor(key, 'object')}/{anchor(method.name)}", method


def _method_entry(method: Method, target: str, parts: Iterator[Markup]) -> Entry:
    return Entry(_code(method.short_name), target, _code(method.name), joined(parts))


def _method(method: Method, recipes: Recipes | None, callee: LiteralString) -> Iterator[Markup]:
    body, told = described(method.description, {param.name for param in method.params})
    yield element("pre", element("code", signature(method)), class_="signature")
    yield _marks(method)
    if method.summary:
        yield element("p", inline(method.summary), class_="lead")
    yield body
    yield _part("Parameters", [piece for param in method.params for piece in _param(param, told)])
    yield _heading("h4", literal("Result"))
    if method.result is None:
        yield literal("<p>There is none, and no error either: it is a one-way call.</p>")
    else:
        yield element("p", element("code", type_of(method.result)))
        yield from _about(method.result, None)
    yield _part("Errors", [piece for failure in method.errors for piece in _failure(failure)])
    yield from _rule(method)
    if recipes is not None:
        yield from _calls(method, recipes, callee)


def _marks(method: Method) -> Markup:
    marks: list[tuple[bool, LiteralString, LiteralString | None]] = [
        (method.oneway, "one-way", None),
        (method.streams or isinstance(method.result, StreamOf), "stream", None),
        (method.idempotent, "idempotent", None),
        (method.sensitive, "sensitive", None),
        (method.allowed is True, "allowed", "good"),
        (method.allowed is False, "not allowed", "bad"),
    ]
    shown = [element("li", literal(words), class_=kind) for is_so, words, kind in marks if is_so]
    return element("ul", *shown, class_="marks") if shown else _NOTHING


def _param(param: Param, told: dict[str, Markup]) -> Iterator[Markup]:
    ways = [literal("by position only")] if param.positional_only else []
    if param.keyword_only:
        ways.append(literal("by name only"))
    if not param.annotated:
        ways.append(literal("without annotation"))
    yield _term(param.name, param.type, [_presence(param.default, is_required=param.required), *ways])
    yield element("dd", *_about(param.type, told.get(param.name)))


def _field(field: Field, told: dict[str, Markup]) -> Iterator[Markup]:
    ways: list[Markup] = []
    if field.name != field.wire_name:
        ways.append(joined([_code(field.wire_name), text(" on the wire")]))
    if not field.in_init:
        ways.append(literal("not an argument of the constructor"))
    yield _term(field.name, field.type, [_presence(field.default, is_required=field.required), *ways])
    yield element("dd", *_about(field.type, told.get(field.name)))


def _term(called: str, kind: Type, facts: list[Markup]) -> Markup:
    """Return the line of a parameter or a field: its name, its type, and what else is short."""
    typed = element("code", element("b", name(called)), text(": "), type_of(kind))
    return element("dt", typed, text(" "), element("span", joined(facts, ", "), class_="default"))


def _presence(given: Default | None, *, is_required: bool) -> Markup:
    if is_required:
        return literal("required")
    if given is None or given.words == "...":  # there is one, which nobody can write
        return literal("optional")
    return joined([text("default "), element("code", default(given))])


def _about(kind: Type, docstring: Markup | None) -> Iterator[Markup]:
    """Yield what is said of values of a type: in the docstring, beside the annotation, and by its bounds."""
    if docstring is not None:
        yield element("div", docstring)
    yield prose(notes_of(kind))
    bounds = bounds_of(kind)
    if bounds:
        yield element("p", joined(bounds, "; "), class_="note")


def _failure(failure: Failure) -> Iterator[Markup]:
    yield element("dt", element("a", _code(failure.code), href=to(anchor(failure.code, "error"))))
    yield element("dd", prose(failure.description))


def _rule(method: Method) -> Iterator[Markup]:
    if not method.rule and method.allowed is None:
        return
    yield _heading("h4", literal("Who may call it"))
    if method.rule:
        yield element("p", element("code", name(method.rule, MOST_OF_LINE)))
    if method.allowed is not None:
        mark = literal(
            '<strong class="good">may</strong>' if method.allowed else '<strong class="bad">may not</strong>'
        )
        yield element("p", text("Whoever asked for this page "), mark, text(" call it."))


def _calls(method: Method, recipes: Recipes, callee: LiteralString) -> Iterator[Markup]:
    yield _heading("h4", literal("How to call it"))
    lines: list[tuple[LiteralString, str]] = []
    if callee:
        lines.append(("On a command line", recipes.command_line(method) or _NO_LINE))
    lines.append(("In Python with asyncio", recipes.python(method, callee or "holder", is_async=True)))
    lines.append(("In Python without an event loop", recipes.python(method, callee or "holder", is_async=False)))
    for where, line in lines:
        yield element("p", literal(where), class_="part note")
        yield element("pre", _code(line, MOST_OF_LINE))


def _type(kind: Type) -> Iterator[Markup]:
    if isinstance(kind, Fields):
        yield from _fields(kind)
    elif isinstance(kind, EnumOf | FlagOf):
        body, told = described(kind.description, {member for member, _value in kind.members})
        yield literal('<p class="note">An enum.</p>' if isinstance(kind, EnumOf) else '<p class="note">Flags.</p>')
        yield body
        yield element("dl", *[piece for member, value in kind.members for piece in _member(member, value, told)])
    else:
        target = kind.target if isinstance(kind, AliasOf) else kind
        yield element("pre", element("code", type_of(target)), class_="signature")
        yield from _about(target, None)


def _fields(kind: Fields) -> Iterator[Markup]:
    yield element("p", literal(_KINDS[kind.kind]), *_wire(kind), class_="note")
    body, told = described(kind.description, {field.name for field in kind.fields})
    yield body
    pieces = [piece for field in kind.fields for piece in _field(field, told)]
    yield element("dl", *pieces) if pieces else literal("<p>It has no fields.</p>")


def _wire(kind: Fields) -> Iterator[Markup]:
    """Yield what else there is to know of a class."""
    if kind.is_array:
        yield literal(" On the wire it is an array of its fields in their order.")
    if kind.tag is not None:
        value = _code(repr(kind.tag.value))
        yield joined([text(" On the wire its "), _code(kind.tag.field), text(" is "), value, text(".")])
    if kind.forbids_unknown:
        yield literal(" Fields that it does not have are an error.")


def _member(member: str, value: object, told: dict[str, Markup]) -> Iterator[Markup]:
    spelled = element("code", element("b", name(member)), text(" = "), name(repr(value)))
    yield element("dt", spelled)
    yield element("dd", told.get(member, _NOTHING))


def _error(declared: list[tuple[Failure, Markup]]) -> Iterator[Markup]:
    yield prose(next((failure.description for failure, _link in declared if failure.description), ""))
    yield element("p", text("Raised by "), joined([link for _failure, link in declared], ", "), text("."))
    number = declared[0][0].number
    if number is not None:
        yield element("p", name(f"OpenRPC's number: {number}"), class_="note")


def _part(title: LiteralString, pieces: list[Markup]) -> Markup:
    """Return a heading and a list of terms under it, if there are any."""
    return joined([_heading("h4", literal(title)), element("dl", *pieces)]) if pieces else _NOTHING


def _heading(tag: LiteralString, content: Markup, target: str | None = None) -> Markup:
    """Return a heading, which is a link to itself if it is a target."""
    return element(tag, content if target is None else element("a", content, href=to(target)))


def _code(content: object, most: int = MOST_OF_NAME) -> Markup:
    return element("code", name(content, most) or literal("&#x27;&#x27;"))
