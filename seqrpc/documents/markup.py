"""HTML made of what others wrote: text becomes markup by being escaped, and in no other way."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from importlib.resources import files
from typing import Final, LiteralString, NewType
from urllib.parse import quote

from seqrpc.text import shown

Markup = NewType("Markup", str)
"""HTML. Only the functions of this module make it, and only of text that they escape: type checkers see to that."""

MOST_OF_NAME: Final = 200
"""The most characters that are shown of a name."""

_MOST_OF_ESCAPE: Final = 10  # characters of one that stands for a character: \\U0001f600

_VOID: Final = frozenset({"br", "hr", "input", "link", "meta"})
"""Elements that have no end."""

_JOINERS: Final = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""What does not print, but belongs to the spelling of some languages, and to emoji."""

_UNSAFE: Final = re.compile(r"[^\w .,:;!?()/+*=~$%^@#|{}\[\]`\\\n-]")
"""What may need escaping: nearly all texts have little of it."""


def literal(source: LiteralString) -> Markup:
    """Return HTML that stands in the source of this package as it is."""
    return Markup(source)


def own(file: LiteralString) -> Markup:
    """Return a file of this package, which stands in the page as it is."""
    return Markup(files("seqrpc.documents").joinpath(file).read_text(encoding="utf-8"))


def text(content: str) -> Markup:
    r"""Return ``content`` as people read it, of any length and on any number of lines.

    What does not print, and what turns the direction of writing, is shown as an escape: ``\x1b``, ``\u202e``.
    """
    return Markup(_UNSAFE.sub(_one, content))


def name(content: object, most: int = MOST_OF_NAME) -> Markup:
    """Return what must be on one line and short, cut after ``most`` characters."""
    return Markup(html.escape(shown(content, most)))


def element(tag: LiteralString, *children: Markup, **attributes: str | None) -> Markup:
    """Return an element.

    Args:
        tag: its name.
        children: what is in it.
        attributes: their values, which are escaped; what is None is left out. ``class_`` is ``class``, ``aria_label``
            is ``aria-label``. Whoever passes ``href`` has made it with :func:`to` or :func:`web`.
    """
    spelled = "".join(
        [
            f' {key.strip("_").replace("_", "-")}="{html.escape(shown(value, _MOST_OF_ESCAPE * len(value)))}"'
            for key, value in attributes.items()
            if value is not None
        ]
    )
    if tag in _VOID:
        return Markup(f"<{tag}{spelled}>")
    return Markup(f"<{tag}{spelled}>{''.join(children)}</{tag}>")


def joined(children: Iterable[Markup], between: LiteralString = "") -> Markup:
    """Return several pieces as one, with ``between`` between them."""
    return Markup(between.join(children))


def anchor(content: str, kind: LiteralString = "") -> str:
    """Return the id of what is called ``content``: the name itself if it is a usual one.

    Args:
        content: the name, with any characters; no two names have the same id.
        kind: what is named, before a colon, which is in no id of another kind.
    """
    spelled = quote(content, safe="", errors="surrogatepass")
    return f"{kind}:{spelled}" if kind else spelled


def to(target: str) -> str:
    """Return the ``href`` that leads to the element whose id :func:`anchor` made."""
    return f"#{target}"


def _one(match: re.Match[str]) -> str:
    char = match[0]
    if char.isprintable():
        return html.escape(char)
    if char in _JOINERS or unicodedata.category(char) == "Zs":
        return char
    return html.escape(shown(char, 16))
