"""Types as ``describe`` shows them to people: classes with their fields, enums with their members."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

from seqrpc.cli.screen import Screen, Styled, clean_lines
from seqrpc.documents.spellings import default_text, spelled
from seqrpc.documents.trees import AliasOf, Constrained, EnumOf, Field, Fields, FlagOf, Type

INDENT: Final = "    "

_Part = TypeVar("_Part")

_KINDS: Final = {
    "dataclass": "a dataclass",
    "struct": "a Struct",
    "attrs": "a class of attrs",
    "typeddict": "a TypedDict",
    "namedtuple": "a NamedTuple",
}


def write_type(screen: Screen, name: str, kind: Type) -> None:
    """Write what a type is that has a name in a document."""
    if isinstance(kind, Fields):
        write_head(screen, name, f", {_KINDS[kind.kind]}", kind.description)
        facts = "; ".join(_facts(kind))
        if facts:
            screen.line(INDENT, Styled(facts, "faint"))
        for field in _apart(screen, kind.description or facts, kind.fields):
            _write_field(screen, field)
    elif isinstance(kind, EnumOf | FlagOf):
        write_head(screen, name, ", an enum" if isinstance(kind, EnumOf) else ", flags", kind.description)
        for member, value in _apart(screen, kind.description, kind.members):
            screen.line(INDENT, Styled(member, "name"), Styled(f" = {value!r}", "type"))
    else:
        target = kind.target if isinstance(kind, AliasOf) else kind
        screen.line(Styled(name, "name"), Styled(f" = {spelled(target)}", "type"))
        write_paragraphs(screen, _note_of(target), INDENT)


def write_head(screen: Screen, name: str, more: str, description: str) -> None:
    """Write what has a name, and what its docstring says."""
    screen.line(Styled(name, "name"), *([Styled(more, "faint")] if more else []))
    write_paragraphs(screen, description, INDENT)


def write_paragraphs(screen: Screen, text: str, indent: str) -> None:
    """Write a text of several lines, if there is one."""
    for line in clean_lines(text) if text else ():
        screen.line(*([indent, line] if line else []))


def _apart(screen: Screen, before: str, parts: tuple[_Part, ...]) -> tuple[_Part, ...]:
    """Return the parts, with a line between them and what is written above, if there are both."""
    if before and parts:
        screen.line()
    return parts


def _write_field(screen: Screen, field: Field) -> None:
    told = f": {spelled(field.type)}" + ("" if field.required else f" = {default_text(field.default)}")
    facts = [f"{field.wire_name!r} on the wire"] if field.name != field.wire_name else []
    facts += [] if field.in_init else ["not an argument of the constructor"]
    more = [Styled(f"  # {', '.join(facts)}", "faint")] if facts else []
    screen.line(INDENT, Styled(field.name, "name"), Styled(told, "type"), *more)
    write_paragraphs(screen, _note_of(field.type), INDENT * 2)


def _note_of(kind: Type) -> str:
    return (kind.bounds.description or "") if isinstance(kind, Constrained) else ""


def _facts(kind: Fields) -> Iterator[str]:
    """Yield what else there is to know of a class."""
    if kind.is_array:
        yield "on the wire an array of its fields"
    if kind.tag is not None:
        yield f"on the wire its {kind.tag.field!r} is {kind.tag.value!r}"
    if kind.forbids_unknown:
        yield "fields that it does not have are an error"
