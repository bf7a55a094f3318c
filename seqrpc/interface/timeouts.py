"""Time-outs of calls, which their other sides are told of, with an event loop and without."""

from __future__ import annotations

import sys
import time
from contextvars import Context, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from seqrpc import twin
from seqrpc.errors import DeadlineExceeded, Execution
from seqrpc.interface.alarms import Alarm, alarms_of
from seqrpc.interface.scope import Scope, bounded, scope

_TIME_IS_UP = "the time given by seqrpc.timeout is up"


class _Bounds:
    """What a :class:`Timeout` does, with all that it is made of in either twin."""

    if TYPE_CHECKING:
        _with_loop: bool
        _delay: float | None
        _bound: int | None
        _token: Token[Scope]
        _task: Any
        _cancelling: int
        _alarm: Alarm | None
    else:
        __slots__ = ()

    async def enter(self) -> None:
        """Bound what happens in the task from now on."""
        if self._task is not None:
            raise RuntimeError(f"{self!r} is entered already: make one for each block")
        asyncio = sys.modules["asyncio"]  # whoever is here has loaded it, and others need not
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError(f"{self!r} is entered in a task")
        self._cancelling = task.cancelling()
        now = time.monotonic_ns()
        inside = bounded(scope.get(), self._delay, now)
        deadline_ns = inside.deadline_ns
        self._token = scope.set(inside)
        self._task, self._alarm = task, None
        if deadline_ns is not None:
            alarms = alarms_of(loop)
            self._alarm = alarms.set((deadline_ns - now) / 1e9, cancel_task, task)
            if deadline_ns <= now:  # before what is called in the loop's next turn: a timer may come after that
                loop.call_soon(alarms.ring, context=Context())

    async def leave(
        self, _kind: type[BaseException] | None, exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """End the bound. As in ``asyncio.timeout``, time that is up counts unless the task is cancelled besides."""
        alarm, task, self._task = self._alarm, self._task, None
        in_time = alarm is None or alarm.cancel()  # first: another task that leaves the block cannot reset
        scope.reset(self._token)
        if in_time:
            return
        is_ours = task.uncancel() <= self._cancelling
        if isinstance(exc, DeadlineExceeded):
            return
        if isinstance(exc, TimeoutError) or (is_ours and isinstance(exc, sys.modules["asyncio"].CancelledError)):
            raise DeadlineExceeded(_TIME_IS_UP) from exc

    def __enter__(self) -> None:
        """Bound the blocking calls that are made in this thread from now on."""
        if self._with_loop and _loop_runs():
            raise TypeError(f"{self!r} is entered by 'async with', not by 'with'")
        outer = scope.get()
        inside = bounded(outer, self._delay, time.monotonic_ns())
        self._bound = inside.deadline_ns
        try:
            self._token = scope.set(inside)
        except BaseException:  # a signal handler came between: the block never begins
            scope.set(outer)
            raise

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """End the bound."""
        scope.reset(self._token)  # first: a signal handler may come between any two calls
        deadline_ns: int | None = self._bound
        if not isinstance(exc, DeadlineExceeded) or deadline_ns is None or exc.execution is Execution.DID_NOT_RUN:
            return  # that a call was not sent says more
        if deadline_ns <= time.monotonic_ns():  # a call inside was given up, here or there
            error = DeadlineExceeded(_TIME_IS_UP)
            error.execution = exc.execution
            raise error from exc

    def __repr__(self) -> str:
        """Return how it was made."""
        return f"seqrpc.{'' if self._with_loop else 'blocking.'}timeout({self._delay!r})"


if TYPE_CHECKING or twin.native is None:

    class Timeout(_Bounds):
        """What :func:`seqrpc.timeout` gives: ``async with`` enters it on an event loop, ``with`` where none runs.

        It is a class, for entering a generator takes longer than a call.
        """

        __slots__ = ("_alarm", "_bound", "_cancelling", "_delay", "_task", "_token", "_with_loop")

        def __init__(self, delay: float | None, *, with_loop: bool = True) -> None:
            """Bound nothing yet."""
            self._delay = delay
            self._with_loop = with_loop  # whether it is known that calls on an event loop are meant if one runs
            self._task = None  # which it bounds now

        __aenter__ = _Bounds.enter
        __aexit__ = _Bounds.leave

else:

    class Timeout(twin.native.Timeout, _Bounds):
        """The same, entered and left in C where nothing is out of the ordinary (native/timeouts.c)."""

        __slots__ = ()


def cancel_task(task: Any) -> None:
    """End a block whose time is up."""
    task.cancel()


def _loop_runs() -> bool:
    """Return whether an event loop runs in this thread."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except RuntimeError:
        return False


def timeout(delay: float | None) -> Timeout:
    """Bound what happens inside to ``delay`` seconds, and tell the other side of calls when time is up.

    The earlier deadline holds where several are inside one another; a handler starts with its caller's.
    None adds no bound.

    On an event loop it is entered by ``async with``, and bounds whatever is awaited inside. Elsewhere it is entered by
    ``with``, and bounds the calls of blocking connections and the reading of their streams: nothing else can be
    interrupted. Where a loop runs, ``with`` is a mistake, and raises a TypeError; code that blocks even there, as in a
    notebook, has :func:`seqrpc.blocking.timeout`.

    Raises:
        DeadlineExceeded: time is up. It is a :class:`TimeoutError` too.
    """
    return Timeout(delay)
