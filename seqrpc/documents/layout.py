"""Code as ``ruff format`` leaves it: texts, docstrings, and what stands in brackets, broken where a line is too long.

Formatting is done here and not by a formatter: whoever makes a stub needs nothing but seqrpc.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

WIDTH: Final = 120
"""Characters of a line."""

_STEP: Final = 4

_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Brackets(msgspec.Struct, frozen=True):
    """Code that may be broken over several lines: what is before the items, the items, and what is after them."""

    before: str
    """To the opening bracket, which ends it."""

    items: tuple[Node, ...]
    after: str
    is_literal: bool = False
    """Whether it is a list, a tuple, a set or a dict: of these each item has its own line if they do not fit in one."""


Node = str | Brackets
"""Code that is an expression."""


def flat(node: Node) -> str:
    """Return code on one line."""
    if isinstance(node, str):
        return node
    items = ", ".join(map(flat, node.items))
    if node.is_literal and node.before.endswith("(") and len(node.items) == 1:
        items += ","  # a tuple of one
    return f"{node.before}{items}{node.after}"


def lines(before: str, node: Node, after: str = "", *, indent: int = 0) -> Iterator[str]:
    """Yield the lines of an expression with what is before and after it, without their ends."""
    margin = " " * indent
    whole = f"{margin}{before}{flat(node)}{after}"
    if len(whole) <= WIDTH or isinstance(node, str) or not node.items:
        yield whole
        return
    yield f"{margin}{before}{node.before}"
    inner = ", ".join(map(flat, node.items))
    if not node.is_literal and indent + _STEP + len(inner) <= WIDTH:
        yield f"{margin}    {inner}"
    else:
        # What stands alone in an index would be a tuple with a comma.
        comma = "," if len(node.items) > 1 or node.is_literal or not node.before.endswith("[") else ""
        for item in node.items:
            yield from lines("", item, comma, indent=indent + _STEP)
    yield f"{margin}{node.after}{after}"


def assigned(before: str, node: Node, *, indent: int = 0) -> Iterator[str]:
    """Yield the lines of ``before = node``."""
    whole = f"{' ' * indent}{before} = {flat(node)}"
    if isinstance(node, str) and len(whole) > WIDTH and indent + _STEP + len(node) <= WIDTH:
        margin = " " * indent
        yield from (f"{margin}{before} = (", f"{margin}    {node}", f"{margin})")
        return
    yield from lines(f"{before} = ", node, indent=indent)


def defined(head: str, params: Sequence[tuple[str, Node | None]], result: str, *, indent: int) -> Iterator[str]:
    """Yield the lines of the head of a function.

    Args:
        head: what is before the parameters, without the bracket: ``async def follow``.
        params: of each what is before its default, and that, or None.
        result: the annotation of the result.
        indent: of the function.
    """
    margin = " " * indent
    inner = ", ".join(name if node is None else f"{name} = {flat(node)}" for name, node in params)
    after = f") -> {result}:"
    if len(f"{margin}{head}({inner}{after}") <= WIDTH:
        yield f"{margin}{head}({inner}{after}"
        return
    yield f"{margin}{head}("
    if len(params) > 1 and indent + _STEP + len(inner) <= WIDTH:
        yield f"{margin}    {inner}"
    else:
        for name, node in params:
            if node is None:
                yield f"{margin}    {name},"
            else:
                yield from lines(f"{name} = ", node, ",", indent=indent + _STEP)
    yield f"{margin}{after}"


def text_literal(text: str) -> str:
    """Return the literal of a text, in the quotes that ruff chooses, with all escaped that does not print."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return f"{quote}{''.join(_escaped(char, quote) for char in text)}{quote}"


def bytes_literal(data: bytes) -> str:
    """Return the literal of bytes, in the quotes that ruff chooses."""
    text = data.decode("latin-1")
    quote = "'" if text.count('"') > text.count("'") else '"'
    escaped = (_escaped(char, quote) if char < "\x7f" else f"\\x{ord(char):02x}" for char in text)
    return f"b{quote}{''.join(escaped)}{quote}"


def _escaped(char: str, quote: str) -> str:
    if char == quote:
        return f"\\{char}"
    return _ESCAPES.get(char) or (char if char.isprintable() else char.encode("unicode_escape").decode("ascii"))


def docstring(summary: str, rest: str = "", *, indent: int) -> list[str]:
    """Return the lines of a docstring; nothing if there is nothing to say.

    Args:
        summary: its first paragraph, which is broken where a line ends.
        rest: what comes after that, in lines as they are.
        indent: of the docstring.
    """
    margin = " " * indent
    room = WIDTH - indent - 2 * len('"""')
    summary = _quotable(" ".join(summary.split()))
    escaped = _quotable(rest)
    rest = inspect.cleandoc(f"\n{escaped}" if summary else escaped.strip(" \n"))
    body = rest.split("\n") if rest else []
    first = textwrap.wrap(summary, room, break_long_words=False, break_on_hyphens=False)
    said = [line.rstrip(" ") for line in [*first, *([""] if first and body else []), *body]]
    while said and not said[-1]:
        said.pop()
    if not said:
        return []
    said = [_without_end(line) for line in (said[0].lstrip(" "), *said[1:])]
    if said[0].startswith('"'):
        said[0] = f"\\{said[0]}"
    if len(said) == 1 and not said[0].endswith("\\"):
        return [f'{margin}"""{said[0]}"""']
    return [f'{margin}"""{said[0]}', *(f"{margin}{line}" if line else "" for line in said[1:]), f'{margin}"""']


def _quotable(text: str) -> str:
    """Return a text as it may stand in a docstring: nothing in it ends that, and nothing is read as something else."""
    escaped = "".join(char if char in '\n"' else _escaped(char, "") for char in text.expandtabs())
    return escaped.replace('"""', '\\"\\"\\"')


def _without_end(line: str) -> str:
    """Return a line of a docstring that closing quotes may follow."""
    before = line.removesuffix('"')
    if before == line or (len(before) - len(before.rstrip("\\"))) % 2:  # the quote has its backslash
        return line
    return f'{before}\\"'
