"""What is about to be sent or written, in one piece of memory or in several."""

from __future__ import annotations

from collections.abc import Sequence


class Pieces:
    """Content that does not lie in one piece of memory: what is large in it is not copied to be put together."""

    __slots__ = ("_size", "parts")

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        """Hold the parts, in their order."""
        self.parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        """Return the bytes of all parts."""
        return self._size

    def __bytes__(self) -> bytes:
        """Return a copy in one piece."""
        return b"".join(self.parts)


Content = bytes | memoryview | Pieces
"""What can be sent as one packet, or written to a memory file."""
