"""Looks at a server, again and again, over one connection, or the next one when that has ended."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from seqrpc.blocking.connection import Connection
from seqrpc.cli.asking import services_in
from seqrpc.cli.endings import told
from seqrpc.cli.places import GRACE, Place, bounded, connected
from seqrpc.cli.rates import Rates, rates_of
from seqrpc.cli.readings import LIMITS, stats_in
from seqrpc.cli.screen import Screen
from seqrpc.errors import ConnectionLost, PermissionDenied, RpcError, Unavailable
from seqrpc.interface import policy
from seqrpc.interface.stats import Stats
from seqrpc.kernel.addresses import AbstractAddress, PathAddress

_SLACK: Final = 1.0
"""Seconds besides, in which a thread is to end."""


class Looker:
    """Asks what listens at a place how it is.

    Args:
        place: where it listens.
        seconds: how long a look may take.
    """

    def __init__(self, place: Place, seconds: float) -> None:
        """Ask nothing yet."""
        self._place = place
        self._seconds = seconds
        self._lasting = contextlib.ExitStack()
        self._connection: Connection | None = None
        self.services: tuple[str, ...] = ()
        """What the server serves, if it tells."""

    @property
    def can_return(self) -> bool:
        """Whether what has gone may be there again: a program that was started for this is not."""
        return isinstance(self._place, PathAddress | AbstractAddress)

    def look(self) -> Stats:
        """Return how the server is; connect first, if there is no connection.

        Raises:
            ConnectError, ConnectionLost, RpcError, ...: it does not tell; the next look may succeed.
            Ending: what it tells is none.
        """
        try:
            with bounded(self._seconds):
                connection = self._connection
                is_new = connection is None
                if connection is None:
                    connection = self._lasting.enter_context(connected(self._place, limits=LIMITS))
                    self._connection = connection
                stats = stats_in(connection.call("rpc.stats"))
                if is_new:
                    self.services = _services_at(connection)
                return stats
        except (ConnectionLost, Unavailable):
            self.close()
            raise
        except PermissionDenied as exc:
            tell_rule(exc)
            raise

    def interrupt(self) -> bool:
        """End a look that another thread waits for; return whether it ends soon."""
        connection = self._connection
        if connection is None:
            return False
        connection.close()
        return True

    def close(self) -> None:
        """Close the connection."""
        self._connection = None
        self._lasting.close()


def tell_rule(refusal: PermissionDenied) -> None:
    """Have a refusal say who may ask a server about itself, which is the same at every server."""
    refusal.message = f"{refusal.message} (who may call it: {policy.default!r})"


def _services_at(connection: Connection) -> tuple[str, ...]:
    try:
        return services_in(connection.call("rpc.discover"))
    except RpcError:
        return ()


# One after the other


class Look(NamedTuple):
    """A look, and what happened since the one before."""

    stats: Stats
    rates: Rates


def looks(screen: Screen, looker: Looker, first: Stats, interval: float) -> Iterator[Look]:
    """Yield look after look; say on ``screen`` when there is none, and look again if that is of use.

    Args:
        screen: where it is said.
        looker: what it looks with.
        first: the first look.
        interval: seconds between two.

    Raises:
        Exception: no look will succeed any more.
    """
    before, said = None, ""
    stats: Stats | None = first
    while True:
        if stats is not None:
            yield Look(stats, rates_of(before, stats))
            before, said = stats, ""
        time.sleep(interval)
        try:
            stats = looker.look()
        except Exception as exc:
            if is_final(looker, exc):
                raise
            if has_ended(exc):
                before = None
            stats, text = None, trouble(exc, interval)
            if text != said:
                screen.complain(text)
            said = text


def is_final(looker: Looker, error: Exception) -> bool:
    """Return whether no look will succeed any more after one has failed so."""
    return has_ended(error) and not looker.can_return


def has_ended(error: Exception) -> bool:
    """Return whether a look failed with the end of its connection: the next one may be at another server."""
    return isinstance(error, ConnectionLost | Unavailable)


def trouble(error: Exception, interval: float) -> str:
    """Return what is told of a look that failed."""
    return f"{told(error)}; the next look is in {interval:g} s"


# In a thread


class Looked(NamedTuple):
    """What came of a look: one of both."""

    stats: Stats | None
    error: Exception | None


class Lookout(threading.Thread):
    """A thread that looks in intervals.

    Args:
        looker: what it looks with; it is the thread's until it has ended, and closed by it.
        interval: seconds.
        tell: is called in the thread after each look.
    """

    def __init__(self, looker: Looker, interval: float, tell: Callable[[], None]) -> None:
        """Wait for the start."""
        super().__init__(daemon=True)  # one that hangs, as in a file system, must not keep the process
        self._looker = looker
        self._interval = interval
        self._tell = tell
        self._is_over = threading.Event()
        self._looked: collections.deque[Looked] = collections.deque(maxlen=1)

    def run(self) -> None:
        """Look until it is over, or it is no use."""
        try:
            next_look = time.monotonic()
            while True:
                next_look = max(next_look + self._interval, time.monotonic())
                if self._is_over.wait(next_look - time.monotonic()):
                    return
                self._looked.append(self._look())
                self._tell()
        finally:
            self._looker.close()

    def _look(self) -> Looked:
        try:
            return Looked(self._looker.look(), None)
        except Exception as exc:
            return Looked(None, exc)

    def take(self) -> Looked | None:
        """Return what came since the last time, the newest; None if nothing did."""
        try:
            return self._looked.pop()
        except IndexError:
            return None

    def end(self) -> None:
        """End it, and the look that it waits for."""
        self._is_over.set()
        if self._looker.interrupt():
            self.join(GRACE + _SLACK)
