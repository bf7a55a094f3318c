"""Types and signatures as HTML, in Python's spelling, with links to what has a name."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, LiteralString

from seqrpc.documents.markup import MOST_OF_NAME, Markup, anchor, element, joined, literal, name, text, to
from seqrpc.documents.spellings import default_text
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

MOST_OF_VALUE: Final = 400
"""The most characters that are shown of a default, a pattern, an example."""

_LONGEST_LINE: Final = 76
"""Characters of a signature that stands on one line: as a screen beside the contents has it."""

_MOST_CHOICES: Final = 40
"""The values of a ``Literal`` that a signature shows."""

_TAG: Final = re.compile("<[^>]*>")

_UNSET: Final = "UnsetType"

_BESIDES: Final[dict[type[Type], tuple[LiteralString, LiteralString]]] = {
    Descriptor: ("descriptor", "OwnedFd"),
    BufferType: ("buffer", "Buffer"),
    Memory: ("memory", "memoryview"),
    StreamOf: ("stream", "stream"),
}
"""What travels besides data: what its explanation is called, and how Python spells it."""


def type_of(kind: Type) -> Markup:
    """Return a type, as an annotation spells it. Bounds are left out: :func:`bounds_of` has them."""
    return _SPELLERS[type(kind)](kind)


def signature(method: Method) -> Markup:
    """Return a method's signature: on one line, or with a line for each parameter if it is long."""
    params = [*_params(method.params)]
    result = literal("None") if method.result is None else type_of(method.result)
    opening = joined([element("b", name(method.short_name)), text("(")])
    closing = joined([literal(") -&gt; "), result])
    if _width(opening) + sum(_width(param) + 2 for param in params) + _width(closing) <= _LONGEST_LINE:
        return joined([opening, joined(params, ", "), closing])
    return joined([opening, *[joined([text("\n    "), param, text(",")]) for param in params], text("\n"), closing])


def default(given: Default) -> Markup:
    """Return what a parameter or field is that is not given."""
    return name(repr(given.value) if given.words is None else given.words, MOST_OF_VALUE)


def bounds_of(kind: Type) -> list[Markup]:
    """Return what must hold for values of a type besides the type itself, each in some words."""
    found: list[Markup] = []
    waiting: list[tuple[Type, bool]] = [(kind, True)]
    while waiting:
        one, is_whole = waiting.pop()
        if isinstance(one, Constrained):
            about = () if is_whole else (element("code", type_of(one.inner)), text(": "))
            found += [joined([*about, words]) for words in _words(one.bounds, one.inner)]
            waiting.append((one.inner, is_whole))
        elif isinstance(one, Coded):
            found.append(joined([element("code", name(one.class_name)), text(" travels as "), _code(one.inner)]))
            waiting.append((one.inner, False))
        else:
            waiting += [(part, False) for part in reversed(one.parts)]
    return [*dict.fromkeys(found)]


def notes_of(kind: Type) -> str:
    """Return what is written beside a type, as a docstring."""
    found: list[str] = []
    while isinstance(kind, Constrained):
        found += [words for words in (kind.bounds.title, kind.bounds.description) if words]
        kind = kind.inner
    return "\n\n".join(found)


def _code(kind: Type) -> Markup:
    return element("code", type_of(kind))


def _literal(kind: Any) -> Markup:
    told = [name(repr(value)) for value in kind.values[:_MOST_CHOICES]]
    if len(kind.values) > _MOST_CHOICES:
        told.append(name(f"… {len(kind.values)} values"))
    return joined([text("Literal["), joined(told, ", "), text("]")])


def _list(kind: Any) -> Markup:
    ending = literal(", ...]" if kind.kind == "tuple" else "]")
    return joined([name(kind.kind), text("["), type_of(kind.item), ending])


def _tuple(kind: Any) -> Markup:
    items = joined([type_of(item) for item in kind.items], ", ") or text("()")
    return joined([text("tuple["), items, text("]")])


def _union(kind: Any) -> Markup:
    return joined([type_of(one) for one in kind.choices if not (isinstance(one, Scalar) and one.name == _UNSET)], " | ")


def _fields(kind: Any) -> Markup:
    """Return a class that has no name in the document, as other OpenRPC servers write them."""
    told = [joined([name(field.wire_name), text(": "), type_of(field.type)]) for field in kind.fields]
    return joined([text("{"), joined(told, ", "), text("}")])


def _about(kind: Type) -> Markup:
    what, spelled = _BESIDES[type(kind)]
    return element("a", literal(spelled), href=to(anchor(what, "about")))


_SPELLERS: Final[dict[type[Type], Callable[[Any], Markup]]] = {
    Anything: lambda _kind: literal("Any"),
    Scalar: lambda kind: name(kind.name),
    LiteralOf: _literal,
    ListOf: _list,
    TupleOf: _tuple,
    MapOf: lambda kind: joined([text("dict["), type_of(kind.key), text(", "), type_of(kind.value), text("]")]),
    UnionOf: _union,
    Ref: lambda kind: element("a", name(kind.name), href=to(anchor(kind.name, "type"))),
    Coded: lambda kind: name(kind.class_name),
    Descriptor: _about,
    BufferType: _about,
    Memory: _about,
    StreamOf: lambda kind: joined([_about(kind), text(" of "), type_of(kind.item)]),
    ObjectOf: lambda kind: element("a", name(kind.interface), href=to(anchor(kind.interface, "object"))),
    Constrained: lambda kind: type_of(kind.inner),
    Fields: _fields,
    EnumOf: lambda kind: name(kind.title or "Enum"),
    FlagOf: lambda kind: name(kind.title or "Flag"),
    AliasOf: lambda kind: type_of(kind.target),
}


def _params(params: Iterable[Param]) -> Iterator[Markup]:
    """Yield the parameters, with the slash and the star between them that tell how they are given."""
    was_positional = was_keyword = False
    for param in params:
        if was_positional and not param.positional_only:
            yield text("/")
        if param.keyword_only and not was_keyword:
            yield text("*")
        was_positional, was_keyword = param.positional_only, was_keyword or param.keyword_only
        yield joined(_param(param))
    if was_positional:
        yield text("/")


def _param(param: Param) -> Iterator[Markup]:
    yield name(param.name)
    if param.annotated:
        yield joined([text(": "), type_of(param.type)])
    if not param.required:
        spelled = name(default_text(param.default))
        yield joined([text(" = " if param.annotated else "="), spelled])


def _width(piece: Markup) -> int:
    """Return how many characters of some HTML are seen."""
    return len(html.unescape(_TAG.sub("", piece)))


def _words(bounds: Bounds, inner: Type) -> Iterator[Markup]:
    """Yield what some bounds demand."""
    for words, value in (
        ("at least", bounds.ge),
        ("more than", bounds.gt),
        ("at most", bounds.le),
        ("less than", bounds.lt),
        ("a multiple of", bounds.multiple_of),
    ):
        if value is not None:
            yield name(f"{words} {value}")
    if bounds.min_length is not None or bounds.max_length is not None:
        yield name(f"{_range(bounds.min_length, bounds.max_length)} {_counted(inner)}")
    if bounds.pattern is not None:
        yield joined([text("has a match of "), element("code", name(bounds.pattern, MOST_OF_VALUE))])
    if bounds.tz is not None:
        yield literal("with a time zone" if bounds.tz else "without a time zone")
    if bounds.sensitive:
        yield literal("sensitive: it is in no log")
    if bounds.examples:
        told = [element("code", name(repr(example), MOST_OF_NAME)) for example in bounds.examples[:_MOST_CHOICES]]
        yield joined([text("for example "), joined(told, ", ")])


def _range(least: int | None, most: int | None) -> str:
    if least is None:
        return f"at most {most}"
    if most is None:
        return f"at least {least}"
    return f"{least}" if least == most else f"{least} to {most}"


def _counted(kind: Type) -> str:
    """Return what the length of a value counts."""
    while isinstance(kind, Constrained):
        kind = kind.inner
    match kind:
        case Scalar(name="bytes" | "bytearray") | Memory():
            return "bytes"
        case ListOf() | TupleOf():
            return "items"
        case MapOf() | Fields():
            return "entries"
        case _:
            return "characters"
