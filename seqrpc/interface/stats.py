"""What a server tells of itself: the shape of the answer of ``rpc.stats``, and the service that gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from seqrpc.interface.methods import method
from seqrpc.interface.service import Service

MOST_LISTED: Final = 1_000
"""The most connections, and the most calls, that one answer lists: numbers tell of the others."""

MOST_CALLS_OF_ONE: Final = 20
"""The most calls of one connection that are listed, the oldest."""

FIRST_BITS: Final = 11
LAST_BITS: Final = 37
"""The durations that are told apart end at 2**10 and at 2**36 nanoseconds: a microsecond, and a minute."""

BOUNDS: Final = tuple(2**bits / 1e9 for bits in range(FIRST_BITS - 1, LAST_BITS))
"""Seconds that end the buckets of a histogram, but for the last, which has no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStats:
    """A call that runs."""

    method: str
    """Its name on the wire."""

    age: float
    """Seconds since it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStats:
    """A connection that is open, and who made it."""

    pid: int | None
    """The process, by the kernel's word; None on a socket pair, and where the kernel does not say."""

    uid: int | None
    """The user: on a socket pair, who made that."""

    gid: int | None
    """The group; None as for ``pid``."""

    age: float
    """Seconds since it was made."""

    calls_in_flight: int
    """Requests that are not answered yet, and one-way calls that run."""

    calls: list[CallStats]
    """The oldest of them, at most twenty."""

    unsent_bytes: int
    """Bytes that wait to be sent, because the other side does not read."""

    unsent_packets: int
    """Packets that wait to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodStats:
    """A method, of a service or of the objects of a class that were given away."""

    calls: int
    """Requests for it that have ended, refused ones too."""

    refused: int
    """Those of them that no handler ran for."""

    errors: dict[str, int]
    """Those of them that were answered with an error, by its code."""

    seconds: float
    """What its handlers took, all together."""

    latency: list[int]
    """How many handlers took at most so long, and longer than the bound before, by ``Stats.latency_bounds``; the last
    number is of those that took longer than all bounds."""

    stream_errors: dict[str, int] = field(default_factory=dict)
    """Streams that its handlers gave, and whose items raised an error after they were handed out, by its code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a server tells of itself: the answer of ``rpc.stats``, and of :meth:`Server.stats`.

    There are no arguments, results or metadata in it. Fields may be added in later versions.
    """

    version: str
    """Of seqrpc."""

    pid: int
    """The server's process."""

    uptime: float
    """Seconds since the server began."""

    is_stopping: bool
    """Whether it takes no new connections any more."""

    connections_open: int
    """How many connections are open."""

    connections: list[ConnectionStats]
    """Those with the most calls in flight and unsent bytes, at most a thousand."""

    connections_made: int
    """How many connections there ever were, refused ones included."""

    connections_refused: dict[str, int]
    """How many of these were refused: ``full``, ``user``, or ``stopping``."""

    connections_malformed: int
    """How many ended because the other side broke the protocol."""

    accept_failures: int
    """How often the system could not give a connection that waits, as when there are no descriptors left."""

    calls_in_flight: int
    """Requests that are not answered yet and one-way calls that run, on connections and on objects."""

    object_calls: list[CallStats]
    """Those on objects that were given away, at most a thousand."""

    methods: dict[str, MethodStats]
    """What was called, by names on the wire; only methods that exist are there, and no others ever."""

    others: MethodStats
    """Requests for anything else, and those that were lost before their method was read."""

    refusals: dict[str, int]
    """Requests that no handler ran for, by the code of the error: of all methods together."""

    latency_bounds: list[float]
    """Seconds that end the buckets of ``MethodStats.latency``: powers of two of nanoseconds."""

    unsent_bytes: int
    """Bytes that wait to be sent, on all connections."""

    unsent_packets: int
    """Packets that wait to be sent, on all connections."""

    streams: int
    """Streams that this side produces now."""

    objects: int
    """Holders of objects that this side gave away: connections of channels."""

    accounts: dict[str, dict[str, int]] = field(default_factory=dict)
    """What each user holds, by uid and by what it is, where that is counted."""


class Statistics(Service):
    """Tells how a server is: ``await connection.proxy(seqrpc.Statistics).stats()``, of any server.

    Args:
        look: returns what is told.
    """

    def __init__(self, look: Callable[[], Stats]) -> None:
        """Have it told by ``look``."""
        self._look = look

    @method
    async def stats(self) -> Stats:
        """Return what the server tells of itself. The same user and root may ask."""
        return self._look()


Statistics.service_name = "rpc"
