"""Closing what others sent, in threads, so that nobody waits for it.

``close(2)`` of a descriptor that somebody else made takes as long as they like: a TCP socket waits for its unsent data
(``SO_LINGER``), a Unix socket closes the descriptors in its queue, a file of a FUSE mount asks its server, a large file
frees its memory. Looking at it may take as long: ``fstat`` asks that server, too. Threads of ours close what is not
known to close at once. The descriptors of one sender keep only a few threads busy, and one call closes many of them.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import os
import resource
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from typing import Final

from seqrpc.kernel.kinds import closes_at_once
from seqrpc.limits import (
    CLOSING_THREADS,
    CLOSING_THREADS_OF_ONE,
    MAX_DESCRIPTORS,
    MAX_UNCLOSED,
    MAX_UNCLOSED_OF_ONE,
)

_FEW: Final = 192
"""Up to this many descriptors waiting to be closed, nobody need count how many one sender has."""

_NAP: Final = 0.003
"""Seconds that a thread sleeps before it looks for more to close. If it had to be woken for each descriptor, it would
take the time of the thread that wakes it, because there is one interpreter lock."""

_NAPS: Final = 30
"""Naps in a row after which a thread sleeps until it is woken."""

_IDLE_TIMEOUT: Final = 2.0
"""Seconds without anything to close after which a thread ends."""

_NEAR: Final = 2 * MAX_DESCRIPTORS
"""If no more numbers than this are free, the table may become full while one packet is received."""

Sender = int | None
"""The uid of the process that sent descriptors; None if it is not known, which counts as one more sender."""

_NOBODY: Final = object()

Work = tuple[int, Callable[[], object] | None, Sender]
"""The descriptor to close, or -1; a function to call before, which may wait; and the sender."""


class _Line:
    """The descriptors of one sender, and the threads that close them."""

    __slots__ = ("at_it", "closing", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Work] = []
        self.closing = 0
        """How much of it threads have taken and not closed yet."""
        self.at_it = 0
        """Threads that have taken some."""

    @property
    def unclosed(self) -> int:
        return len(self.waiting) + self.closing


class Closer:
    """Closes descriptors in threads of its own. They start when they are needed, and end when they are not.

    Any thread may call its methods; finalizers may call :meth:`close` and :meth:`put`.

    Args:
        start: starts a thread, as :func:`_thread.start_new_thread` does. ``threading`` has locks that a finalizer may
            find held.
    """

    def __init__(self, start: Callable[..., object] = _thread.start_new_thread) -> None:
        """Begin with no thread."""
        self._start_thread = start
        self.near_full = False
        """Whether a descriptor came whose number has few free ones above it."""
        self.careful = False
        """Whether to ask :meth:`has_room` before receiving more descriptors; a cheap first look."""
        self._high = -1
        self._begin([])

    def _begin(self, left: list[Work]) -> None:
        self.careful = self.near_full
        self._inbox = deque(left)  # its append needs no lock, and so may happen in a finalizer
        self._lock = _thread.allocate_lock()  # of what is below
        self._lines: dict[Sender, _Line] = {}
        self._hopeful: dict[Hashable, tuple[Sender, Callable[[], object]]] = {}
        self._waiters: list[_thread.LockType] = []  # of those who wait until nothing is left
        # Threads by the lock on which they sleep. Adding to sets and taking from them needs no lock either.
        self._threads: set[_thread.LockType] = set()
        self._awake: set[_thread.LockType] = set()  # those awake that are not closing anything
        self._asleep: set[_thread.LockType] = set()

    def forked(self) -> None:
        """Begin anew in a forked child, which has copies of what waits, but none of the threads."""
        left = [work for line in self._lines.values() for work in line.waiting]
        # Only the parent calls the functions: they have an effect on what the two share.
        self._begin([(fd, None, sender) for fd, _before, sender in [*left, *self._inbox] if fd >= 0])

    def close(self, fd: int, sender: Sender = None) -> None:
        """Close a descriptor that ``sender`` sent: now if :func:`closes_now`, else soon.

        Raises:
            OSError: ``EBADF``: it is not open.
        """
        if closes_now(fd, sender):
            os.close(fd)
        else:
            self.put(fd, sender)

    def put(self, fd: int, sender: Sender = None, before: Callable[[], object] | None = None) -> None:
        """Let a thread call ``before``, if it is given, and then close ``fd``, unless it is -1."""
        self.put_all(((fd, before, sender),))

    def put_all(self, works: Collection[Work]) -> None:
        """Let threads do the same for several."""
        self._inbox.extend(works)
        self.tend()

    def tend(self) -> None:
        """See to it that what came is closed."""
        if len(self._inbox) >= _FEW:
            self.careful = True
        if not self._awake:
            self._rouse()

    # Bounds

    def has_room(self, sender: Sender, hopeful: Hashable = None, tell: Callable[[], object] | None = None) -> bool:
        """Return whether more descriptors may be received from ``sender``.

        Args:
            sender: who sends them.
            hopeful: who waits for room if there is none; :meth:`forget` ends that.
            tell: called once there is room, in one of the threads.
        """
        with self._lock:
            self._sort()
            if self._has_room(sender):
                return True
            if tell is not None:
                self._hopeful[hopeful] = sender, tell
        if not self._awake:  # no thread could be started before
            self._rouse()
        return False

    def forget(self, hopeful: Hashable) -> None:
        """Let ``hopeful`` wait no longer."""
        self._hopeful.pop(hopeful, None)

    def _has_room(self, sender: Sender) -> bool:
        line = self._lines.get(sender)
        return line is None or (line.unclosed < MAX_UNCLOSED_OF_ONE and self._unclosed() < MAX_UNCLOSED)

    def _unclosed(self) -> int:
        return sum(line.unclosed for line in self._lines.values())

    def saw(self, fd: int) -> None:
        """Note the number of a new descriptor: the kernel gives the lowest that is free."""
        if fd > self._high:
            soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            self._high = soft - _NEAR
            if fd > self._high:
                self.near_full = self.careful = True

    def is_table_short(self) -> bool:
        """Return whether a packet may bring more descriptors than this process may have, so that some would be lost.

        The kernel closes lost descriptors in the thread that receives.
        """
        if not self.near_full:
            return False
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            free = soft - len(os.listdir("/proc/self/fd"))
        except OSError:
            return True
        self.near_full = free <= 2 * _NEAR
        return free <= MAX_DESCRIPTORS

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is left to be closed, at most ``timeout`` seconds; return whether that is so."""
        with self._lock:
            self._sort()
            if not self._lines:
                return True
            bell = _thread.allocate_lock()
            bell.acquire()
            self._waiters.append(bell)
        if not self._awake:
            self._rouse()
        return bell.acquire(timeout=timeout)

    # Threads

    def _rouse(self) -> None:
        """Make sure that one thread is awake, if there may be one."""
        try:
            bell = self._asleep.pop()
        except KeyError:
            if len(self._threads) >= CLOSING_THREADS:
                return
        else:
            self._awake.add(bell)
            bell.release()
            return
        bell = _thread.allocate_lock()
        bell.acquire()
        try:
            self._threads.add(bell)
            self._awake.add(bell)
            self._start_thread(self._work, (bell,))
        except (RuntimeError, MemoryError):  # no more threads, or the interpreter ends: the next close tries again
            self._threads.discard(bell)
            self._awake.discard(bell)

    def _work(self, bell: _thread.LockType) -> None:
        """Run in a thread, until there is nothing to close for long."""
        try:
            naps = 0
            while naps < _NAPS or self._sleep(bell):
                naps = naps + 1 if naps < _NAPS else 1
                try:
                    while self._close_some(bell):
                        naps = 0
                except MemoryError:  # there may be some again after a nap
                    self._awake.add(bell)
                if naps < _NAPS:
                    time.sleep(_NAP)
        finally:  # whatever ended it: the next close is to start another thread
            self._threads.discard(bell)
            self._awake.discard(bell)
            self._asleep.discard(bell)

    def _ready(self) -> Iterator[Sender]:
        """Yield the senders of what waits that one more thread may close. The lock is held."""
        return (s for s, line in self._lines.items() if line.waiting and line.at_it < CLOSING_THREADS_OF_ONE)

    def _is_wanted(self) -> bool:
        """Return whether there is something that one more thread may close, here or in the lines of senders."""
        with self._lock:
            self._sort()
            return next(self._ready(), _NOBODY) is not _NOBODY

    def _close_some(self, bell: _thread.LockType) -> bool:
        """Close what waits of one sender; return whether there was anything."""
        line, works = self._take(bell)
        if line is None:
            return False
        try:
            _close_all(works)
        finally:
            self._end(bell, line, len(works))
        return True

    def _take(self, bell: _thread.LockType) -> tuple[_Line | None, list[Work]]:
        """Take all that waits of one sender, and leave another thread awake, if there may be one."""
        with self._lock:
            self._sort()
            try:
                sender = next(self._ready())
            except StopIteration:
                return None, []
            line = self._lines[sender] = self._lines.pop(sender)  # the other senders come first the next time
            left: list[Work] = []
            line.closing += len(line.waiting)
            works, line.waiting = line.waiting, left  # if there is no memory, nothing was taken before this
            line.at_it += 1
            self._awake.discard(bell)
        if not self._awake:
            self._rouse()
        return line, works

    def _end(self, bell: _thread.LockType, line: _Line, count: int) -> None:
        """Count what was closed, and tell those who wait for room or for the end."""
        with self._lock:
            line.at_it -= 1
            line.closing -= count
            self._awake.add(bell)
            self._sort()
            glad = {who: tell for who, (sender, tell) in list(self._hopeful.items()) if self._has_room(sender)}
            for who in glad:
                self._hopeful.pop(who, None)
            waiters: list[_thread.LockType] = []
            if not self._lines:
                waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.release()
        for tell in glad.values():
            with contextlib.suppress(Exception):  # a loop may be closed meanwhile
                tell()

    def _sort(self) -> None:
        """Put what came into the line of its sender, and see whether there is much. The lock is held."""
        while self._inbox:
            work = self._inbox[0]  # and taken out when it has its place: there may be no memory for that
            sender = work[2]
            if sender not in self._lines:
                self._lines[sender] = _Line()
            self._lines[sender].waiting.append(work)
            self._inbox.popleft()
        for sender in [sender for sender, line in self._lines.items() if not line.unclosed]:
            del self._lines[sender]
        self.careful = self.near_full or self._unclosed() >= _FEW
        if len(self._inbox) >= _FEW:  # another thread put more meanwhile, and we have just overwritten its ``careful``
            self.careful = True

    def _sleep(self, bell: _thread.LockType) -> bool:
        """Sleep until there is something to close; return False if there was nothing for long."""
        self._awake.discard(bell)
        self._asleep.add(bell)
        # Whoever put something while this was awake, and has sorted it since, has woken nobody.
        if not self._is_wanted() and bell.acquire(timeout=_IDLE_TIMEOUT):
            return True
        try:
            self._asleep.remove(bell)
        except KeyError:  # the thread that took it out has woken this one, or is about to
            bell.acquire()
            return True
        if self._is_wanted():
            self._awake.add(bell)
            return True
        return False


def is_trusted(sender: Sender) -> bool:
    """Return whether who sent a descriptor is this process's own user, or root.

    Of nobody else anything is closed where somebody waits. Closing a pipe waits for whoever is writing to it, and
    closing what an epoll instance watches for whoever waits on that; either may be held up, by memory that is served
    by a program (userfaultfd(2), FUSE), for as long as its owner likes. Closing a memory file goes through all its
    locks.
    """
    return sender is not None and (sender == 0 or sender == os.geteuid())


def closes_now(fd: int, sender: Sender) -> bool:
    """Return whether a descriptor that came may be closed where somebody waits for it.

    Raises:
        OSError: ``EBADF``: it is not open.
    """
    if is_trusted(sender):
        return closes_at_once(fd)
    fcntl.fcntl(fd, fcntl.F_GETFD)
    return False


def _close_all(works: list[Work]) -> None:
    """Close consecutive numbers with one call, and those with a function to call before one by one."""
    try:
        ranges = _ranges(works)
    except MemoryError:  # closing them takes none
        for fd, before, _sender in works:
            if before is None and fd >= 0:
                os.closerange(fd, fd + 1)
    else:
        for first, end in ranges:
            os.closerange(first, end)
    for fd, before, _sender in works:
        if before is not None:
            with contextlib.suppress(Exception):  # there is nobody to tell, and the descriptor must be closed
                before()
            if fd >= 0:
                with contextlib.suppress(OSError):  # close(2): the number is free again whatever it says
                    os.close(fd)


def _ranges(works: list[Work]) -> list[tuple[int, int]]:
    """Return the numbers with nothing to call before, each range as its first and the one after its last."""
    ranges: list[tuple[int, int]] = []
    for fd in sorted(fd for fd, before, _sender in works if before is None and fd >= 0):
        if ranges and ranges[-1][1] == fd:
            ranges[-1] = ranges[-1][0], fd + 1
        else:
            ranges.append((fd, fd + 1))
    return ranges


CLOSER: Final = Closer()
"""The closer of this process."""

os.register_at_fork(after_in_child=CLOSER.forked)
