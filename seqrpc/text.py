"""What the other side says, as it may be shown to people: on one line, of characters that print, of bounded length."""

from __future__ import annotations

from typing import Final

MOST_SHOWN: Final = 300
"""Characters that are shown of a text at most, where nothing else is said: some lines of a terminal."""


def shown(text: object, most: int = MOST_SHOWN) -> str:
    r"""Return ``text`` with what does not print escaped, and cut.

    Line breaks would forge lines of a log, escape sequences command the terminal of whoever reads it, marks of
    writing direction turn the line around, and lone surrogates fail where the log is written: all become ``\n``,
    ``\x1b``, ``\u202e``, ``\udc80``. A backslash stays as it is, so what was escaped is not escaped again.

    Args:
        text: of any length; what is no string is made one.
        most: characters that are shown at most. Of a longer text the length follows.
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
