"""Who may call what: a session asks before it reads a request, and whoever knows the methods answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from seqrpc.kernel.credentials import Credentials


class Refused(msgspec.Struct, eq=False):
    """A request that is to be answered with an error at once: ``send_error(call_id, code, message)``.

    ``call_id`` is None for a NOTIFY, whose sender is not told. ``method`` is None where the message was lost before its
    method was read, and "" for a name that is longer than any that exists.
    """

    call_id: int | None
    method: str | None
    code: str
    message: str


class Admits(Protocol):
    """Who may call a method: a policy."""

    def admits(self, caller: Credentials | None) -> bool:
        """Return whether ``caller`` may call."""
        ...


class Admission(Protocol):
    """Says which requests a session takes, when only their kind, id and method have been read."""

    @property
    def policies(self) -> Mapping[str, Admits]:
        """Who may call, by the name of the method."""
        ...

    @property
    def unread(self) -> Collection[str]:
        """Methods that look neither at their parameters nor at what else came with a request."""
        ...

    def denied(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        """Return code and message of the error for a caller whom the policy of a method does not admit."""
        ...

    def unknown(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        """Return code and message of the error for the caller of a method that does not exist."""
        ...

    def lack_of_room(self, size: int) -> str | None:
        """Return why a request that keeps ``size`` bytes in memory cannot be taken; None if it can."""
        ...

    def lack_of_descriptors(self) -> str | None:
        """Return why a request whose descriptors have come cannot be taken; None if it can."""
        ...
