"""What is written, for people and for programs: every text that came from elsewhere passes :func:`clean` here.

A terminal obeys what it is sent: escape sequences and control characters move its cursor, change its title and what its
keys do, and marks of writing direction turn lines around. Nothing but line breaks and colours of our own gets there
unescaped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from typing import IO, Any, Final, NamedTuple

from seqrpc.cli.program import PROGRAM
from seqrpc.text import shown

MOST_ON_SCREEN: Final = 4_000
"""Characters of one text that a terminal shows."""

MOST_OF_A_VALUE: Final = 200_000
"""Characters of one whole value that a terminal shows: some thousand lines."""

_COLOURS: Final = {"name": "1", "type": "36", "faint": "2", "good": "32", "bad": "31"}
"""The parameters of the escape sequence that selects how text looks (ECMA-48, SGR)."""

DUMB: Final = ("", "dumb", "unknown")
"""What ``TERM`` is for terminals that only know lines."""

_PIECE: Final = 65_536

_STRANGE: Final = re.compile(r"[^ -~]")


class Styled(NamedTuple):
    """A text with what it is, which has a colour at terminals."""

    text: str
    style: str


Part = str | Styled


def clean(text: object, most: int = MOST_ON_SCREEN) -> str:
    """Return a text on one line, with all that does not print escaped, and cut."""
    return shown(text, most)


def clean_lines(text: str, most: int = MOST_OF_A_VALUE) -> list[str]:
    """Return the lines of a text, each clean."""
    left = text if len(text) <= most else f"{text[:most]}\n… ({len(text)} characters)"
    return [clean(line) for line in left.split("\n")]


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON without a character that does not print, but for the line breaks of ``indent``.

    Args:
        value: of what JSON has.
        indent: spaces for each level; None is all on one line.

    Raises:
        TypeError: JSON has no such thing.
        ValueError: nor a number that is not finite.
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, allow_nan=False)
    return "".join([_escaped(text[at : at + _PIECE]) for at in range(0, len(text), _PIECE)])


def _escaped(piece: str) -> str:
    if piece.isprintable():
        return piece
    return _STRANGE.sub(lambda found: _escape(found.group()), piece)


def _escape(char: str) -> str:
    if char == "\n" or char.isprintable():  # the former are the layout's: in strings json.dumps escapes them
        return char
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"


class Screen:
    """Where a command writes.

    Args:
        out: standard output.
        err: standard error.
        json: whether values are JSON on one line each, at a terminal too.
    """

    def __init__(self, out: IO[str] | None = None, err: IO[str] | None = None, *, json: bool = False) -> None:
        """Look whether they are terminals."""
        self.out = sys.stdout if out is None else out
        self.err = sys.stderr if err is None else err
        self.is_terminal = self.out.isatty()
        self.is_for_people = self.is_terminal and not json
        """Whether values are laid out for people."""

    @property
    def width(self) -> int:
        """Columns of the terminal, or those of a usual one."""
        return shutil.get_terminal_size().columns

    def line(self, *parts: Part) -> None:
        """Write one line of texts, each of which is cleaned."""
        self.out.write("".join([self._written(part, self.out) for part in parts]) + "\n")

    def value(self, value: Any) -> None:
        """Write a value: laid out and cut at a terminal, else on one line and whole."""
        if not self.is_for_people:
            self.out.write(as_json(value) + "\n")
            return
        text = as_json(value, indent=2)
        if len(text) > MOST_OF_A_VALUE:
            text = f"{text[:MOST_OF_A_VALUE]}… ({len(text)} characters; a pipe gets all of it)"
        self.out.write(text + "\n")

    def text(self, text: str) -> None:
        """Write a text for people, with its line breaks."""
        for line in clean_lines(text):
            self.line(line)

    def code(self, text: str) -> None:
        """Write a text of ours with its line breaks: whole, and to a terminal with what does not print escaped."""
        if self.is_terminal:
            for line in text.splitlines():
                self.line(line)
        else:
            self.out.write(text)

    def raw(self, data: bytes | memoryview) -> None:
        """Write bytes as they are to what is no terminal; to a terminal as text, cleaned."""
        if self.is_terminal:
            content = bytes(data).decode(errors="backslashreplace")
            self.out.write("\n".join(clean_lines(content)))
        else:
            self.out.flush()
            with memoryview(data) as rest:
                written = 0
                while written < len(rest):
                    written += os.write(self.out.fileno(), rest[written:])

    def complain(self, text: object) -> None:
        """Write a line on standard error."""
        self.out.flush()
        self.err.write(f"{PROGRAM}: {clean(text)}\n")
        self.err.flush()

    def remark(self, text: str) -> None:
        """Write a line on standard error that is no complaint."""
        self.out.flush()
        self.err.write(f"{clean(text)}\n")
        self.err.flush()

    def flush(self) -> None:
        """Have all that was written leave."""
        self.out.flush()

    def _written(self, part: Part, file: IO[str]) -> str:
        if isinstance(part, str):
            return clean(part)
        text = clean(part.text)
        return f"\x1b[{_COLOURS[part.style]}m{text}\x1b[0m" if has_colours(file) else text


def has_colours(file: IO[str]) -> bool:
    """Return whether a file is a terminal whose user wants colours (https://no-color.org)."""
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "").lower() not in DUMB


def columns(rows: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return rows of clean texts, each but the last of a row padded to the width of its column."""
    table = [tuple(clean(cell, 200) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [(*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]) for row in table]
