"""How a server is: what ``rpc.stats`` and :meth:`seqrpc.Server.stats` tell, gathered when somebody asks."""

from __future__ import annotations

import heapq
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final

from seqrpc.aio.current import HandledCall
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.aio.held import HeldValues
from seqrpc.aio.link import Link
from seqrpc.aio.objects import ObjectEnd
from seqrpc.interface.stats import (
    BOUNDS,
    FIRST_BITS,
    LAST_BITS,
    MOST_CALLS_OF_ONE,
    MOST_LISTED,
    CallStats,
    ConnectionStats,
    MethodStats,
    Stats,
)
from seqrpc.interface.tallies import BUCKETS, TOTAL, Tallies, Tally

_VERSION: Final[str] = sys.modules["seqrpc"].__version__  # no module imports the package root, which is loaded by then

Accounts = Callable[[], dict[str, dict[str, int]]]
"""Returns what each user holds, by uid and by what it is."""


class Oversight:
    """Gathers what a server tells of itself.

    Args:
        tallies: what was counted.
        dispatchers: what answers on each connection that is open, as the server keeps it.
        held: the streams and objects that clients hold.
    """

    def __init__(self, tallies: Tallies, dispatchers: Mapping[Link, Dispatcher], held: HeldValues) -> None:
        """Begin now, in time."""
        self._tallies = tallies
        self._dispatchers = dispatchers
        self._held = held
        self._began = time.monotonic()
        self.accounts: Accounts | None = None
        """Returns what stands under ``accounts``; None: nothing does."""

    def look(self, *, is_stopping: bool, accept_failures: int) -> Stats:
        """Return how the server is, by what its owner knows besides.

        It takes time in proportion to the connections, streams and objects; what it lists is bounded.

        Args:
            is_stopping: whether new connections are refused.
            accept_failures: how often the system did not give a connection that waits.
        """
        tallies = self._tallies
        unsent = [0, 0]
        in_flight = 0
        for link, dispatcher in self._dispatchers.items():
            in_flight += dispatcher.running.number
            unsent[0] += link.transport.get_write_buffer_size()
            unsent[1] += link.transport.get_write_buffer_packets()
        objects = [held for held in self._held.living if isinstance(held, ObjectEnd)]
        in_flight += sum(held.running.number for held in objects)
        return Stats(
            version=_VERSION,
            pid=os.getpid(),
            uptime=time.monotonic() - self._began,
            is_stopping=is_stopping,
            connections_open=len(self._dispatchers),
            connections=self._connections(),
            connections_made=tallies.connections,
            connections_refused=dict(tallies.turned_away),
            connections_malformed=tallies.malformed,
            accept_failures=accept_failures,
            calls_in_flight=in_flight,
            object_calls=_calls((call for held in objects for call in held.running), MOST_LISTED),
            methods={name: _method(tally) for name, tally in tallies.methods.items()},
            others=_method(tallies.others),
            refusals=dict(tallies.refusals),
            latency_bounds=list(BOUNDS),
            unsent_bytes=unsent[0],
            unsent_packets=unsent[1],
            streams=len(self._held.living) - len(objects),
            objects=len(objects),
            accounts={} if self.accounts is None else self.accounts(),
        )

    def _connections(self) -> list[ConnectionStats]:
        """Return the connections that have most to do, in this order, and the oldest calls of each."""
        room, now, told = MOST_LISTED, time.monotonic(), []
        for link, dispatcher in heapq.nlargest(MOST_LISTED, self._dispatchers.items(), key=_weight):
            calls = _calls(dispatcher.running, min(room, MOST_CALLS_OF_ONE))
            room -= len(calls)
            peer, transport = link.peer, link.transport
            told.append(
                ConnectionStats(
                    pid=None if peer is None else peer.pid,
                    uid=link.uid,
                    gid=None if peer is None else peer.gid,
                    age=now - dispatcher.since,
                    calls_in_flight=dispatcher.running.number,
                    calls=calls,
                    unsent_bytes=transport.get_write_buffer_size(),
                    unsent_packets=transport.get_write_buffer_packets(),
                )
            )
        return told


def _weight(served: tuple[Link, Dispatcher]) -> tuple[int, int]:
    """Return how much there is to tell of a connection."""
    link, dispatcher = served
    return dispatcher.running.number, link.transport.get_write_buffer_size()


def _calls(calls: Iterable[HandledCall], most: int) -> list[CallStats]:
    """Return what is told of the first of some calls."""
    now = time.monotonic_ns()
    return [CallStats(method=call.request.method, age=(now - call.began) / 1e9) for call in islice(calls, most)]


def _method(tally: Tally) -> MethodStats:
    latency = tally.latency
    first, last = sum(latency[:FIRST_BITS]), sum(latency[LAST_BITS:BUCKETS])
    counts = [first, *latency[FIRST_BITS:LAST_BITS], last]
    return MethodStats(
        calls=sum(counts) + tally.refused,
        refused=tally.refused,
        errors=dict(tally.errors),
        seconds=latency[TOTAL] / 1e9,
        latency=counts,
        stream_errors=dict(tally.stream_errors),
    )
