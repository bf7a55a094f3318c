"""Texts as they may be shown to people (on one line, of characters that print) or sent, both of bounded length."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

MOST_SHOWN: Final = 300
"""The most characters that are shown of a text, by default: some lines of a terminal."""

_LONGEST_NAME: Final = 48  # characters of names that are compared: a pair of such takes 0.1 ms, if they are alike

_MOST_NAMES: Final = 128  # names that one is compared with; nearly all are out of the question at once

_MOST_SENT: Final = 1_000  # characters of a text whose whole may not go


def shown(text: object, most: int = MOST_SHOWN) -> str:
    r"""Return ``text`` with what does not print escaped, and cut.

    Line breaks would forge lines of a log, escape sequences would command the reader's terminal, marks of writing
    direction would turn the line around, and writing lone surrogates to the log would fail. They become ``\n``,
    ``\x1b``, ``\u202e``, ``\udc80``. A backslash stays as it is, so escaped text is not escaped again.

    Args:
        text: of any length; other objects are made strings.
        most: the most characters that are shown. If the text is longer, its length follows.
    """
    text = str(text)
    if len(text) <= most and text.isprintable():
        return text
    escaped = "".join([char if char.isprintable() else _escaped(char) for char in text[:most]])
    if len(text) <= most and len(escaped) <= most:
        return escaped
    return f"{escaped[:most]}… ({len(text)} characters)"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def sendable(text: str) -> str:
    """Return the beginning of ``text``, with what is not UTF-8 (file names may hold it) escaped."""
    return text[:_MOST_SENT].encode("utf-8", "backslashreplace").decode("utf-8")


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Return those of some names, at most three, that may have been meant by ``name``, the likeliest first.

    Neither long names nor more than some are compared, so it takes a millisecond, and in no case more than twenty.
    """
    if len(name) > _LONGEST_NAME:
        return []
    import difflib  # noqa: PLC0415 - only those who mistype need it

    known = [each for each in islice(names, _MOST_NAMES) if len(each) <= _LONGEST_NAME]
    return difflib.get_close_matches(name, known)


def offered(name: str, names: Iterable[str]) -> str:
    """Return what an error that does not know ``name`` says at its end: the nearest of the names that there are."""
    found = nearest(name, names)
    return f"; did you mean {found[0]!r}?" if found else ""
