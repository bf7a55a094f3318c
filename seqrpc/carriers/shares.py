"""How long one user's connections may be read in a turn of the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final
from weakref import WeakValueDictionary

TURN_SECONDS: Final = 0.001
"""Seconds after which a turn ends for one user, whatever was read: what is done with one packet may take long, and as
many as are taken in one turn keep all others waiting. It is time for as many short packets as are read at once."""

_LEAST_SECONDS: Final = 0.000_1
"""Seconds that each connection that is read has in any case, which is time for some short packets."""

_ALONE_SECONDS: Final = 0.02
"""Seconds that a turn may go on for a user where there is nobody else, but for what else the loop has to do."""

_STALE_SECONDS: Final = 1.0
"""Seconds after which the end of a turn is not waited for: its loop was closed."""


class Share:
    """One user's share of each turn of this thread's event loop, from which all of its connections are read.

    A connection that comes too late in a turn is left out until the next one, in which those that were left out come
    first; so the user is heard on each of its connections, and keeps others waiting no longer than on one. Where there
    is nobody else, it is a good while until that happens, for looking at those that are left out takes time too.
    """

    __slots__ = ("__weakref__", "_end", "_left_out", "_others", "_spent", "crowded", "round")

    def __init__(self, others: WeakValueDictionary[int | None, Share]) -> None:
        """Begin with no connection.

        Args:
            others: those of this thread.
        """
        self._others = others
        self._end = 0.0  # when this turn ends, if one has begun
        self._spent = False  # whether this turn has ended for the user
        self._left_out = False  # whether a connection was, that had not been read in this round
        self.crowded = False
        """Whether :meth:`admits` is to be asked before a connection is read; to be looked at."""
        self.round = 1
        """Goes up when all that were left out were read; a connection that is admitted remembers it."""

    def end_of(self, began: float, loop: asyncio.AbstractEventLoop) -> float:
        """Return until when a connection may be read if reading it began at ``began``; in a new turn, that begins."""
        if not self._end or began > self._end + _STALE_SECONDS:
            self._spent = self._left_out = False
            self._end = began + TURN_SECONDS
            loop.call_soon(self._over)
        return max(self._end, began + _LEAST_SECONDS)

    def leave(self, now: float) -> None:
        """Take note that a connection is not read further; if the time is up, the turn ends for the user."""
        if now >= self._end and (len(self._others) > 1 or now >= self._end + _ALONE_SECONDS):
            self._spent = self.crowded = True

    def admits(self, last_round: int, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether a connection may be read in this turn of ``loop``.

        Args:
            last_round: the round in which it was admitted last.
            loop: calls at the end of the turn.
        """
        self.end_of(time.monotonic(), loop)  # the turn ends even if nobody is read in it
        if last_round == self.round:
            return False  # others have not been read since
        if self._spent:
            self._left_out = True
            return False
        return True

    def _over(self) -> None:
        """End the turn for everybody."""
        if not self._left_out:
            self.round += 1
            self.crowded = self._spent
        self._end, self._spent, self._left_out = 0.0, False, False


NOBODYS: Final = Share(WeakValueDictionary())
"""For connections that have ended: they keep nobody's share alive."""


class _Shares(threading.local):
    """Those of this thread."""

    def __init__(self) -> None:
        self.by_uid: WeakValueDictionary[int | None, Share] = WeakValueDictionary()


_shares = _Shares()


def share_of(uid: int | None) -> Share:
    """Return what the connections of one user share in this thread; None: all whom the kernel does not name."""
    shares = _shares.by_uid
    share = shares.get(uid)
    if share is None:
        share = shares[uid] = Share(shares)
    return share
