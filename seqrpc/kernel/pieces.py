"""Content to send or write, in one piece of memory or in several."""

from __future__ import annotations

from collections.abc import Sequence


class Pieces:
    """Content in several pieces of memory, so that large parts need not be copied into one."""

    __slots__ = ("_size", "parts")

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        """Hold the parts in this order."""
        self.parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        """Return the size of all parts in bytes."""
        return self._size

    def __bytes__(self) -> bytes:
        """Return a copy in one piece."""
        return b"".join(self.parts)


Content = bytes | memoryview | Pieces
"""What can be sent as one packet, or written to a memory file."""
