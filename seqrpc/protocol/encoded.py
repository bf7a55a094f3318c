"""Values that are encoded once and sent many times."""

from __future__ import annotations


class Encoded:
    """A value that is MessagePack already: one that JSON has, too, and no deeper than a message may be.

    As a result it is sent as it is; in anything else it is taken apart, and encoded again.

    Args:
        data: exactly one value, as :func:`~seqrpc.protocol.encoder.encode_once` makes it.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        """Hold it."""
        self.data = data

    def __repr__(self) -> str:
        """Return how long it is, and nothing of it."""
        return f"<Encoded {len(self.data)} bytes>"
