"""The workers of a pool: how many there are, how they are replaced, and how they go."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from seqrpc.calls.plans import Plan
from seqrpc.errors import ConnectionLost, SeqrpcError, WorkerCrashed, not_run
from seqrpc.interface.scope import outside, run_in
from seqrpc.logs import get_logger
from seqrpc.workers.children import Running, begin
from seqrpc.workers.hall import Hall, Member
from seqrpc.workers.worker import WorkerCallee

_log = get_logger("seqrpc.workers")

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
"""Seconds between the starts of workers that do not begin, or die before they have answered anything."""


class Staff:
    """Keeps as many workers as are wanted.

    Args:
        plan: what each of them is.
        size: how many there are to be.
        calls_per_worker: see :class:`seqrpc.WorkerPool`, as for the rest.
        max_calls: likewise.
        max_memory_bytes: likewise.
        idle_timeout: likewise.
    """

    def __init__(
        self,
        plan: Plan,
        size: int,
        *,
        calls_per_worker: int,
        max_calls: int | None,
        max_memory_bytes: int | None,
        idle_timeout: float | None,
    ) -> None:
        """Begin with nobody."""
        self._loop = asyncio.get_running_loop()
        self._surroundings = outside()
        self._plan = plan
        self.size = size
        """How many workers there are to be."""
        self._calls_per_worker = calls_per_worker
        self._max_calls = max_calls
        self._max_memory_bytes = max_memory_bytes
        self._idle_timeout = idle_timeout
        self.hall = Hall(calls_per_worker, self._wanted)
        self._starting: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._replaced: set[Member] = set()  # those whose successors are being started
        self._delay = 0.0
        self._not_before = 0.0  # by the loop's time
        self._timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self.is_closing = False
        """Whether no worker is started any more."""

    # Starting

    async def begin(self) -> None:
        """Start all, and return when they take calls.

        Raises:
            WorkerCrashed, OSError: one did not begin; the others have ended.
        """
        tasks = [asyncio.ensure_future(self._start()) for _ in range(self.size)]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            self.is_closing = True
            for task in tasks:
                task.cancel()
            self._starting.update(tasks)
            # Shielded: who is cancelled again does not see the end of it, but it goes on.
            await asyncio.shield(asyncio.ensure_future(self._end_all()))
            raise

    async def _start(self) -> None:
        made: list[Member] = []

        def when_ended() -> None:
            for member in made:
                self._ended(member)

        def when_lost() -> None:
            for member in made:
                self._lost(member)

        running = await begin(self._plan, when_ended, when_lost)
        member = Member(WorkerCallee(running), self._loop.time())
        made.append(member)
        if self.is_closing or running.has_ended:
            await running.close()
            return
        self.hall.add(member)
        self._watch_idle()

    @property
    def _coming(self) -> int:
        """How many there are, or will be."""
        staying = sum(not each.is_leaving for each in self.hall.members)
        return staying + len(self._starting) - len(self._replaced)

    def fill(self) -> None:
        """Start as many as are missing, unless too many have died at their start just now."""
        if self.is_closing or self._timer is not None:
            return
        missing = self._wanted_now - self._coming
        if missing <= 0:
            return
        wait = self._not_before - self._loop.time()
        if wait > 0:
            self._timer = self._loop.call_later(wait, self._fill_now)
            return
        for _ in range(missing):
            self._start_one()

    def _fill_now(self) -> None:
        self._timer = None
        self.fill()

    @property
    def _wanted_now(self) -> int:
        """How many there are to be now: where idle ones go, no more than have to do."""
        if self._idle_timeout is None:
            return self.size
        starting = len(self._starting) - len(self._replaced)
        for_waiting = -(-self.hall.waiting // self._calls_per_worker)
        return min(self.size, self._coming - starting + max(starting, for_waiting))

    def _start_one(self, old: Member | None = None) -> None:
        # Not in the call that wanted it: what the child calls here would see what that one has set.
        task = run_in(self._surroundings, asyncio.ensure_future, self._start_quietly(old))
        self._starting.add(task)
        task.add_done_callback(self._started)

    async def _start_quietly(self, old: Member | None) -> None:
        """Start one; what keeps it from beginning is told to the calls that wait, if nobody else is there."""
        try:
            await self._start()
        except Exception as exc:  # what is sent to it is the application's, and the kernel may refuse anything
            self._slow_down()
            _log.warning("! a worker does not begin: %s", exc)
            if not self.hall.members:
                error = exc if isinstance(exc, SeqrpcError) else WorkerCrashed(f"a worker does not begin: {exc}")
                error.__cause__ = exc.__cause__ if error is exc else exc
                self.hall.fail(not_run(error))
        else:
            if old is not None and not self.is_closing:
                self._let_leave(old)
        finally:
            if old is not None:
                self._replaced.discard(old)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and task.exception() is None:
            self.fill()

    def _slow_down(self) -> None:
        self._delay = min(max(2 * self._delay, _FIRST_DELAY), _LONGEST_DELAY)
        self._not_before = self._loop.time() + self._delay

    # Ending

    def _ended(self, member: Member) -> None:
        """Hear that the process of a worker has ended."""
        self._lost(member)
        self.hall.discard(member)
        self._replaced.discard(member)
        self.fill()

    def _lost(self, member: Member) -> None:
        """Give no more calls to a worker whose process or connection has ended, and put another in its place."""
        if member.is_leaving:
            return
        member.is_leaving = True
        if member.begun > member.in_flight:  # it has answered something
            self._delay = 0.0
        elif not self.is_closing:
            self._slow_down()
        self.fill()

    def _wanted(self, member: Member | None) -> None:
        """Look whether a worker is to be started, or is to go."""
        if member is None:
            self.fill()
            return
        if member.is_leaving or self.is_closing:
            return
        if self._is_worn(member):
            if member not in self._replaced and self._loop.time() >= self._not_before:
                self._replaced.add(member)
                self._start_one(member)
        elif not member.in_flight:
            self._watch_idle()
            if sum(not each.is_leaving for each in self.hall.members) > self.size:  # the pool was made smaller
                self._let_leave(member)

    def _is_worn(self, member: Member) -> bool:
        if self._max_calls is not None and member.begun >= self._max_calls:
            return True
        if self._max_memory_bytes is None:
            return False
        return member.callee.running.process.memory_bytes() > self._max_memory_bytes

    def _let_leave(self, member: Member) -> None:
        """Give a worker no more calls, and end it when those that it has have ended."""
        if not member.is_leaving:
            member.is_leaving = True
            task = asyncio.ensure_future(self._leave(member))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _leave(self, member: Member) -> None:
        await member.quiet.wait()
        with contextlib.suppress(Exception):  # a lifespan of what is served to it failed, which was logged
            await member.callee.running.drain()
        self.hall.discard(member)

    def _watch_idle(self) -> None:
        if self._idle_timeout is not None and self._idle_timer is None and not self.is_closing:
            self._idle_timer = self._loop.call_later(self._idle_timeout, self._end_idle)

    def _end_idle(self) -> None:
        """End those that have had nothing to do for so long; look again as long as there are others."""
        assert self._idle_timeout is not None
        self._idle_timer = None
        now = self._loop.time()
        for member in list(self.hall.members):
            if not member.in_flight and not member.is_leaving and now - member.quiet_since >= self._idle_timeout:
                self._let_leave(member)
        if any(not member.is_leaving for member in self.hall.members):
            self._watch_idle()

    async def scale(self, size: int) -> None:
        """Have so many from now on; return when those have come that are to come, and gone that are to go."""
        self.size = size
        self._dismiss_surplus()
        missing = 0 if self.is_closing else size - self._coming
        for _ in range(missing):
            self._start_one()
        await self._settled()
        self._dismiss_surplus()  # some may have come that an earlier scale() had wanted
        await self._settled()

    def _dismiss_surplus(self) -> None:
        """Let those leave that are too many, first those that have least to do."""
        staying = sorted((each for each in self.hall.members if not each.is_leaving), key=lambda each: each.in_flight)
        for member in staying[: max(0, len(staying) - self.size)]:
            self._let_leave(member)

    async def _settled(self) -> None:
        """Return when those have come that are to come now, and gone that are to go."""
        waited = [*self._starting, *self._leaving]
        if waited:
            await asyncio.wait(waited)

    async def close(self) -> None:
        """End all: calls are given up, and those that wait are told so.

        Raises:
            Exception: the lifespan of a service that is served to a worker failed; all have ended all the same.
        """
        for failure in await self._end_all():
            raise failure

    async def _end_all(self) -> list[BaseException]:
        """End all; return what the closing of workers raised."""
        self.is_closing = True
        for timer in (self._timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self.hall.close(not_run(ConnectionLost("the pool was closed on this side")))
        for task in self._starting:
            task.cancel()
        runnings = [member.callee.running for member in self.hall.members]
        closings = [running.close() for running in runnings]
        results = await asyncio.gather(*closings, *self._starting, *self._leaving, return_exceptions=True)
        return [result for result in results[: len(closings)] if isinstance(result, BaseException)]

    @property
    def runnings(self) -> list[Running]:
        """Those that run."""
        return [member.callee.running for member in self.hall.members]

    @property
    def is_unclosed(self) -> bool:
        """Whether nobody has closed it."""
        return not self.is_closing

    def abandon(self) -> None:
        """End all without waiting: nobody refers to the pool any more."""
        self.is_closing = True
        for task in self._starting:
            task.cancel()
        for running in self.runnings:
            running.abandon()

    def __repr__(self) -> str:
        """Return how many there are."""
        return f"<WorkerPool {self._plan.name}: {len(self.hall.members)} of {self.size} workers>"
