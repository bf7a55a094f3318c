"""Who may call what: asked by a session, answered by whoever knows the methods, before a request is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from seqrpc.kernel.credentials import Credentials


class Refused(msgspec.Struct, eq=False):
    """A request that is to be answered with an error at once: ``send_error(call_id, code, message)``.

    ``call_id`` is None for a NOTIFY, of which nobody is told. ``method`` is None where the message was lost before its
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
    """Says which requests a session takes, before anything but kind, id and method of them is read."""

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
        """Return why a request cannot be taken that keeps so many bytes in memory; None if it can."""
        ...
