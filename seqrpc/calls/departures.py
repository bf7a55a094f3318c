"""What is on its way out with a message: what a stream is made of, and ends that were received before."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

from seqrpc.kernel.descriptors import OwnedFd


class Source:
    """What a stream is made of.

    Args:
        items: what the stream yields; their iterator is closed at the end, however that comes.
        where: what the log names as failed if they raise.
        fds: descriptors that are lent to the items and closed after their end.
    """

    __slots__ = ("errors", "fds", "is_sensitive", "items", "where")

    def __init__(
        self,
        items: AsyncIterable[Any] | Iterable[Any],
        where: str,
        fds: list[OwnedFd] | None = None,
        *,
        is_sensitive: bool = False,
    ) -> None:
        """Hold the items; if they are made of what is sensitive, the log does not have what is raised."""
        self.is_sensitive = is_sensitive
        self.items: Any = items
        self.where = where
        self.fds = [] if fds is None else fds
        self.errors: dict[str, int] | None = None
        """Where it is counted if the items raise, by code; None: nowhere."""


class MovedEnd:
    """An end of a stream or channel that was received, and goes on to somebody else.

    Args:
        ext_type: which of the two it is.
        fd: the end.
        back: takes that back if it is not sent.
    """

    def __init__(self, ext_type: int, fd: OwnedFd, back: Callable[[OwnedFd], object]) -> None:
        """Hold the end."""
        self.ext_type = ext_type
        self._fd = fd
        self._back = back

    def fileno(self) -> int:
        """Return the end, lent."""
        return self._fd.fileno()

    def sent(self) -> None:
        """Let the end go."""
        self._fd.close()

    def unsent(self) -> None:
        """Give the end back."""
        self._back(self._fd)

    def given_up(self) -> None:
        """Close the end."""
        self._fd.close()
