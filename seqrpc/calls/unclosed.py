"""What was dropped without being closed: it is closed then, and whoever runs the program is told."""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import Protocol

from seqrpc.kernel import forks


class Closed(Protocol):
    """What only its users can close."""

    @property
    def is_unclosed(self) -> bool:
        """Whether it is open, in this process, and nobody has begun to close it."""
        ...

    def abandon(self) -> None:
        """Close it without waiting for it; from any thread, and also when its loop runs no more."""
        ...

    def __repr__(self) -> str:
        """Return what it is, for people."""
        ...


class Guard:
    """Held by what users have of a thing, and by nothing else. When it goes, nobody can close the thing any more.

    The machinery of the thing is held by its event loop, and would stay open for ever.

    Args:
        thing: is closed then, with a :class:`ResourceWarning`, unless it is closed already.
    """

    __slots__ = ("__weakref__", "_thing")

    def __init__(self, thing: Closed) -> None:
        """Watch over a thing."""
        self._thing = thing

    def __del__(self) -> None:
        """Close the thing, and say so."""
        close_dropped(self._thing, self)


def close_dropped(thing: Closed, source: object) -> None:
    """Close what was dropped unclosed, with a warning; does nothing if it is closed, or closing, already.

    Args:
        thing: what was dropped.
        source: by where this was made tracemalloc tells where the thing was.
    """
    if not thing.is_unclosed or forks.was_missed():  # a fork has copies only, also if Python did not notice it
        return
    try:
        warnings.warn(f"unclosed {thing!r}", ResourceWarning, source=source, stacklevel=3)
    finally:  # also if warnings are errors
        if not sys.is_finalizing():  # else the system closes it
            with contextlib.suppress(RuntimeError):  # its loop is closed meanwhile, by another thread
                thing.abandon()
