"""Docstrings as HTML: paragraphs, lists, examples, sections, and ``code``; whatever else they have stays as it is.

What is understood is what reStructuredText, Markdown and the sections of Google's style have in common with the
docstrings that people write. Every docstring gives something readable, in time that grows with its length alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Final

from seqrpc.documents.markup import Markup, element, joined, text

_Term = tuple[str, list[str]]
"""What is told of, and the lines that do."""

_Written = tuple[Markup, int]

_DEEPEST: Final = 4
"""Lists and quotations inside one another; what is deeper is shown as it stands."""

_BULLET: Final = re.compile(r"[-*+•][ ]+(?=\S)")
_NUMBER: Final = re.compile(r"\(?(?:[0-9]{1,4}|#)[.)][ ]+(?=\S)")
_SECTION: Final = re.compile(r"[A-Z][A-Za-z ]{0,30}:$")
_FIELD: Final = re.compile(r":[a-z]{1,20}(?:[ ]{1,4}[^:\s][^:]{0,200})?:(?:[ ]+|$)")
_TERM: Final = re.compile(r"[\w.*\[\], |]{1,200}(?:\([^()]{0,200}\))?:(?:[ ]+|$)")
_UNDERLINE: Final = re.compile(r"([-=~^\"'#*])\1{2,}$")
_HEADING: Final = re.compile(r"#{1,6}[ ]+(?=\S)")
_FENCE: Final = re.compile(r"(?:```|~~~)[ ]?[\w.+-]{0,40}[ ]*$")
_BEGINS: Final = re.compile(f"{_BULLET.pattern}|{_NUMBER.pattern}|{_FENCE.pattern}")

_INLINE: Final = re.compile(
    r"(?P<ticks>`{2,3})(?P<code>[^`]{1,1000})(?P=ticks)"
    r"|(?::[a-z]{1,20}(?::[a-z]{1,20})?:)?`(?P<role>[^`]{1,1000})`_{0,2}"
    r"|\*\*(?P<strong>[^*\s](?:[^*]{0,300}[^*\s])?)\*\*"
    r"|(?<![\w*])\*(?P<em>[^*\s](?:[^*]{0,300}[^*\s])?)\*(?![\w*])"
    r"|(?P<url>\bhttps?://[A-Za-z0-9.-]{1,255}(?::[0-9]{1,5})?(?:/[A-Za-z0-9_./~%?=&;#,:@+-]{0,1000})?)"
)

_ABOUT_NAMES: Final = frozenset({
    "args", "arguments", "attributes", "errors", "keyword args", "keyword arguments", "parameters", "raises",
})  # fmt: skip
"""Sections, in small letters, that tell of names, one after the other."""

_ABOUT_OURS: Final = _ABOUT_NAMES - {"errors", "raises"}
"""Those that tell of parameters or fields."""

_PARAMETERS: Final = frozenset({"arg", "argument", "ivar", "key", "keyword", "param", "parameter", "var"})
"""Fields of Sphinx's that tell of a parameter, or a field of a class."""


def prose(docstring: str) -> Markup:
    """Return a docstring as HTML: block elements, without headings."""
    return described(docstring, ())[0]


def described(docstring: str, names: Collection[str]) -> tuple[Markup, dict[str, Markup]]:
    """Return a docstring as HTML, and beside it what it says of some names in a section such as ``Args:``.

    Args:
        docstring: of any length and any content, without the indentation of source (:func:`inspect.cleandoc`).
        names: those of the parameters, or fields, that somebody else makes a list of.
    """
    writer = _Writer(names)
    lines = docstring.replace("\r\n", "\n").expandtabs(4).split("\n")
    return joined(writer.blocks(lines, 0)), writer.told


def inline(paragraph: str) -> Markup:
    """Return a paragraph's text as HTML: ``code``, emphasis, and addresses of the web as links."""
    return joined(_pieces(" ".join(paragraph.split())))


def _pieces(line: str) -> Iterator[Markup]:
    end = 0
    for match in _INLINE.finditer(line):
        yield text(line[end : match.start()])
        end = match.end()
        kind, content = match.lastgroup, match[match.lastgroup or 0]
        if kind == "strong":
            yield element("strong", text(content))
        elif kind == "em":
            yield element("em", text(content))
        elif kind == "url":
            address = content.rstrip(".,:;?")
            end -= len(content) - len(address)
            yield element("a", text(address), href=address, rel="noreferrer")
        else:
            yield element("code", text(content.removeprefix("~")))
    yield text(line[end:])


class _Writer:
    """Writes a docstring.

    Args:
        names: what is said of these in sections is kept in :attr:`told`, not written.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.told: dict[str, Markup] = {}
        self._names = names

    def blocks(self, lines: list[str], depth: int) -> Iterator[Markup]:
        """Yield the blocks of some lines."""
        at = 0
        while at < len(lines):
            if not lines[at].strip():
                at += 1
                continue
            write = next((write for begins, write in _WRITERS if begins.match(lines[at])), _Writer.others)
            block, at = write(self, lines, at, depth)
            yield block

    def quotation(self, lines: list[str], at: int, depth: int) -> _Written:
        """Write what is indented."""
        block, at = _indented(lines, at)
        return (element("blockquote", *self.blocks(block, depth + 1)) if depth < _DEEPEST else _example(block)), at

    def fenced(self, lines: list[str], at: int, _depth: int) -> _Written:
        """Write what stands between fences."""
        fence = lines[at][:3]
        end = next((end for end in range(at + 1, len(lines)) if lines[end].startswith(fence)), len(lines))
        return _example(lines[at + 1 : end]), end + 1

    def session(self, lines: list[str], at: int, _depth: int) -> _Written:
        """Write what was typed at Python's prompt, and what came."""
        block, at = _paragraph(lines, at)
        return _example(block), at

    def bullets(self, lines: list[str], at: int, depth: int) -> _Written:
        """Write a list."""
        items, at = _items(lines, at, _BULLET)
        return element("ul", *[element("li", *self._inner(block, depth)) for _bullet, block in items]), at

    def numbers(self, lines: list[str], at: int, depth: int) -> _Written:
        """Write a list whose items are numbered."""
        items, at = _items(lines, at, _NUMBER)
        return element("ol", *[element("li", *self._inner(block, depth)) for _number, block in items]), at

    def fields(self, lines: list[str], at: int, depth: int) -> _Written:
        """Write what the fields of Sphinx's say: ``:param int name: ...``, ``:returns: ...``."""
        items, at = _items(lines, at, _FIELD)
        ours: list[_Term] = []
        others: list[_Term] = []
        for label, block in items:
            kind, *argument = label.strip(": ").split()
            if argument and kind in _PARAMETERS:
                ours.append((argument[-1], block))
            else:
                others.append((" ".join([kind, *argument]), block))
        return self._terms([*self._kept(ours, depth), *others], depth), at

    def heading(self, lines: list[str], at: int, _depth: int) -> _Written:
        """Write a heading of Markdown's."""
        return _part(lines[at].lstrip("#")), at + 1

    def others(self, lines: list[str], at: int, depth: int) -> _Written:
        """Write a section, a title, or a paragraph with what it announces."""
        line, follows = lines[at], lines[at + 1] if at + 1 < len(lines) else ""
        if _SECTION.match(line) and follows[:1] == " ":
            block, at = _indented(lines, at + 1)
            return self._section(line[:-1], block, depth), at
        if _UNDERLINE.match(follows):
            return _part(line), at + 2
        block, at = _paragraph(lines, at)
        content = "\n".join(block).rstrip()
        if not content.endswith("::"):
            return element("p", inline(content)), at
        told = content[:-2].rstrip() if content[-3:-2].isspace() else content[:-1]
        block, at = _indented(lines, at)
        return joined([element("p", inline(told)) if told != ":" else text(""), _example(block)]), at

    def _inner(self, block: list[str], depth: int) -> Iterator[Markup]:
        """Yield what is in an item: its text, if that is all, or its blocks."""
        lines = "\n".join(block).rstrip().split("\n")
        if all(line.strip() and line[0] != " " and not _BEGINS.match(line) for line in lines):
            yield inline("\n".join(lines))
        elif depth < _DEEPEST:
            yield from self.blocks(lines, depth + 1)
        else:
            yield _example(lines)

    def _section(self, title: str, block: list[str], depth: int) -> Markup:
        """Return what a section has: what it says of each name, if it tells of names, else its blocks."""
        kind = title.lower()
        if kind in _ABOUT_NAMES:
            items, at = _items(block, 0, _TERM)
            if at == len(block):
                terms = [(label.strip(": ").partition(" (")[0].lstrip("*"), rest) for label, rest in items]
                terms = self._kept(terms, depth) if kind in _ABOUT_OURS else terms
                return joined([_part(title), self._terms(terms, depth)]) if terms else text("")
        return joined([_part(title), element("div", *self._inner(block, depth), class_="section")])

    def _kept(self, terms: list[_Term], depth: int) -> list[_Term]:
        """Keep what is said of the names that somebody else makes a list of; return the other terms."""
        for term, block in terms:
            if term in self._names:
                self.told[term] = joined(self._inner(block, depth))
        return [(term, block) for term, block in terms if term not in self._names]

    def _terms(self, terms: list[_Term], depth: int) -> Markup:
        told = [
            joined([element("dt", element("code", text(term))), element("dd", *self._inner(block, depth))])
            for term, block in terms
        ]
        return element("dl", *told) if told else text("")


_WRITERS: Final[tuple[tuple[re.Pattern[str], Callable[[_Writer, list[str], int, int], _Written]], ...]] = (
    (re.compile(" "), _Writer.quotation),
    (_FENCE, _Writer.fenced),
    (re.compile(">>>"), _Writer.session),
    (_BULLET, _Writer.bullets),
    (_NUMBER, _Writer.numbers),
    (_FIELD, _Writer.fields),
    (_HEADING, _Writer.heading),
)
"""How a block begins, and what writes it; it returns the block, and where the next begins."""


def _part(title: str) -> Markup:
    return element("p", element("strong", inline(title)), class_="part")


def _paragraph(lines: list[str], at: int) -> tuple[list[str], int]:
    """Return the lines up to one that is empty, or begins something else, and where that is."""
    end = at + 1
    while end < len(lines) and lines[end].strip() and not _BEGINS.match(lines[end]):
        end += 1
    return lines[at:end], end


def _indented(lines: list[str], at: int) -> tuple[list[str], int]:
    """Return the lines that are indented or empty, without the indentation that they have together, and their end."""
    end = at
    while end < len(lines) and (lines[end][:1] == " " or not lines[end].strip()):
        end += 1
    block = lines[at:end]
    margin = min((len(line) - len(line.lstrip(" ")) for line in block if line.strip()), default=0)
    return [line[margin:] for line in block], end


def _items(lines: list[str], at: int, mark: re.Pattern[str]) -> tuple[list[_Term], int]:
    """Return the items that begin with a mark, each with it and its lines, and where they end."""
    items: list[_Term] = []
    while at < len(lines) and (match := mark.match(lines[at])):
        first = lines[at][match.end() :]
        rest, at = _indented(lines, at + 1)
        items.append((match[0], [first, *rest]))
    return items, at


def _example(block: list[str]) -> Markup:
    content = "\n".join([line.rstrip() for line in block]).strip("\n")
    return element("pre", element("code", text(content))) if content else text("")
