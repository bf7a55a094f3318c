"""Calls that are made to measure them: one after the other as fast as they go, or at a fixed rate.

Tasks make them, one for each call that is unanswered at a time. In a closed loop each makes its next call when it has
the answer to the last, so a server that stands still is asked nothing meanwhile, and what it took is the time of its
service. At a fixed rate each takes the next call that is due, and its time counts from then, whether it could be sent
then or not; one task always waits for the next call, as long as there may be one more.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from seqrpc.aio.caller import Caller
from seqrpc.aio.connection import Connection, link_of
from seqrpc.cli.outcomes import Outcomes
from seqrpc.cli.pacing import Pacer, Schedule
from seqrpc.cli.repeating import Repeated
from seqrpc.errors import ConnectionLost, RpcError
from seqrpc.kernel.descriptors import close_all
from seqrpc.limits import LONGEST_TIMER, Limits
from seqrpc.protocol.messages import Response, error_of

GRACE: Final = 2.0
"""Seconds after the end, and after the time-out if there is one, in which calls may still be answered."""

GRACE_AFTER_INTERRUPT: Final = 1.0
"""The same after Ctrl-C: somebody waits."""

TICK: Final = 0.25
"""Seconds between two looks at how far it is."""

_FOREVER: Final = int(LONGEST_TIMER * 1e9)

_clock: Final = time.monotonic_ns


class Plan(NamedTuple):
    """What is to be measured."""

    seconds: float | None
    """How long; one of this and ``calls`` is given."""

    calls: int | None
    """How many calls."""

    rate: float | None
    """Calls in a second; None is a closed loop."""

    in_flight: int
    """How many calls of one connection may be unanswered."""

    warm_up: float = 0.0
    """Seconds in which calls are made before they count."""

    timeout: float | None = None
    """Seconds for each call."""


class Measurement:
    """Measures calls, once.

    Args:
        plan: how.
        call: what is called, and with what.
        connections: over which.
        tell: called now and then, with what is done of the whole, from 0 to 1, and the outcomes so far.
    """

    def __init__(
        self,
        plan: Plan,
        call: Repeated,
        connections: Sequence[Connection],
        tell: Callable[[float, Outcomes], object] | None = None,
    ) -> None:
        """Measure nothing yet."""
        self._plan = plan
        self._call = call
        self._connections = connections
        self._tell = tell
        self._timeout = None if plan.timeout is None else int(plan.timeout * 1e9)
        self._over = asyncio.Event()
        """No further call is to be made: all is done, it was interrupted, or the connection is lost."""
        self._enough = asyncio.Event()
        """Nothing is waited for any more."""
        self._began: list[int] = []
        """Of each task: since when it waits for an answer; 0 if it does not."""
        self._most = plan.in_flight * len(connections)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._is_over = False
        self._pacer: Pacer | None = None
        self._schedule: Schedule | None = None
        self._first = 0  # of what is due at times, that counts
        self._left = plan.calls
        self._start = self._until = 0
        self._warming = Outcomes(0)
        self.outcomes = Outcomes(0)
        self.is_interrupted = False
        self.lost: Exception | None = None
        """Why the connection ended, if it did."""
        self.processor = 0.0
        """How much of a processor this process used: if that is nearly 1, it is measured, too."""

    async def run(self) -> None:
        """Measure.

        Raises:
            Exception: calls cannot be sent: what is said is wrong.
        """
        loop = asyncio.get_running_loop()
        if self._plan.rate is not None:
            self._pacer = Pacer()  # before time counts: it takes some
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        ticking = asyncio.create_task(self._tick())
        began, used = _clock(), time.process_time_ns()
        self._begin(began)
        for _ in range(self._most if self._pacer is None else 1):
            self._add_task()
        try:
            await self._wait(self._over, self._until - began)
            if self.is_interrupted or self.lost is not None or self._pacer is None:
                self._end()
            await self._wait(self._enough, self._grace)
            if self._failure is not None:
                raise self._failure
            if not self._tasks:
                self._round_off()
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            self._abandon()
            left = [ticking, *self._tasks]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            if self._pacer is not None:
                self._pacer.close()
            self.processor = (time.process_time_ns() - used) / max(1, _clock() - began)

    def _begin(self, now: int) -> None:
        plan = self._plan
        self._start = now + int(plan.warm_up * 1e9)
        self._until = now + _FOREVER if plan.seconds is None else self._start + int(plan.seconds * 1e9)
        self.outcomes = Outcomes(self._start)
        if plan.rate is not None:
            self._first = warm = round(plan.warm_up * plan.rate)
            self._start = now + round(warm * 1e9 / plan.rate)
            self.outcomes = Outcomes(self._start)
            count = None if plan.calls is None else plan.calls + warm
            seconds = None if plan.seconds is None else plan.seconds + warm / plan.rate
            self._schedule = Schedule(now, plan.rate, count=count, seconds=seconds)
            self._until = min(self._until, self._schedule.due(self._schedule.count))

    @staticmethod
    async def _wait(event: asyncio.Event, most: int) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), min(most / 1e9, LONGEST_TIMER))

    @property
    def _grace(self) -> int:
        if self.is_interrupted:
            return int(GRACE_AFTER_INTERRUPT * 1e9)
        return int(GRACE * 1e9) + (self._timeout or 0)

    # The tasks

    def _add_task(self) -> None:
        self._began.append(0)
        task = asyncio.create_task(self._work(len(self._began) - 1))
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._failure = self._failure or task.exception()
        if not self._tasks or self._failure is not None:
            self._end(enough=True)

    def _add_if_none_waits(self) -> None:
        assert self._pacer is not None
        if not self._is_over and not self._pacer.has_waiting and len(self._began) < self._most:
            self._add_task()

    async def _work(self, place: int) -> None:
        connection = self._connections[place % len(self._connections)]
        caller = link_of(connection).caller
        loop = asyncio.get_running_loop()
        take = self._take if self._schedule is None else self._schedule.take
        while not self._is_over:
            due = take()
            if due is None:
                return
            if self._pacer is not None:
                if due > _clock() and not await self._pacer.wait(due):
                    return
                if not self._pacer.has_waiting:
                    loop.call_soon(self._add_if_none_waits)
            outcomes = self.outcomes if due >= self._start else self._warming
            self._began[place] = due
            try:
                await self._make(caller, due, outcomes)
            except Exception as exc:
                self._began[place] = 0
                self._fail(due, exc, connection, outcomes)
                await asyncio.sleep(0)  # what fails at once must not keep the loop
            else:
                self._began[place] = 0

    def _take(self) -> int | None:
        """Return now, if one more call is to be made."""
        now = _clock()
        if now >= self._until or self._left == 0:
            return None
        if self._left is not None and now >= self._start:
            self._left -= 1
        return now

    async def _make(self, caller: Caller, due: int, outcomes: Outcomes) -> None:
        call = self._call
        deadline = None if self._timeout is None else due + self._timeout
        if self._schedule is not None:
            outcomes.lateness.add(_clock() - due)
        if call.is_constant:
            await caller.request(call.name, call.params, deadline, None, _let_go)
        else:
            with call.opened() as params:
                await caller.request(call.name, params, deadline, None, _let_go)
        now = _clock()
        outcomes.succeed(now, now - due)

    def _fail(self, due: int, error: Exception, connection: Connection, outcomes: Outcomes) -> None:
        now = _clock()
        is_lost = isinstance(error, ConnectionLost) or connection.closing_reason is not None
        if not is_lost and not isinstance(error, RpcError):
            raise error  # it cannot be sent, and never will
        outcomes.fail(now, now - due, error)
        if is_lost and self.lost is None:
            self.lost = error
            self._end()

    # The end

    def _round_off(self) -> None:
        """Count the time until one more call would be due: else there would be more in a second than were due."""
        if self._schedule is not None and not self.is_interrupted and self.lost is None:
            self.outcomes.ended = max(self.outcomes.ended, self._until)

    def _end(self, *, enough: bool = False) -> None:
        self._is_over = True
        self._over.set()
        if self._pacer is not None:
            self._pacer.let_go()
        if enough:
            self._enough.set()

    def _interrupt(self) -> None:
        self._end(enough=self.is_interrupted)
        self.is_interrupted = True

    def _abandon(self) -> None:
        """Count what is given up."""
        now = _clock()
        for due in filter(None, self._began):
            if due >= self._start:
                self.outcomes.give_up(now, now - due)
        if self._schedule is not None:
            self.outcomes.leave_out(now, self._schedule.overdue(now, self._first), self._schedule.due)

    async def _tick(self) -> None:
        while self._tell is not None:
            await asyncio.sleep(TICK)
            self._tell(self._part_done(), self.outcomes)

    def _part_done(self) -> float:
        now, plan = _clock(), self._plan
        parts = [0.0]
        if plan.seconds is not None:
            parts.append((now - self._start) / max(1, self._until - self._start))
        if plan.calls is not None:
            parts.append(self.outcomes.calls / plan.calls)
        return min(1.0, max(parts))


def _let_go(answer: Response, limits: Limits) -> None:  # noqa: ARG001 - the signature is given
    """Close what came with an answer.

    Raises:
        RpcError: it is an error.
    """
    if answer.fds:
        close_all(answer.fds)
    if answer.error is not None:
        raise error_of(answer.error)
