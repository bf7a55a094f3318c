"""Who reads: of the threads that wait on one line, one at a time reads for all, each in its turn."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from _thread import get_ident
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from seqrpc.blocking.family import Family, is_alone
from seqrpc.blocking.reading import Reading, Work
from seqrpc.blocking.waiting import (
    LOOK_INTERVAL,
    READ,
    WRITE,
    Bell,
    Bystander,
    Pump,
    Waiter,
    earlier,
    poll,
    seconds_to_rest,
)
from seqrpc.errors import ConnectionLost, DeadlineExceeded, WrongProcess
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.interrupts import Uninterrupted

_NAP: Final = 0.01
"""Seconds that a thread rests where packets that are there may not be read yet: it would look again at once."""

_LOOK_INTERVAL_NS: Final = LOOK_INTERVAL * 1_000_000_000


class Asked(Protocol):
    """What was asked of this side, and is to be done by a thread that waits."""

    def serve(self) -> None:
        """Do it."""
        ...

    def interrupted(self) -> None:
        """Tell whoever asked that it was not done, or not to its end, if they do not know yet."""
        ...


class Line(Protocol):
    """What threads wait on."""

    family: Family
    fd: int
    lock: threading.RLock
    reading: Reading
    broken: OSError | None
    """Why nothing can be sent any more; what was sent to us is still read."""

    is_lost: bool
    """Whether it has ended."""

    @property
    def unsent_packets(self) -> int:
        """How many packets wait to be sent."""
        ...

    def wants_room(self) -> tuple[bool, int | None]:
        """Return whether the socket is to be watched for room, and when to try again without that."""
        ...

    def reentered(self) -> RuntimeError:
        """Return what to raise where this thread is in the middle of something here."""
        ...

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        ...

    def end_by(self, exc: Exception | None) -> None:
        """End."""
        ...

    def waiting_error(self) -> ConnectionLost | WrongProcess:
        """Return what ends the waiting: why it ended, or that this child was forked meanwhile."""
        ...

    def close_unused(self) -> None:
        """Close the socket of a line that has ended if no thread uses it any more, under the lock."""
        ...


class Turns:
    """The threads that wait on one line. All but the waiting itself is under the lock of the line.

    Args:
        line: the line.
    """

    __slots__ = ("_followers", "_leader", "_line", "_pumped", "_pumped_own", "_thread", "bell", "works")

    def __init__(self, line: Line) -> None:
        """Begin with nobody."""
        self._line = line
        self._leader: Waiter | None = None
        self._thread = 0  # the leader's
        self._followers: dict[Waiter, None] = {}
        self._pumped = False  # whether a pump had the last turn: the line has the next
        self._pumped_own = False  # whether that was one of the thread's own: the others have theirs before
        self.works: deque[Asked] = deque()
        """What was read and nobody has begun: whoever waits next does it first."""
        self.bell: Bell | None = None
        """What wakes the thread that reads; made when there are several."""

    @property
    def is_reading(self) -> bool:
        """Whether a thread reads."""
        return self._leader is not None

    @property
    def leader(self) -> Waiter | None:
        """What the thread that reads waits for."""
        return self._leader

    @property
    def is_mine(self) -> bool:
        """Whether this thread reads."""
        return self._leader is not None and self._thread == get_ident()

    def take(self, waiter: Waiter) -> None:
        """Let a thread that is about to wait read, if no other does, under the lock."""
        if self._leader is None:
            self._thread = get_ident()
            self._leader = waiter

    def wait(self, waiter: Waiter, until: int | None = None) -> None:
        """Wait until ``waiter`` is done. This thread reads for all if no other does, and serves what is asked of us.

        Args:
            waiter: what is waited for.
            until: when to give up, in nanoseconds of the monotonic clock.

        Raises:
            DeadlineExceeded: the time has come.
            Exception: what a signal handler raised.
        """
        line = self._line
        while not waiter.is_done:
            work: Work | None = None
            outer: Waiter | None = None
            try:
                if self._leader is not waiter:
                    outer = self._line_up(waiter)
                if self._leader is waiter:
                    work = self._lead(waiter, until, waiter.pumps)
                else:
                    work = self._follow(waiter, until, waiter.pumps)
            finally:
                if self._leader is waiter:  # no signal handler comes before this
                    self._leader = outer
                try:
                    self.leave(waiter)
                except BaseException:  # a signal handler came between; others may sleep until they are woken
                    self.leave(waiter)
                    raise
            if work is not None:
                work()
            if line.family.errands:
                line.family.run_errands()
            if not waiter.is_done:
                self._check(waiter, until)
        if self._leader is waiter:  # it was done before it began to wait
            self.leave(waiter)

    def _check(self, waiter: Waiter, until: int | None) -> None:
        """Look whether there is a reason to wait no longer; there may be work without end."""
        line = self._line
        if line.is_lost:
            with line.lock:  # whoever ended it may be about to say why
                waiter.finish(error=line.waiting_error())
        elif until is not None and waiter.is_late(until):
            raise DeadlineExceeded("the deadline passed before the answer came")

    def _line_up(self, waiter: Waiter) -> Waiter | None:
        """Let a thread read if no other does, or else wait for its turn.

        Returns:
            Who reads on afterwards: a finalizer, or a signal handler, may wait while its own thread does already.

        Raises:
            RuntimeError: its own thread is in the middle of a packet, or holds the lock, for which others wait.
        """
        line = self._line
        if line.lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001 - a signal handler came where it is held
            raise line.reentered()
        with line.lock:
            if self.is_mine:
                if line.reading.is_busy:
                    raise line.reentered()
                outer, self._leader = self._leader, waiter
                return outer
            if self._leader is not None and not waiter.is_done:
                self._followers[waiter] = None
                waiter.prepare()
            if self._leader is None:  # looked at again, for who leaves does not take the lock if nobody is in line
                self.take(waiter)
                self._followers.pop(waiter, None)
        return None

    def leave(self, waiter: Waiter) -> None:
        """Let the thread that has waited longest read on."""
        if self._leader is waiter:
            self._leader = None
        line = self._line
        if not self._followers and not line.is_lost:
            return
        with line.lock:
            if self._followers:
                self._followers.pop(waiter, None)
                if self._leader is None:
                    self._wake_next()
            if line.is_lost:
                line.close_unused()

    def _wake_next(self) -> None:
        """Wake the first that is not done; and those that are, for whoever finished them may have been interrupted."""
        for follower in self._followers:
            follower.wake()
            if not follower.is_done:
                return

    def serve(self) -> None:
        """Do what was asked of this side first, if another thread has not begun it."""
        work: Asked | None = None
        try:
            with self._line.lock:
                if self.works:
                    work = self.works[0]
                    self.works.popleft()
            if work is not None:
                work.serve()
        except BaseException:
            if work is not None and work not in self.works:
                work.interrupted()
            raise

    def _lead(self, waiter: Waiter, until: int | None, pumps: Sequence[Pump]) -> Work | None:
        """Read until ``waiter`` is done, or there is something to do first, or the time has come."""
        line = self._line
        reading = line.reading
        while not waiter.is_done and not line.is_lost:
            if self.works:
                return self.serve
            if reading.left_over is not None:
                work, came = reading.read_again(), True
            elif until is None and not pumps and self._may_wait_in_kernel():
                work, came = reading.read(waits=True)
            else:
                work, came = None, False
            if not came:
                work, is_over = self._poll(waiter, until, pumps)
                if is_over:
                    return None
            if work is not None:
                return work
            if until is not None and waiter.is_late(until):  # also where packets come that need no work
                return None
        return None

    def _may_wait_in_kernel(self) -> bool:
        """Return whether there is nothing to look for but packets of this line."""
        line = self._line
        return is_alone() and line.unsent_packets == 0 and not line.family.pumps and not CLOSER.careful

    def _poll(self, waiter: Waiter, until: int | None, pumps: Sequence[Pump]) -> tuple[Work | None, bool]:
        """Wait for what comes first; return what to do, and whether the time has come."""
        line, bell = self._line, None
        if not is_alone():
            bell = waiter.bell = self._listen()
        wants_room, retry_at = line.wants_room()  # asked once there is a bell: who queues a packet after this rings it
        first = earlier(until, retry_at)
        own = [(line.fd, READ | WRITE if wants_room else READ)]
        if bell is None:
            first = earlier(first, time.monotonic_ns() + _LOOK_INTERVAL_NS)
        else:
            own.append((bell.fileno(), READ))
            if waiter.is_done or line.is_lost:
                return None, False
        if line.broken is not None:  # there may be no end of file: what is there is all that will come
            first = 0
        others = [pump for pump in list(line.family.pumps) if pump.interest()[0] != line.fd]
        ready, pump = poll(own, [*others, *pumps] if self._pumped_own else [*pumps, *others], first)
        waiter.bell = None  # what this thread finds out it need not be told
        if bell is not None and bell.fileno() in ready:
            bell.quiet()
        line.flush()
        is_mine = line.fd in ready or line.broken is not None
        self._pumped = pump is not None and not (is_mine and self._pumped)
        if pump is not None and self._pumped:
            return functools.partial(self._turn, pump, pumps), False
        if is_mine:
            if CLOSER.careful and line.reading.must_wait(seconds_to_rest(until)):
                return None, until is not None and time.monotonic_ns() >= until
            work, came = line.reading.read()
            if not came and line.broken is not None:
                line.end_by(line.broken)
            return work, False
        return None, until is not None and time.monotonic_ns() >= until

    def _turn(self, pump: Pump, own: Sequence[Pump]) -> None:
        """Let one thing go on; the others have their turns before it has another."""
        self._pumped_own = pump in own
        if isinstance(own, list) and self._pumped_own:
            own[:] = [*[other for other in own if other is not pump], pump]  # in one step for signal handlers
        self._line.family.turn(pump)

    def _listen(self) -> Bell | None:
        """Return what wakes this thread while it polls; None if there are no descriptors for it."""
        if self.bell is None:
            with Uninterrupted(), contextlib.suppress(OSError):
                self.bell = Bell()
                self._line.family.listen(self.bell)
        return self.bell

    def wake_leader(self) -> None:
        """Let the thread that reads look again: there is something to send, or to serve."""
        if self.bell is not None:
            self.bell.ring()
        self._line.family.tell_watches()

    def _follow(self, waiter: Waiter, until: int | None, pumps: Sequence[Pump]) -> Work | None:
        """Sleep until another thread has an answer, or lets this one read; meanwhile go on with this thread's own."""
        line = self._line
        if line.is_lost:
            return None
        if not pumps:
            if not waiter.is_done:
                waiter.sleep(until)
            return None
        bell: Bell | None = None
        try:
            with Uninterrupted(), contextlib.suppress(OSError):  # without one it looks now and then
                bell = Bell()
            with line.lock:
                if waiter.is_done or self._leader is None:
                    return None
                waiter.bell = bell
            if bell is None:
                until = earlier(until, time.monotonic_ns() + _LOOK_INTERVAL_NS)
            _ready, pump = poll([] if bell is None else [(bell.fileno(), READ)], pumps, until)
        finally:
            with line.lock:  # nobody is about to ring it
                waiter.bell = None
            if bell is not None:
                bell.close()
        return None if pump is None else functools.partial(self._turn, pump, pumps)

    def work(self) -> bool:
        """Take one packet that is there, and do what it asks for; return whether there was one.

        If another thread reads, that one takes it.
        """
        line = self._line
        waiter = Bystander()
        work: Work | None = None
        came = False
        try:
            with line.lock:
                if not line.is_lost:
                    self.take(waiter)
            if self._leader is waiter:
                line.flush()
                if self.works:
                    work, came = self.serve, True
                elif line.reading.left_over is not None:
                    work, came = line.reading.read_again(), True
                elif not CLOSER.careful or not line.reading.must_wait(_NAP):
                    work, came = line.reading.read()
        finally:
            if self._leader is waiter:
                self._leader = None
            try:
                self.leave(waiter)
            except BaseException:  # as above
                self.leave(waiter)
                raise
        if work is not None:
            work()
        if line.family.errands:
            line.family.run_errands()
        return came

    def close(self) -> None:
        """Wake nobody any more."""
        if self.bell is not None:
            self._line.family.leave(self.bell)
            self.bell.close()

    def forget(self) -> None:
        """Know of no thread any more: this is a forked child."""
        self._leader = None
        self._followers.clear()
