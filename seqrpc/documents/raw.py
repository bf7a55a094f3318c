"""Maps, lists and texts of a document as they came: looked at one by one, within bounds, by the path to each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from seqrpc.text import shown

OURS: Final = "x-seqrpc"
"""The key of what JSON Schema and OpenRPC have no word for."""

DEEPEST: Final = 60  # levels of a schema, or of a value in it; a message of seqrpc has no more

MOST_VALUES: Final = 250_000  # maps, lists and values of a document, without texts: it is read in a second or two

LONGEST_NAME: Final = 1_000  # characters; Python knows no bound, and nobody comes near

LONGEST_TEXT: Final = 100_000  # characters of a docstring or a default

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")

_NUMBERS: Final = range(-(2**63), 2**64)  # what a message can hold


class DocumentError(ValueError):
    """What was given is no document, or one that nobody can make sense of; the message has the path and the reason."""


class Reading:
    """One reading of a document, which counts what it has looked at."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._left = MOST_VALUES

    def count(self, path: str, depth: int = 0) -> None:
        """Count a value that was come to.

        Raises:
            DocumentError: it is one too many, or too deep.
        """
        self._left -= 1
        if self._left < 0:
            raise DocumentError(f"{path}: the document has more than {MOST_VALUES} values")
        if depth > DEEPEST:
            raise DocumentError(f"{path}: nested deeper than {DEEPEST} levels")

    def value(self, value: Any, path: str, depth: int = 0) -> Any:
        """Return a value of JSON, as a default is, once it was looked at.

        Raises:
            DocumentError: there is something in it that JSON does not have.
        """
        self.count(path, depth)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return text_of(value, path, LONGEST_TEXT)
        if isinstance(value, int | float):
            return number_of(value, path)
        if isinstance(value, list):
            return [self.value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {
                text_of(key, path, LONGEST_TEXT): self.value(item, inside(path, key), depth + 1)
                for key, item in value.items()
            }
        raise DocumentError(f"{path}: expected a value of JSON, got {_kind(value)}")


def inside(path: str, key: object) -> str:
    """Return the path to what a map has under a key."""
    return f"{path}.{shown(key, 60)}"


def map_of(value: Any, path: str) -> Mapping[str, Any]:
    """Return a value that is to be a map with texts for keys.

    Raises:
        DocumentError: it is none.
    """
    if not isinstance(value, dict):
        raise DocumentError(f"{path}: expected a map, got {_kind(value)}")
    for key in value:
        text_of(key, f"{path}'s keys")
    return value


def list_of(value: Any, path: str) -> list[Any]:
    """Return a value that is to be a list.

    Raises:
        DocumentError: it is none.
    """
    if not isinstance(value, list):
        raise DocumentError(f"{path}: expected a list, got {_kind(value)}")
    return value


def text_of(value: Any, path: str, most: int = LONGEST_NAME) -> str:
    """Return a value that is to be a text of bounded length.

    Raises:
        DocumentError: it is none, or longer, or no Unicode.
    """
    if not isinstance(value, str):
        raise DocumentError(f"{path}: expected a text, got {_kind(value)}")
    if len(value) > most:
        raise DocumentError(f"{path}: a text of {len(value)} characters, where {most} is the most")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DocumentError(f"{path}: a text with half of a surrogate pair, which is no Unicode") from None
    return str(value)


def number_of(value: Any, path: str) -> int | float:
    """Return a value that is to be a number of JSON.

    Raises:
        DocumentError: it is none, it is not finite, or an integer is one that no message holds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DocumentError(f"{path}: expected a number, got {_kind(value)}")
    if isinstance(value, int):
        if value not in _NUMBERS:
            raise DocumentError(f"{path}: an integer of more than 64 bits")
    elif not math.isfinite(value):
        raise DocumentError(f"{path}: expected a number, got {value!r}")
    return value


def count_of(value: Any, path: str) -> int:
    """Return a value that is to be a number of things.

    Raises:
        DocumentError: it is none.
    """
    number = number_of(value, path)
    if isinstance(number, float) and not number.is_integer():
        raise DocumentError(f"{path}: expected an integer, got {number!r}")
    if number < 0:
        raise DocumentError(f"{path}: expected no negative number, got {number!r}")
    return int(number)


def flag_of(value: Any, path: str) -> bool:
    """Return a value that is to be true or false.

    Raises:
        DocumentError: it is neither.
    """
    if not isinstance(value, bool):
        raise DocumentError(f"{path}: expected true or false, got {_kind(value)}")
    return value


def texts_of(value: Any, path: str) -> list[str]:
    """Return a value that is to be a list of texts.

    Raises:
        DocumentError: it is none.
    """
    return [text_of(item, f"{path}[{index}]") for index, item in enumerate(list_of(value, path))]


def ours_of(value: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return what a map has under ``x-seqrpc``; nothing if it has no such key.

    Raises:
        DocumentError: that is no map.
    """
    return map_of(value.get(OURS, {}), inside(path, OURS))


def is_component_name(name: str) -> bool:
    """Return whether a schema may have the name, by OpenRPC: letters, digits, ``_``, ``.`` and ``-``."""
    return _NAME.fullmatch(name) is not None


def _kind(value: object) -> str:
    """Return what a value is, in JSON's words where it has some."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    kinds = {dict: "a map", list: "a list", str: "a text", int: "a number", float: "a number"}
    return kinds.get(type(value), f"`{type(value).__name__}`")
