"""Who reads: of the threads that wait on one line, one at a time reads for all, each in its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

from seqrpc.blocking.family import Family, is_alone
from seqrpc.blocking.reading import Reading, Work
from seqrpc.blocking.waiting import LOOK_INTERVAL, READ, WRITE, Bell, Pump, Waiter, earlier, poll, seconds_until
from seqrpc.errors import ConnectionLost, DeadlineExceeded
from seqrpc.kernel.closing import CLOSER

_LOOK_INTERVAL_NS: Final = LOOK_INTERVAL * 1_000_000_000


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

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        ...

    def end_by(self, exc: Exception | None) -> None:
        """End."""
        ...

    def lost_error(self) -> ConnectionLost:
        """Return why it ended."""
        ...

    def close_unused(self) -> None:
        """Close the socket of a line that has ended if no thread uses it any more, under the lock."""
        ...


class Turns:
    """The threads that wait on one line. All but the waiting itself is under the lock of the line.

    Args:
        line: the line.
    """

    __slots__ = ("_followers", "_leader", "_line", "bell")

    def __init__(self, line: Line) -> None:
        """Begin with nobody."""
        self._line = line
        self._leader: Waiter | None = None
        self._followers: dict[Waiter, None] = {}
        self.bell: Bell | None = None
        """What wakes the thread that reads; made when there are several."""

    @property
    def is_reading(self) -> bool:
        """Whether a thread reads."""
        return self._leader is not None

    @property
    def others_wait(self) -> bool:
        """Whether threads wait for the one that reads."""
        return bool(self._followers)

    def take(self, waiter: Waiter) -> None:
        """Let a thread that is about to wait read, if no other does, under the lock."""
        if self._leader is None:
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
            try:
                if self._leader is not waiter:
                    self._line_up(waiter)
                if self._leader is waiter:
                    work = self._lead(waiter, until, waiter.pumps)
                elif not waiter.is_done:
                    work = self._follow(waiter, until, waiter.pumps)
            finally:
                self.leave(waiter)
            if line.family.errands:
                line.family.run_errands()
            if work is not None:
                work()
            elif line.is_lost:
                waiter.finish(error=line.lost_error())
            if until is not None and waiter.is_late(until):  # also where the other side asks for ever more
                raise DeadlineExceeded("the deadline passed before the answer came")
        if self._leader is waiter:  # it was done before it began to wait
            self.leave(waiter)

    def _line_up(self, waiter: Waiter) -> None:
        """Let a thread read if no other does, or else wait for its turn."""
        with self._line.lock:
            if self._leader is not None and not waiter.is_done:
                self._followers[waiter] = None
                waiter.prepare()
            if self._leader is None:  # looked at again, for who leaves does not take the lock if nobody is in line
                self._leader = waiter
                self._followers.pop(waiter, None)

    def leave(self, waiter: Waiter) -> None:
        """Let the thread that has waited longest read on."""
        line = self._line
        if self._leader is waiter:
            self._leader = None
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
        for follower in self._followers:
            if not follower.is_done:
                follower.wake()
                return

    def _lead(self, waiter: Waiter, until: int | None, pumps: Sequence[Pump]) -> Work | None:
        """Read until ``waiter`` is done, or there is something to do first, or the time has come."""
        line = self._line
        reading = line.reading
        while not waiter.is_done and not line.is_lost:
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
        return None

    def _may_wait_in_kernel(self) -> bool:
        """Return whether there is nothing to look for but packets of this line."""
        line = self._line
        return is_alone() and line.unsent_packets == 0 and not line.family.pumps and not CLOSER.careful

    def _poll(self, waiter: Waiter, until: int | None, pumps: Sequence[Pump]) -> tuple[Work | None, bool]:
        """Wait for what comes first; return what to do, and whether the time has come."""
        line, bell = self._line, None
        wants_room, retry_at = line.wants_room()
        first = earlier(until, retry_at)
        own = [(line.fd, READ | WRITE if wants_room else READ)]
        if is_alone():
            first = earlier(first, time.monotonic_ns() + _LOOK_INTERVAL_NS)
        else:
            bell = waiter.bell = self._listen()
            own.append((bell.fileno(), READ))
            if waiter.is_done or line.is_lost:
                return None, False
        if line.broken is not None:  # there may be no end of file: what is there is all that will come
            first = 0
        others = [pump for pump in list(line.family.pumps) if pump.interest()[0] != line.fd]
        ready, pump = poll(own, [*pumps, *others], first)
        if bell is not None:
            bell.quiet()
        line.flush()
        if pump is not None:
            return lambda: line.family.turn(pump), False
        if line.fd in ready or line.broken is not None:
            if CLOSER.careful and line.reading.must_wait(LOOK_INTERVAL if until is None else seconds_until(until)):
                return None, until is not None and time.monotonic_ns() >= until
            work, came = line.reading.read()
            if not came and line.broken is not None:
                line.end_by(line.broken)
            return work, False
        return None, until is not None and time.monotonic_ns() >= until

    def _listen(self) -> Bell:
        """Return what wakes this thread while it polls."""
        if self.bell is None:
            self.bell = Bell()
            self._line.family.listen(self.bell)
        return self.bell

    def wake_leader(self) -> None:
        """Let the thread that reads look again: there is something to send, or to serve."""
        if self.bell is not None:
            self.bell.ring()

    def _follow(self, waiter: Waiter, until: int | None, pumps: Sequence[Pump]) -> Work | None:
        """Sleep until another thread has an answer, or lets this one read; meanwhile go on with this thread's own."""
        if not pumps:
            waiter.sleep(until)
            return None
        bell = Bell()
        try:
            with self._line.lock:
                if waiter.is_done or self._leader is None:
                    return None
                waiter.bell = bell
            _ready, pump = poll([(bell.fileno(), READ)], pumps, until)
        finally:
            waiter.bell = None
            bell.close()
        return None if pump is None else pump.work

    def work(self) -> bool:
        """Take one packet that is there, and do what it asks for; return whether there was one.

        If another thread reads, that one takes it.
        """
        line = self._line
        waiter = Waiter()
        work: Work | None = None
        came = False
        try:
            with line.lock:
                if self._leader is None and not line.is_lost:
                    self._leader = waiter
            if self._leader is waiter:
                line.flush()
                if line.reading.left_over is not None:
                    work, came = line.reading.read_again(), True
                elif not CLOSER.careful or not line.reading.must_wait(0):
                    work, came = line.reading.read()
        finally:
            self.leave(waiter)
        if line.family.errands:
            line.family.run_errands()
        if work is not None:
            work()
        return came

    def close(self) -> None:
        """Wake nobody any more."""
        if self.bell is not None:
            self._line.family.leave(self.bell)
            self.bell.close()
