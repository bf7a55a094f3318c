"""Where calls wait for a worker: who is there, who has least to do, and whose turn it is."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from seqrpc.calls.outcomes import of_this_call
from seqrpc.errors import DeadlineExceeded, SeqrpcError
from seqrpc.interface.reconnecting import told_anew
from seqrpc.limits import LONGEST_TIMER
from seqrpc.workers.worker import WorkerCallee

_NEVER: Final = math.inf


class Member:
    """A worker of a pool.

    Args:
        callee: makes its calls.
        now: the loop's time.
    """

    __slots__ = ("begun", "callee", "in_flight", "is_leaving", "quiet", "quiet_since")

    def __init__(self, callee: WorkerCallee, now: float) -> None:
        """Begin with no call."""
        self.callee = callee
        self.begun = 0
        """How many calls it was given."""
        self.in_flight = 0
        """How many of them have not ended."""
        self.is_leaving = False
        """Whether it is given no more calls."""
        self.quiet = asyncio.Event()
        """Set while it has nothing to do."""
        self.quiet.set()
        self.quiet_since = now
        """Since when it has had nothing to do, if it has nothing."""


class Hall:
    """The workers that take calls, and the calls that wait for one of them, in their order.

    Args:
        most: calls that one worker is given at a time.
        when_wanted: called when a call has to wait, or has ended: workers may be started, or are to go.
    """

    def __init__(self, most: int, when_wanted: Callable[[Member | None], object]) -> None:
        """Begin with nobody."""
        self._loop = asyncio.get_running_loop()
        self._most = most
        self._when_wanted = when_wanted
        self.members: dict[Member, None] = {}
        """The workers that have begun, and have not ended."""
        self._waiting: OrderedDict[asyncio.Future[Member], None] = OrderedDict()
        self._over: SeqrpcError | None = None  # why nobody is given a worker any more

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiting)

    def add(self, member: Member) -> None:
        """Give one more worker calls."""
        self.members[member] = None
        self._feed()

    def discard(self, member: Member) -> None:
        """Give a worker no more calls: it has ended."""
        member.is_leaving = True
        self.members.pop(member, None)

    def _free(self) -> Member | None:
        """Return the worker that has least to do, if it takes one more call."""
        takers = [each for each in self.members if not each.is_leaving]
        least = min(takers, key=lambda each: each.in_flight, default=None)
        return None if least is None or least.in_flight >= self._most else least

    def _give(self, member: Member) -> Member:
        member.in_flight += 1
        member.quiet.clear()
        member.begun += 1
        return member

    async def take(self, deadline: int | None = None) -> Member:
        """Return a worker for one call, as soon as there is one; :meth:`give_back` it.

        Raises:
            DeadlineExceeded: the deadline, in nanoseconds of ``CLOCK_MONOTONIC``, passed before; nothing was sent.
            SeqrpcError: there will be none.

        Cancel: the place in line is given up.
        """
        if self._over is not None:
            raise told_anew(self._over)
        if not self._waiting and (free := self._free()) is not None:
            return self._give(free)
        turn: asyncio.Future[Member] = self._loop.create_future()
        self._waiting[turn] = None
        self._when_wanted(None)
        left = _NEVER if deadline is None else (deadline - time.monotonic_ns()) / 1e9
        try:
            async with asyncio.timeout(None if left > LONGEST_TIMER else max(left, 0.0)):
                return await turn
        except TimeoutError:
            self._leave(turn)
            raise of_this_call(DeadlineExceeded("the deadline passed before a worker was free")) from None
        except SeqrpcError as exc:  # all who wait are told the same
            raise told_anew(exc) from exc.__cause__
        except BaseException:
            self._leave(turn)
            raise
        finally:
            self._waiting.pop(turn, None)

    def _leave(self, turn: asyncio.Future[Member]) -> None:
        """Give back a worker whose call has gone meanwhile."""
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            member = turn.result()
            member.begun -= 1
            self.give_back(member)

    def give_back(self, member: Member) -> None:
        """Hear that a call has ended, or was never made."""
        member.in_flight -= 1
        if not member.in_flight:
            member.quiet.set()
            member.quiet_since = self._loop.time()
        self._feed()
        self._when_wanted(member)

    def _feed(self) -> None:
        """Give those who wait the workers that are free."""
        while self._waiting and (free := self._free()) is not None:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():  # else its task was cancelled
                turn.set_result(self._give(free))

    def close(self, exc: SeqrpcError) -> None:
        """Give nobody a worker any more."""
        self._over = exc
        self.fail(exc)

    def fail(self, exc: SeqrpcError) -> None:
        """Tell all who wait that there will be no worker."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_exception(exc)
