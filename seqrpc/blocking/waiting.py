"""Threads that wait: for an answer, for room, or for what is served while they wait."""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec

from seqrpc.blocking.kept import keep
from seqrpc.kernel import forks

READ: Final = select.POLLIN
WRITE: Final = select.POLLOUT

LOOK_INTERVAL: Final = 1
"""Seconds after which a thread that waits alone looks again. Threads that Python does not know of until they call (of a
GUI library's, for one) cannot wake it, and seldom need to: only to send what the socket has no room for."""

_LONGEST_MS: Final = 1_000_000_000  # poll(2) takes an int


class Pump(Protocol):
    """What goes on while a thread waits: an object that is served, a stream that is produced."""

    def interest(self) -> tuple[int, int]:
        """Return the descriptor to watch, lent, and for what; no events if it can go on at once; -1 if it is over."""
        ...

    def work(self) -> object:
        """Do what can be done now, for a bounded time, without waiting for the descriptor; true if there was any."""
        ...

    def end(self, reason: str) -> None:
        """End it now; the other side is told why, if that can be."""
        ...

    def abandon(self) -> None:
        """End it now, without waiting for anything."""
        ...


class Bell:
    """Wakes a thread that polls. It is made when it is needed, which in programs of one thread it never is."""

    __slots__ = ("__weakref__", "_kept", "_lock", "_ours", "_theirs")

    def __init__(self) -> None:
        """Make the pair."""
        self._lock = threading.RLock()  # its number may be another socket's at once when it is closed
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._kept = keep(self, self._ours, self._theirs)
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        forks.register(self, Bell._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Close the copies; another thread of the parent may hold the lock."""
        self._lock = threading.RLock()
        self.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable once it was rung, lent."""
        return self._ours.fileno()

    def ring(self) -> None:
        """Wake the thread; from any."""
        with self._lock, contextlib.suppress(OSError):  # it was rung already, or is closed
            self._theirs.send(b"!")

    def quiet(self) -> None:
        """Take note of the ringing."""
        with contextlib.suppress(OSError):
            while True:
                self._ours.recv(16)

    def close(self) -> None:
        """Close both ends."""
        with self._lock:
            self._ours.close()
            self._theirs.close()
            self._kept.detach()


class Waiter(msgspec.Struct, eq=False):
    """A thread that waits for one thing. All of it is used under the lock of its line, except :meth:`sleep`."""

    is_done: bool = False
    """Whether it has come."""

    answer: Any = None
    error: BaseException | None = None
    """Made in the thread that found it out, and raised in the one that waits."""

    call_id: int | None = None
    """Of the call that it waits for the answer of, once that has one."""

    pumps: Sequence[Any] = ()
    """What goes on in its thread only, meanwhile: the streams that left with the call."""

    lock: _thread.LockType | None = None
    """What it sleeps on while another thread reads."""

    bell: Bell | None = None
    """What wakes it while it polls."""

    def finish(self, answer: Any = None, error: BaseException | None = None) -> None:
        """Let it have what it waits for, or an error; the first counts."""
        if not self.is_done:
            self.answer, self.error, self.is_done = answer, error, True
            self.wake()

    def wake(self) -> None:
        """Let it look again."""
        if self.lock is not None and self.lock.locked():
            self.lock.release()
        if self.bell is not None:
            self.bell.ring()

    def is_late(self, until: int) -> bool:
        """Return whether it has not come, and the time has."""
        return not self.is_done and time.monotonic_ns() >= until

    def prepare(self) -> None:
        """Get ready to :meth:`sleep`."""
        if self.lock is None:
            self.lock = _thread.allocate_lock()
        self.lock.acquire(blocking=False)

    def sleep(self, until: int | None) -> None:
        """Sleep until it is woken, or the time has come."""
        assert self.lock is not None
        self.lock.acquire(timeout=-1 if until is None else max(0.0, seconds_until(until)))


class Bystander(Waiter):
    """A thread that waits for something else than an answer: for room, or until all is sent."""


def seconds_until(until: int) -> float:
    """Return the seconds to a time in nanoseconds of the monotonic clock."""
    return min((until - time.monotonic_ns()) / 1e9, _LONGEST_MS / 1e3)


def seconds_to_rest(until: int | None) -> float:
    """Return how long a thread that no bell wakes may rest: until the time has come, or it is to look again."""
    return LOOK_INTERVAL if until is None else min(LOOK_INTERVAL, seconds_until(until))


def earlier(one: int | None, other: int | None) -> int | None:
    """Return the earlier of two times, of which None is never."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def poll(watched: Iterable[tuple[int, int]], pumps: Iterable[Pump], until: int | None) -> tuple[set[int], Pump | None]:
    """Wait until something can be done, or the time has come.

    Args:
        watched: descriptors, and what for.
        pumps: what goes on meanwhile, those first that had their turn the longest time ago.
        until: when to stop, in nanoseconds of the monotonic clock; None for never.

    Returns:
        ``(ready, pump)``: which of ``watched`` are ready, and one of the pumps that can go on, if any can.
    """
    poller = select.poll()
    waiting: list[tuple[int, int | None, Pump]] = []
    for pump in pumps:
        number, events = pump.interest()
        if number < 0:
            continue
        at: int | None = getattr(pump, "retry_at", None) if events else 0  # few have one
        until = earlier(until, at)
        poller.register(number, events)
        waiting.append((number, at, pump))
    own: set[int] = set()
    for number, events in watched:
        poller.register(number, events)
        own.add(number)
    timeout = None if until is None else max(0.0, seconds_until(until) * 1e3)
    ready = {number for number, _events in poller.poll(timeout)}
    now = time.monotonic_ns()
    for number, at, pump in waiting:
        if number in ready or (at is not None and at <= now):
            return own & ready, pump
    return own & ready, None


def close_number(fd: int) -> None:
    """Close a descriptor, whatever close(2) says: its number is free then."""
    with contextlib.suppress(OSError):
        os.close(fd)
