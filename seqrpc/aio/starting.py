"""How handlers begin: each in a task of its own, which nothing else uses before or after. Streams share their turns."""

from __future__ import annotations

import asyncio
import sys
import time
from _asyncio import Future as StockFuture
from _asyncio import Task as StockTask
from asyncio import _enter_task, _leave_task
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from seqrpc.aio.shares import share_of

_ENDED_AT_ONCE: Final = 16
"""The most of one user's that are told in one turn of the loop to end, over all connections: each does so in the
next."""

_ENDING_TURNS: Final = 128
"""Where so many times more wait, more are told: a server that stops has little time, however many there are."""

_MOST_TOLD: Final = 64
"""Of those that wait, at most so many are told in one turn that it is theirs: telling takes time from others, too."""


def begins_at_once() -> bool:
    """Return whether tasks can begin at once: on Python 3.11 not if others than asyncio's own stand in their place."""
    return sys.version_info >= (3, 12) or asyncio.Task is StockTask


class FirstStep(StockFuture[None]):
    """Stands for the loop while a task is made on Python 3.11, and keeps the step that a loop would take later.

    It is a future only because that keeps what it is given to call, with its context, without a function of Python.
    """

    call_soon = StockFuture.add_done_callback
    get_debug = bool  # where the task was made is noted once it is the loop's

    def call_exception_handler(self, context: dict[str, object]) -> None:
        """Say nothing of a task that could not be made: that is raised."""


class Starts(Protocol):
    """Whatever has a coroutine started."""

    has_begun: bool
    """Whether its first step was taken; to be set by it."""

    is_paced: bool
    """Whether it is to ask :meth:`Pace.must_wait` as it begins, and to take its callback back."""

    task: asyncio.Task[Any] | None
    """Its task, if that is not done yet."""

    def __call__(self, task: asyncio.Task[Any], /) -> object:
        """Hear that its task ended before it began."""
        ...


class Pace:
    """How handlers of one user begin in the turns of a loop: of all its connections, for as long as those are read.

    Streams that leave for the user go on likewise (:meth:`is_over`): hundreds, each of which has something to send,
    take as much of a turn as one.

    Those that come too late in a turn wait in line, and the connections take turns. Everything else that the loop has
    to do goes first, handlers of other users before all. As long as any wait, new ones wait behind them.
    In each turn, as many are told to begin as began in the turn before, or twice as many if none came too late.
    """

    __slots__ = (
        "__weakref__", "_again", "_ended", "_ending", "_ends", "_late", "_lines", "_loop", "_told", "_uid", "started",
        "turn_ends", "waiting",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, uid: int | None) -> None:
        """Begin with nobody in line."""
        self._loop = loop
        self._uid = uid
        self.turn_ends = 0.0
        """When a turn ends in which several begin; 0 while there is none."""
        self._ends = False  # whether the loop is going to call the end of the turn
        self._lines: deque[deque[asyncio.Future[None]]] = deque()  # none of them empty
        self._again: deque[asyncio.Future[None]] = deque()  # told, but came too late; they go before the lines
        self._late: list[asyncio.Future[None]] = []  # the same, of this turn
        self._told = 1
        self._ended = 0  # how many were told to end in this turn
        self._ending: deque[Callable[[], object]] = deque()  # what is to be told to end
        self.waiting = 0
        """Handlers that are in line, or were told that it is their turn, and have not begun."""
        self.started = 0
        """Handlers that were started, and have neither begun nor lined up."""

    def must_wait(self) -> bool:
        """Return whether what is about to begin should let the others on the loop go first.

        It no longer counts among the :attr:`started`. If nothing is :attr:`started` or :attr:`waiting`, and there is no
        turn, it is alone and need not ask.
        """
        if self.waiting:
            return True
        if self.turn_ends:
            return time.monotonic() >= self.turn_ends
        if self.started:  # else this one is alone in its turn
            self._begin_turn()
        return False

    def is_over(self) -> bool:
        """Return whether whatever has run for a moment, and has more to do, should wait, rather than go on next turn.

        It counts in the turn from here on: one that is asked by nobody before begins.
        """
        if not self.turn_ends:
            self._begin_turn()
            return False
        return self.waiting > 0 or time.monotonic() >= self.turn_ends

    def end(self, stop: Callable[[], object]) -> bool:
        """Have something of the user's told to end, by calling ``stop``: now, or in a later turn if many are told.

        Returns:
            Whether it waits.
        """
        if self._ended >= _ENDED_AT_ONCE or self._ending:
            self._ending.append(stop)
            return True
        if not self._loop.is_closed():
            if not self._ended:
                self._loop.call_soon(self._end_some, context=Context())
            self._ended += 1
        self._tell(stop)
        return False

    def _end_some(self) -> None:
        """Begin another turn, with those that wait."""
        number = self._ended = min(max(_ENDED_AT_ONCE, len(self._ending) // _ENDING_TURNS), len(self._ending))
        if number:
            self._loop.call_soon(self._end_some, context=Context())
        for _ in range(number):
            self._tell(self._ending.popleft())

    def _tell(self, stop: Callable[[], object]) -> None:
        try:
            stop()
        except Exception as exc:  # a task of another class; the others are to be told all the same
            self._loop.call_exception_handler({"message": "a task could not be cancelled", "exception": exc})

    def _begin_turn(self) -> None:
        self.turn_ends = time.monotonic() + share_of(self._uid, self._loop).turn_seconds
        self._end_soon()

    async def wait(self, line: deque[asyncio.Future[None]]) -> None:
        """Wait for a turn, as the last in the line of a connection.

        Cancel: the place in line is given up.
        """
        turn = self._loop.create_future()
        if not line:
            self._lines.append(line)
        line.append(turn)
        self.waiting += 1
        self._end_soon()
        try:
            while True:
                await turn
                if not self.turn_ends:
                    self._begin_turn()
                    return
                if time.monotonic() < self.turn_ends:
                    return
                turn = self._loop.create_future()
                self._late.append(turn)
        finally:
            self.waiting -= 1
            if turn in line:  # it was not told: give up its place
                line.remove(turn)
                if not line:
                    self._lines.remove(line)  # no other line is empty, so none is equal to it

    def _end_soon(self) -> None:
        if not self._ends:
            self._ends = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        """Tell those whose turn comes next."""
        self.turn_ends, self._ends = 0.0, False
        most = max(1, self._told - len(self._late)) if self._late else min(_MOST_TOLD, 2 * self._told)
        self._again.extendleft(reversed(self._late))
        self._late.clear()
        self._told = 0
        while self._told < most and (self._again or self._lines):
            turn = self._again.popleft() if self._again else self._next_in_line()
            if not turn.done():  # else its task was cancelled
                self._told += 1
                turn.set_result(None)
        self._told = max(1, self._told)
        if self._again or self._lines:
            self._end_soon()

    def _next_in_line(self) -> asyncio.Future[None]:
        line = self._lines.popleft()
        turn = line.popleft()
        if line:
            self._lines.append(line)
        return turn


_paces: Final[WeakValueDictionary[tuple[int, int | None], Pace]] = WeakValueDictionary()


def pace_of(loop: asyncio.AbstractEventLoop, uid: int | None) -> Pace:
    """Return what the connections of one user share on a loop; None: all whom the kernel does not name."""
    key = (id(loop), uid)  # no other loop gets this id while the pace exists: the pace holds the loop
    pace = _paces.get(key)
    if pace is None:
        pace = _paces[key] = Pace(loop, uid)
    return pace


class Starter:
    """Starts coroutines of one connection as tasks of a loop.

    If the loop has a task factory, that makes the tasks, which may begin in the loop's next turn, in order: several in
    one turn, and late ones wait. Otherwise they begin at once, if they can (:func:`begins_at_once`).

    Args:
        loop: the running loop.
        uid: whose connection it is; None if the kernel does not say.
    """

    __slots__ = ("_line", "_loop", "pace")

    def __init__(self, loop: asyncio.AbstractEventLoop, uid: int | None) -> None:
        """Begin with nothing started."""
        self._loop = loop
        self.pace = pace_of(loop, uid)
        """What the connections of one user share."""
        self._line: deque[asyncio.Future[None]] | None = None  # made when needed: it has 760 bytes

    def start(self, context: Context, owner: Starts, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Return the task of ``coroutine``, which may be done already.

        Args:
            context: the coroutine's own.
            owner: is told the task, and called when it ends before the coroutine began.
            coroutine: has not begun; if this fails, the caller still owns it.
        """
        loop = self._loop
        is_free = loop.get_task_factory() is None
        if is_free and sys.version_info >= (3, 12):
            task = asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)
        elif is_free and asyncio.Task is StockTask:  # begins_at_once, of which this saves the call
            first: Any = FirstStep(loop=loop)
            task = asyncio.Task(coroutine, loop=first, context=context)
            StockFuture.__init__(task, loop=loop)  # what it is as a future, it is anew
            ((step, _context),) = first._callbacks  # noqa: SLF001 - its own, as C shows it
            current = asyncio.current_task(loop)
            if current is not None:
                _leave_task(loop, current)
            try:
                context.run(step)
            finally:
                if current is not None:
                    _enter_task(loop, current)
        else:
            owner.is_paced = True
            self.pace.started += 1
            try:
                if is_free:
                    task = asyncio.Task(coroutine, loop=loop, context=context)
                else:
                    task = context.run(loop.create_task, coroutine)  # not every factory takes a context
            except BaseException:
                if not owner.has_begun:
                    self.pace.started -= 1
                raise
            if not owner.has_begun:
                owner.task = task
                task.add_done_callback(owner)
                return task
        if not task.done():
            owner.task = task
        return task

    def never_begun(self) -> None:
        """Hear that something was cancelled before it could begin."""
        self.pace.started -= 1

    async def wait(self) -> None:
        """Let the others on the loop go first.

        Cancel: what is about to begin does not.
        """
        if self._line is None:
            self._line = deque()
        await self.pace.wait(self._line)
