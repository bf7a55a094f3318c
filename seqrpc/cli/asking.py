"""Asking many sockets at once what they are, each with a time-out of its own, so that none holds up the others."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from seqrpc.blocking.connection import Connection
from seqrpc.blocking.timeouts import timeout
from seqrpc.cli.endings import LATE, OK, REFUSED, status_of, told
from seqrpc.cli.places import Elsewhere, Place, connected
from seqrpc.errors import MethodNotFound, PermissionDenied, RpcError
from seqrpc.limits import Limits

AT_ONCE: Final = 64
"""Sockets that are asked at a time, by a thread each."""

_SLACK: Final = 1.0
"""Seconds that threads get besides, which may wait in the file system, where nothing bounds them."""

_MOST_BYTES: Final = 8 << 20
"""Of one answer: a description of a thousand methods has one."""

_MOST_SERVICES: Final = 100


class Sighting(NamedTuple):
    """What was seen of a socket."""

    address: Place
    status: int
    """What a command that talks to it would end with."""

    remark: str = ""
    """Why it does not say more."""

    uid: int | None = None
    """Who listens."""

    pid: int | None = None
    services: tuple[str, ...] | None = None
    """Their names; None where they are not told."""

    connections: int | None = None
    """How many are open, besides the one that asks; None where that is not told."""

    @property
    def answers(self) -> bool:
        """Whether what listens there speaks seqrpc, or refuses to."""
        return self.status in (OK, REFUSED)


def ask(address: Place, seconds: float) -> Sighting:
    """Return what a socket is, within some seconds."""
    limits = Limits(
        connect_timeout=seconds, close_timeout=min(seconds, 0.1), max_message_bytes=_MOST_BYTES, max_buffer_bytes=1
    )
    try:
        with timeout(seconds), connected(address, limits=limits) as connection:
            return _ask(address, connection)
    except Exception as exc:
        return Sighting(address, status_of(exc), told(exc))


def _ask(address: Place, connection: Connection) -> Sighting:
    peer = None if isinstance(address, Elsewhere) else connection.peer  # that is the end here of what leads there
    sighting = Sighting(address, OK, uid=None if peer is None else peer.uid, pid=None if peer is None else peer.pid)
    try:
        services = services_in(connection.call("rpc.discover"))
    except MethodNotFound:
        return sighting._replace(remark="tells nothing of itself")  # it answers, and is older than descriptions
    except PermissionDenied as exc:
        return sighting._replace(status=REFUSED, remark=told(exc))
    except Exception as exc:
        return sighting._replace(status=status_of(exc), remark=told(exc))
    return sighting._replace(services=services, connections=_connections(connection))


def services_in(document: Any) -> tuple[str, ...]:
    """Return the names of the services in a description, as far as it is one."""
    part = document.get("x-seqrpc") if isinstance(document, dict) else None
    entries = part.get("services") if isinstance(part, dict) else None
    if not isinstance(entries, list):
        return ()
    names = [entry.get("name") for entry in entries[:_MOST_SERVICES] if isinstance(entry, dict)]
    return tuple(name for name in names if isinstance(name, str))


def _connections(connection: Connection) -> int | None:
    try:
        stats = connection.call("rpc.stats")
    except RpcError:
        return None
    number = stats.get("connections_open") if isinstance(stats, dict) else None
    return number - 1 if type(number) is int else None


def ask_all(addresses: Sequence[Place], seconds: float) -> list[Sighting]:
    """Return what each of some sockets is, in their order.

    Args:
        addresses: whom to ask.
        seconds: how long each may take; all together take that for each :data:`AT_ONCE` of them.
    """
    found: list[Sighting] = [Sighting(address, LATE, f"no answer in {seconds:g} s") for address in addresses]
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(addresses)):
        waiting.put(number)

    def work() -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            found[number] = ask(addresses[number], seconds)

    # Daemons: one that hangs, as in the file system of a server that is gone, must not keep the process.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(AT_ONCE, len(addresses)))]
    for thread in threads:
        thread.start()
    rounds = -(-len(addresses) // AT_ONCE)
    until = time.monotonic() + rounds * seconds + _SLACK
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return list(found)
