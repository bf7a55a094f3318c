"""How long one user's connections may be read in a turn of the loop."""

from __future__ import annotations

import asyncio
from contextvars import Context
from itertools import islice
from typing import Final, Protocol
from weakref import WeakValueDictionary

TURN_SECONDS: Final = 0.000_5
"""Seconds after which a turn ends for one user, whatever was read: what is done with one packet may take long, and as
many as are taken in one turn keep all others waiting. It is time for ten short calls or more."""

_LEAST_SECONDS: Final = 0.000_1
"""Seconds that each connection that is read has in any case, which is time for some short packets."""

_AT_ONCE_SECONDS: Final = 0.001
"""Seconds that one connection is read at most before others are, and what else the loop has to do."""

_ALONE_SECONDS: Final = 0.02
"""Seconds that a turn may go on for a user where there is nobody else, but for what else the loop has to do."""


_WATCHED_AGAIN: Final = 64
"""Connections that were left out, and are watched again in a turn: about as many as there is time to read."""


class Watched(Protocol):
    """A connection that the loop watches for something to read."""

    def watch_again(self) -> None:
        """Be watched again, if it is to be read still."""
        ...


class Share:
    """One user's share of each turn of an event loop, from which all of its connections are read.

    The time that reading takes is added up. Once it reaches a turn's time, connections that come later in the same turn
    are left out until the next one, in which those that were left out come first. So the user is heard on each of its
    connections, and keeps others waiting no longer than with one. If there is nobody else, a turn's time is long,
    because looking at connections that are left out takes time too.

    Whoever is left out is not watched by the loop until the share says so. libuv would call for each of them again and
    again in the same turn, if it has more than a thousand, for a tenth of a second; and it stops by itself to watch a
    socket that was reset, as soon as it has called once.
    """

    __slots__ = (
        "__weakref__", "_done", "_has_begun", "_is_new", "_left_out", "_others", "_owed", "_spent", "crowded",
        "look_at", "round", "used",
    )  # fmt: skip

    def __init__(self, others: WeakValueDictionary[int | None, Share]) -> None:
        """Begin with no connection.

        Args:
            others: the shares of all users of the loop.
        """
        self._others = others
        self._has_begun = False  # whether a turn has begun, which the loop will end
        self._spent = False  # whether this turn has ended for the user
        self._left_out = False  # whether a connection was left out that had not been read in this round
        self._owed: dict[Watched, None] = {}  # left out, and not watched: to be watched again in this order
        self._done: dict[Watched, None] = {}  # likewise, but read in this round already: they wait for the next
        self._is_new = False  # whether some are watched again since this turn, and cannot have been read yet
        self.used = 0.0
        """Seconds of reading; where it is not crowded, since whichever turn. To be added to, as in :meth:`charge`."""
        self.look_at = TURN_SECONDS
        """So many of them from which on :meth:`look` is to be called."""
        self.crowded = False
        """Whether :meth:`admits` is to be asked before a connection is read; to be looked at."""
        self.round = 0
        """Goes up when all that were left out were read; a connection that is admitted, or made, remembers it."""

    @property
    def turn_seconds(self) -> float:
        """How long a turn is for the user."""
        return TURN_SECONDS if len(self._others) > 1 else _ALONE_SECONDS

    def until(self, began: float) -> float:
        """Return until when a connection may be read if reading it began at ``began``."""
        return began + min(_AT_ONCE_SECONDS, max(_LEAST_SECONDS, self.turn_seconds - self.used))

    def charge(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """Add what reading a connection took; if a turn of ``loop`` is used up, it ends for the user."""
        self.used += seconds
        if self.used >= self.look_at:
            self.look(loop)

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End a turn of ``loop`` for the user if its time is used up.

        Where there is nobody else, time is counted from here to the end of the turn first: what was added up is that
        of turns before, too.
        """
        self.look_at = self.used + TURN_SECONDS
        if self.used < self.turn_seconds:
            return
        begins = not self._has_begun
        self._begin(loop)
        if begins and len(self._others) == 1:  # it is of many turns, in none of which anybody else was kept waiting
            self.used, self.look_at = 0.0, TURN_SECONDS
            return
        self._spent = self.crowded = True

    def admits(self, last_round: int, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether a connection may be read in this turn of ``loop``.

        Args:
            last_round: the round in which it was admitted last, or made.
            loop: calls at the end of the turn.
        """
        self._begin(loop)  # the turn ends even if nobody is read in it
        if last_round == self.round:
            return False  # others have not been read since
        if self._spent:
            self._left_out = True
            return False
        return True

    def leave_out(self, connection: Watched, last_round: int) -> None:
        """Let a connection that was not admitted, and is not watched any more, be watched again when it may be read."""
        (self._done if last_round == self.round else self._owed)[connection] = None

    def forget(self, connection: Watched) -> None:
        """Let a connection that is not read any more not be watched again."""
        self._owed.pop(connection, None)
        self._done.pop(connection, None)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._spent = self._left_out = False
            loop.call_soon(self._over, loop, context=Context())  # it is the turn of all whom the user calls from

    def _over(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the turn for everybody."""
        if not (self._left_out or self._owed or self._is_new):
            self.round += 1
            self.crowded = self._spent
            self._owed, self._done = self._done, {}
        self._has_begun = self._spent = self._left_out = False
        self.used, self.look_at = 0.0, TURN_SECONDS
        again = list(islice(self._owed, _WATCHED_AGAIN))
        for connection in again:
            del self._owed[connection]
            connection.watch_again()
        self._is_new = bool(again)
        if again or self._done:
            self._begin(loop)


class _Nobodys(Share):
    """The share of connections that have ended: it keeps no user's share alive, and asks nothing of a loop."""

    __slots__ = ()

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do nothing."""


NOBODYS: Final = _Nobodys(WeakValueDictionary())


class _Users(WeakValueDictionary[int | None, Share]):
    """The shares of the users of one loop, which it holds: no other loop gets its id."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop


_by_loop: Final[WeakValueDictionary[int, _Users]] = WeakValueDictionary()  # held by the shares

_NEWCOMERS: Final = -2  # no user has this number


def several_users(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether connections of more than one user are read by a loop."""
    users = _by_loop.get(id(loop))
    return users is not None and len(users) - (_NEWCOMERS in users) > 1


def share_of_newcomers(loop: asyncio.AbstractEventLoop) -> Share:
    """Return what is to be kept while somebody waits to be accepted by a loop, whose user is not known yet."""
    return share_of(_NEWCOMERS, loop)


def share_of(uid: int | None, loop: asyncio.AbstractEventLoop) -> Share:
    """Return what the connections of one user share on a loop; None: all whom the kernel does not name.

    Another loop of the same thread, before or after, has nothing to do with it: what a closed one left undone would
    never be done.
    """
    users = _by_loop.get(id(loop))
    if users is None:
        users = _by_loop[id(loop)] = _Users(loop)
    share = users.get(uid)
    if share is None:
        share = users[uid] = Share(users)
    return share
