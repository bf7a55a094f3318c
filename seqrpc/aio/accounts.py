"""What each user holds of a server, and how much of it one may hold.

Everything that a caller makes a server hold is booked on the account of the caller's user, and taken off it again:
whichever connection it came over, and also when that has ended. So whoever connects again begins no new account.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from seqrpc.aio.plain import PlainCalls
from seqrpc.interface.scope import outside
from seqrpc.kernel.descriptors import OwnedFd, book
from seqrpc.limits import Limits, free_descriptors

CONNECTIONS: Final = 0
"""Connections that are open."""
CALLS: Final = 1
"""Calls whose handlers run, also after their connection ended."""
REQUEST_BYTES: Final = 2
"""Bytes of long requests whose handlers run."""
UNSENT_BYTES: Final = 3
"""Bytes of answers that wait for peers that do not read."""
LIVING: Final = 4
"""Streams and objects of this side that are alive for others."""
DESCRIPTORS: Final = 5
"""Numbers of this process's table: of connections, streams and objects, and of what came and is not closed yet."""

IN_FLIGHT: Final = 6
"""Descriptors that were sent to peers that have not received them."""

NAMES: Final = (
    "connections", "calls", "request_bytes", "unsent_bytes", "living_values", "descriptors", "descriptors_in_flight",
)  # fmt: skip
"""What each is called, in this order."""

_BOUNDS: Final = (
    "max_connections", "max_total_calls", "max_total_held_bytes", "max_total_unsent_bytes", "max_total_living_values",
    "RLIMIT_NOFILE", "RLIMIT_NOFILE",
)  # fmt: skip


def share_of_user(most: int, *, is_privileged: bool) -> int:
    """Return how much of ``most`` one user may have: three quarters, root and the server's own user seven eighths."""
    return max(1, -(-most * 7 // 8) if is_privileged else most * 3 // 4)


def share_of_users(most: int, *, is_privileged: bool) -> int:
    """Return up to how much of ``most`` a user may add to what all hold: the last sixteenth is for administrators."""
    return most if is_privileged else most - most // 16


def table_size() -> int:
    """Return how many descriptors of this process callers may take; some are left, at most half, for itself."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _INFINITE
    return free_descriptors(soft)


_INFINITE: Final = 1 << 62

_FEW_PLACES: Final = 256
"""Connections for which there are descriptors, below which they have no shares."""

_TABLE_SECONDS: Final = 1.0
"""Seconds for which the size of the table is remembered: to ask is a system call."""

_OF_TABLE: Final = frozenset({CONNECTIONS, DESCRIPTORS, IN_FLIGHT})  # whose bound may change while the process runs


class InFlight(Protocol):
    """Descriptors that were sent over one connection (:mod:`seqrpc.aio.inflight`)."""

    def look(self) -> None:
        """Take off the account what was received."""
        ...

    def forget(self) -> None:
        """Take off the account what there is, and look no more."""
        ...


class Account:
    """What one user holds of a server.

    All but :meth:`discard` belong to the server's event loop.

    Args:
        ledger: the accounts of all.
        uid: the user; None: all whom the kernel does not name.
    """

    __slots__ = (
        "__weakref__", "_looked", "_most", "_most_for", "_most_of_all", "_most_then", "fds", "held", "in_flight",
        "is_privileged", "ledger", "look_seconds", "most_calls", "most_calls_of_all", "total", "uid",
    )  # fmt: skip

    def __init__(self, ledger: Ledger, uid: int | None) -> None:
        """Hold nothing."""
        self.ledger = ledger
        self.uid = uid
        self.is_privileged = uid in (0, os.geteuid())
        """Whether it is root's, or that of the server's own user."""
        self.held = [0] * len(NAMES)
        """How much, by kind; for DESCRIPTORS see :meth:`holds`."""
        self.total = ledger.total
        """The same of all accounts."""
        self.fds: set[int] = set()
        """Descriptors that came from the user and are open. Any thread may take its own out: a set needs no lock."""
        self.in_flight: set[InFlight] = set()
        """Connections over which descriptors were sent that may not have been received."""
        self._looked = 0.0
        self.look_seconds = 0.0
        """How long the last :meth:`look` took."""
        self._most = [ledger.share(most, self) for most in ledger.bounds]
        self.most_calls = self._most[CALLS]
        """How many calls of the user may run; to be looked at, with the next, in place of a :meth:`lack`."""
        self._most_for, self._most_then = -1, (0, 0)
        self._most_of_all = [ledger.share_of_all(most, self) for most in ledger.bounds]
        self.most_calls_of_all = self._most_of_all[CALLS]
        """Up to how many calls of all the user may add one."""

    def holds(self, kind: int) -> int:
        """Return how much the user holds of a kind."""
        held = self.held
        return held[CONNECTIONS] + held[LIVING] + len(self.fds) if kind == DESCRIPTORS else held[kind]

    def most(self, kind: int) -> tuple[int, int]:
        """Return how much of a kind the user may hold, and up to how much it may add to what all hold."""
        if kind not in _OF_TABLE:
            return self._most[kind], self._most_of_all[kind]
        ledger = self.ledger
        bound = ledger.bound(kind)
        if bound != self._most_for:
            self._most_for = bound
            self._most_then = ledger.share(bound, self), ledger.share_of_all(bound, self)
        return self._most_then

    def lack(self, kind: int, amount: int = 1) -> str | None:
        """Return why the user may not have so much more of a kind; None if it may.

        What is larger than any share, as a message may be, is given to a user who has nothing of the kind; and so is
        one unread answer where others have all that there is, who might keep it for ever.
        """
        holds = self.holds(kind)
        most, most_of_all = self.most(kind)
        if holds + amount > most and holds:
            name, bound = NAMES[kind].replace("_", " "), _BOUNDS[kind]
            return f"user {self.uid} has {holds} {name} here already, of {most} that one user may have ({bound})"
        ledger = self.ledger
        all_hold = holds if len(ledger.accounts) == 1 else ledger.all_hold(kind)  # whoever is gone held nothing
        if all_hold + amount > most_of_all and all_hold and (holds or kind != UNSENT_BYTES):
            name, bound = NAMES[kind].replace("_", " "), _BOUNDS[kind]
            return f"all users together have {all_hold} {name} here already, of {most_of_all} ({bound})"
        return None

    def lack_of_place(self) -> str | None:
        """Return why one more connection of the user cannot be taken; None if it can.

        Where the process may have few descriptors, nobody has a share of them: whoever finds none waits for one.
        """
        if table_size() < min(_FEW_PLACES, self.ledger.limits.max_connections):
            return None
        return self.lack(CONNECTIONS) or self.lack(DESCRIPTORS)

    def book(self, kind: int, amount: int = 1) -> None:
        """Hold more."""
        self.held[kind] += amount
        self.total[kind] += amount

    def release(self, kind: int, amount: int = 1) -> None:
        """Hold less."""
        self.held[kind] -= amount
        self.total[kind] -= amount

    def take(self, fds: list[OwnedFd]) -> None:
        """Hold descriptors that came, until they are closed or given away."""
        for fd in fds:
            book(fd, self.fds)

    def look(self) -> None:
        """Take off what was sent and has been received meanwhile."""
        for sent in list(self.in_flight):
            sent.look()

    def may_look(self, interval: float, now: float) -> bool:
        """Return whether the last look at all that is in flight was ``interval`` seconds ago; one is taken then."""
        if now - self._looked < interval:
            return False
        self._looked = now
        return True

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Have a thread of the server run a function, as :meth:`seqrpc.aio.plain.PlainCalls.submit`."""
        threads = self.ledger.threads
        return threads.submit(function, self, self.ledger.share(self.ledger.limits.max_threads, self))


class Ledger:
    """The accounts of all users of one server, or of one client's connections.

    Args:
        limits: the bounds of all together.
        is_shared: whether users have shares. If not, as where there is one peer only, each may have everything.
    """

    def __init__(self, limits: Limits, *, is_shared: bool) -> None:
        """Begin without accounts."""
        self.limits = limits
        self._is_shared = is_shared
        self.total = [0] * len(NAMES)
        """What all hold, by kind."""
        self.bounds = (
            limits.max_connections,
            limits.max_total_calls,
            limits.max_total_held_bytes,
            limits.max_total_unsent_bytes,
            limits.max_total_living_values,
            _INFINITE,
            _INFINITE,
        )
        """What there is of each kind; of CONNECTIONS and DESCRIPTORS there may be less, see :meth:`bound`."""
        # Whatever is held refers to its account, so one that is gone held nothing.
        self.accounts: WeakValueDictionary[int | None, Account] = WeakValueDictionary()
        """By uid."""
        self._looked, self._table = -_TABLE_SECONDS, 0
        self._looked_at_all = 0.0
        self.look_seconds = 0.0
        """How long the last :meth:`look` took."""
        self._threads: PlainCalls | None = None
        self.left_in_flight: set[InFlight] = set()
        """What was not received when its connection ended."""
        self.closed = False
        """Whether the server has ended."""

    @property
    def threads(self) -> PlainCalls:
        """The threads for plain functions; made when they are first needed."""
        if self._threads is None:
            self._threads = PlainCalls(self.limits)
        return self._threads

    @property
    def is_busy(self) -> bool:
        """Whether a function runs in any thread, also one whose caller has gone, or waits for one."""
        return self._threads is not None and self._threads.is_busy

    def account_of(self, uid: int | None) -> Account:
        """Return the account of a user."""
        account = self.accounts.get(uid)
        if account is None:
            account = self.accounts[uid] = Account(self, uid)
        return account

    def look(self) -> None:
        """Take off all accounts what was sent and has been received meanwhile."""
        for account in list(self.accounts.values()):
            account.look()

    def may_look(self, interval: float, now: float) -> bool:
        """Return whether the last look at what is in flight to all users was ``interval`` seconds ago; see there."""
        if now - self._looked_at_all < interval:
            return False
        self._looked_at_all = now
        return True

    def stats(self) -> dict[str, dict[str, int]]:
        """Return what each user holds, for people: by uid, "unknown" for those whom the kernel does not name."""
        self.look()
        return {
            "unknown" if uid is None else str(uid): {name: account.holds(kind) for kind, name in enumerate(NAMES)}
            for uid, account in list(self.accounts.items())
        }

    def bound(self, kind: int) -> int:
        """Return how much there is of a kind now."""
        if kind not in _OF_TABLE:
            return self.bounds[kind]
        now = time.monotonic()
        if now >= self._looked + _TABLE_SECONDS:
            self._looked, self._table = now, table_size()
        return min(self.bounds[kind], self._table)

    def share(self, most: int, account: Account) -> int:
        """Return how much of ``most`` a user may have."""
        return share_of_user(most, is_privileged=account.is_privileged) if self._is_shared else most

    def share_of_all(self, most: int, account: Account) -> int:
        """Return up to how much of ``most`` a user may add to what all have."""
        return share_of_users(most, is_privileged=account.is_privileged) if self._is_shared else most

    def all_hold(self, kind: int) -> int:
        """Return how much all hold of a kind."""
        if kind != DESCRIPTORS:
            return self.total[kind]
        received = 0
        for account in list(self.accounts.values()):
            received += len(account.fds)
        return self.total[CONNECTIONS] + self.total[LIVING] + received

    def close(self) -> None:
        """Let the threads go; what runs in them is not waited for. Look no more at what is in flight."""
        self.closed = True
        for left in list(self.left_in_flight):
            left.forget()
        if self._threads is not None:
            self._threads.close()


class Delayed(Protocol):
    """Receives on a connection."""

    def read_later(self) -> None:
        """Receive nothing before what is on the loop by now has had its turn."""
        ...


class Booked:
    """What belongs to the account of a connection.

    Args:
        account: whose it is; if it is None, whoever makes the connection sets it.
        surroundings: the context that the connection is in; if it is None, the current one, outside of any scope.
    """

    __slots__ = ("account", "intake", "surroundings")

    def __init__(self, account: Account | None, surroundings: Context | None = None) -> None:
        """Belong to an account."""
        self.account = account
        """Whose it is."""
        self.intake: Delayed | None = None
        """Receives on the connection, once that is made."""
        self.surroundings = outside() if surroundings is None else surroundings
        """The context in which nobody's call is: handlers get copies of it, and what is left on the loop."""

    def let_go(self) -> None:
        """Hear that the connection has ended, and that all of it is to be freed at once."""
        self.intake = None
