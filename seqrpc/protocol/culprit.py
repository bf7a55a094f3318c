"""Where in a message the value is that cannot be sent: looked for once sending has failed, to tell whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from seqrpc.limits import MAX_VALUES_SEARCHED
from seqrpc.protocol.codings import coding_of
from seqrpc.protocol.kinds import names_of

LONGEST_PATH: Final = 200
"""Characters of a path."""

_SHORT_KEY: Final = 4  # parts of the longest tuple that is written out

_LONG_INTEGER: Final = 64  # bits of the longest integer that is written out


_NO_TEXT: Final = "a file name that is not UTF-8 can be sent as a pathlib.Path, or as bytes (os.fsencode)"


class NotFound(Exception):
    """There are too many values to look at them all; the message says how many were looked at."""


class Search:
    """Looks for the first value that cannot be packed.

    Args:
        travels: whether a value travels as a descriptor.
        pack: packs a value that has no parts here, or raises.
        deepest: how many levels inside it looks: at most half as many as the stack allows calls.
    """

    def __init__(self, travels: Callable[[Any], bool], pack: Callable[[Any], object], deepest: int) -> None:
        """Look at nothing yet."""
        self._travels = travels
        self._pack = pack
        self._deepest = deepest
        self._left = MAX_VALUES_SEARCHED

    def explain(self, message: Any, names: tuple[str, ...], exc: Exception) -> str:
        """Return the text of the error that says why a message cannot be sent, and where in it the reason is.

        Args:
            message: a tuple.
            names: what its parts are called; those without a name are not looked at.
            exc: what was raised when it was packed.
        """
        reason = str(exc) or type(exc).__name__
        try:
            for name, value in zip(names, message, strict=False):
                found = self.find(value, name)
                if found is not None:
                    return f"cannot send {found[0]}: {found[1]}"
        except NotFound as unfound:
            reason = f"{reason} ({unfound})"
        except Exception as another:
            reason = str(another) or type(another).__name__
        return f"cannot send: {reason}"

    def find(self, value: Any, path: str) -> tuple[str, str] | None:
        """Return the path to the value, and what is wrong with it; None if nothing is.

        Args:
            value: where to look.
            path: what that is called.

        Raises:
            NotFound: there are more than :data:`MAX_VALUES_SEARCHED`.
            Exception: what values raise while their parts are looked at.
        """
        return self._find(value, path, self._deepest)

    def _find(self, value: Any, path: str, deepest: int) -> tuple[str, str] | None:
        self._left -= 1
        if self._left < 0:
            raise NotFound(f"it is not among the first {MAX_VALUES_SEARCHED} values")
        parts = None if value is None else self._parts_of(value)
        if parts is None:
            return self._look_at(value, path)
        if not deepest:
            return path, "it is nested too deeply, or holds itself"
        for name, part in parts:
            found = self._find(part, _cut(path + name), deepest - 1)
            if found is not None:
                return found
        return None

    def _parts_of(self, value: Any) -> Iterator[tuple[str, Any]] | None:
        """Return what a value consists of, and how each part is called; None for what has no parts, or is one here."""
        if isinstance(value, dict):
            return _entries(value)
        if isinstance(value, set | frozenset):
            return ((f"'s member {label(part)}", part) for part in value)
        names = _names_of(value)
        if isinstance(value, list | tuple):
            if names:
                return ((f".{name}", part) for name, part in zip(names, value, strict=False))
            return ((f"[{index}]", part) for index, part in enumerate(value))
        if names is None or self._travels(value) or coding_of(type(value)) is not None:
            return None
        return ((f".{name}", getattr(value, name)) for name in names if hasattr(value, name))

    def _look_at(self, value: Any, path: str) -> tuple[str, str] | None:
        try:
            self._pack(value)
        except Exception as exc:
            if isinstance(value, int):
                return path, f"integers have at most 64 bits, this one has {value.bit_length()}"
            if isinstance(exc, UnicodeEncodeError):
                return (
                    path,
                    f"{exc}; {_NO_TEXT}",
                )
            return path, str(exc) or type(exc).__name__
        return None


def _names_of(value: Any) -> tuple[str, ...] | None:
    """Return the names of the parts of a NamedTuple, a Struct, a dataclass or of attrs; None for all else."""
    return getattr(value, "_fields", None) if isinstance(value, tuple) else names_of(type(value))


def _entries(value: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, part in value.items():
        name = label(key)
        yield f"[{name}]", part
        yield f"'s key {name}", key


def label(key: Any) -> str:
    """Return how a key, or a member of a set, is called in a path, however large it is."""
    if isinstance(key, str | bytes):
        return repr(key[:LONGEST_PATH])
    if isinstance(key, int) and key.bit_length() > _LONG_INTEGER + 1:
        return f"<{key.bit_length()} bits>"  # Python writes out none of more than some thousand digits
    if isinstance(key, tuple) and len(key) <= _SHORT_KEY and not any(isinstance(part, tuple) for part in key):
        return f"({', '.join(map(label, key))}{',' * (len(key) == 1)})"
    if isinstance(key, tuple | frozenset):
        return f"<{type(key).__name__} of {len(key)}>"
    return f"<{type(key).__name__}>" if _names_of(key) else repr(key)


def _cut(path: str) -> str:
    return path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"
