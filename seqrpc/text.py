"""Texts as they may be shown to people (on one line, of characters that print) or sent, both of bounded length."""

from __future__ import annotations

from typing import Final

MOST_SHOWN: Final = 300
"""The most characters that are shown of a text, by default: some lines of a terminal."""

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
