"""What is counted of calls, in tables that no caller can make grow: one tally a method, and one for all other names."""

from __future__ import annotations

from typing import Any, Final, Protocol

from seqrpc.kernel.credentials import Credentials
from seqrpc.text import shown

BUCKETS: Final = 64
"""One for each number of bits that a duration in nanoseconds may have."""

TOTAL: Final = BUCKETS
"""The place behind the buckets: the nanoseconds of all durations together."""

OTHERS: Final = "others"
"""What stands for all that is not told apart."""

_MOST_METHODS: Final = 2_048  # a program that makes classes as it runs may have any number

_MOST_CODES: Final = 64  # of one method: an application may make up codes as it runs

_LONGEST_CODE: Final = 100  # characters


def count(table: dict[str, int], key: str, most: int = _MOST_CODES) -> None:
    """Count one of ``key`` in a table, or one of the others if the table has ``most`` keys already."""
    if key not in table:
        key = shown(key, _LONGEST_CODE)
        if key not in table and len(table) >= most:
            key = OTHERS
    table[key] = table.get(key, 0) + 1


class Tally:
    """What is counted of one method."""

    __slots__ = ("errors", "latency", "refused", "stream_errors")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.latency = [0] * (BUCKETS + 1)
        """How many handlers took so long, by the bits of their nanoseconds; then all nanoseconds together. It stays the
        same list: whoever counts does so in two statements, without a call."""
        self.errors: dict[str, int] = {}
        """The answers that were errors, by code; those of requests that no handler ran for, too."""
        self.refused = 0
        """The requests that no handler ran for."""
        self.stream_errors: dict[str, int] = {}
        """The streams that its handlers gave and that ended with an error, by code."""


class Watching(Protocol):
    """Hears of requests as they end."""

    def ended(self, call: Any, nanoseconds: int) -> None:
        """Hear of one that a handler was started for, so long ago."""
        ...

    def ended_unrun(self, method: str | None, code: str | None, caller: Credentials | None, *, oneway: bool) -> None:
        """Hear of one that no handler ran for."""
        ...


class Tallies:
    """What is counted of the calls that come to one server, and to the objects that it gives away."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.methods: dict[str, Tally] = {}
        """By names on the wire, of methods that exist."""
        self.others = Tally()
        """Of all other names."""
        self.refusals: dict[str, int] = {}
        """The requests that no handler ran for, by the code of the error."""
        self.connections = 0
        """The connections that were made."""
        self.turned_away: dict[str, int] = {}
        """The connections that were refused, by reason."""
        self.malformed = 0
        """The connections that ended because the other side broke the protocol."""
        self.watching: Watching | None = None
        """Who hears of requests as they end; nearly always nobody."""

    def of(self, method: str) -> Tally:
        """Return the tally of a method that exists, made now if need be."""
        tally = self.methods.get(method)
        if tally is None:
            if len(self.methods) >= _MOST_METHODS:
                return self.others
            tally = self.methods[method] = Tally()
        return tally

    def refuse(self, method: str | None, code: str, caller: Credentials | None = None, *, oneway: bool = False) -> None:
        """Count a request that no handler ran for.

        Args:
            method: its name, which may be whatever somebody made up; None if it is not known.
            code: of the error that it was answered with.
            caller: whose request it was.
            oneway: whether no answer was wanted.
        """
        if self.watching is not None:
            self.watching.ended_unrun(method, code, caller, oneway=oneway)
        tally = self.others if method is None else self.methods.get(method, self.others)
        tally.refused += 1
        count(tally.errors, code)
        count(self.refusals, code)


class _Unseen(Tallies):
    """Takes what nobody looks at: all methods have one tally."""

    def of(self, method: str) -> Tally:  # noqa: ARG002 - whichever it is
        return self.others


UNSEEN: Final = _Unseen()
"""Where clients count what is called at them."""
