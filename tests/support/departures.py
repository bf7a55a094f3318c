"""What is made for a message and hears what becomes of it."""

from __future__ import annotations

from seqrpc.protocol.values import EXT_STREAM


class Told:
    """A departure of nothing that remembers what it was told, or cannot take it that it was sent."""

    ext_type = EXT_STREAM

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.told: list[str] = []

    def fileno(self) -> int:
        return 0

    def sent(self) -> None:
        if self.fails is not None:
            raise self.fails
        self.told.append("sent")

    def unsent(self) -> None:
        self.told.append("unsent")

    def given_up(self) -> None:
        self.told.append("given up")
