"""Handlers start at once, in the turn of the loop that brought their call: most are done before they first wait.

From 3.12 on asyncio does it (``eager_start``). Before, a task's first step waits for the loop's next
turn, and a task is made for a handler that needs none. Here the first step is taken by hand, with the
functions that asyncio documents for other makers of tasks ("Extending asyncio": ``_enter_task``,
``_leave_task``, ``_register_task``, ``_unregister_task``). A coroutine that then waits goes on in the
task that it saw as its own; one that does not leaves that task to the next.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import _enter_task, _leave_task, _register_task, _unregister_task
from collections.abc import Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any

_NOTHING = object()

_LOOKS: dict[str, Any] = {  # what the repr of a task and its print_stack() look at, as long as there is no coroutine
    "__name__": "spare",
    "__qualname__": "spare",
    "cr_await": None,
    "cr_code": None,
    "cr_frame": None,
    "cr_running": False,
}


class _Resumed(Coroutine[Any, Any, None]):
    """What a spare task runs: it waits for a coroutine that has taken its first step already, then runs the rest."""

    __slots__ = ("_context", "_coroutine", "_parked", "_yielded")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._parked = loop.create_future()
        self._parked._asyncio_future_blocking = True  # noqa: SLF001 - as ``await`` marks what it yields
        self._yielded: Any = self._parked
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._context: Context

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Take the first step of ``coroutine`` in a context of its own; return whether it waits now."""
        context = copy_context()
        try:
            yielded = context.run(coroutine.send, None)
        except StopIteration:
            return False
        self._context, self._coroutine, self._yielded = context, coroutine, yielded
        if not self._parked.done():  # it may have cancelled its task, which then wakes for that
            self._parked.set_result(None)
        return True

    def send(self, value: Any) -> Any:
        """Take the next step, for the task."""
        if self._yielded is not _NOTHING:
            yielded, self._yielded = self._yielded, _NOTHING
            return yielded
        assert self._coroutine is not None  # only begin() wakes the task
        return self._context.run(self._coroutine.send, value)

    def throw(self, *exc_info: Any) -> Any:
        """Take the next step with an exception, for the task."""
        yielded, self._yielded = self._yielded, _NOTHING
        if self._coroutine is None:
            raise exc_info[0]
        if asyncio.isfuture(yielded) and isinstance(exc_info[0], asyncio.CancelledError):
            # The task does not know yet what it waits for: cancel that first, as Task.cancel() does.
            message = exc_info[0].args[0] if exc_info[0].args else None
            if yielded.cancel(msg=message):
                return yielded
        return self._context.run(self._coroutine.throw, *exc_info)

    def close(self) -> None:
        """Close the coroutine, as one does that will not be run to its end."""
        if self._coroutine is not None:
            self._coroutine.close()

    def __getattr__(self, name: str) -> Any:
        """Look like the coroutine, to whoever looks at the task."""
        if name not in _LOOKS:
            raise AttributeError(name)
        return _LOOKS[name] if self._coroutine is None else getattr(self._coroutine, name)

    def __await__(self) -> Generator[Any, Any, None]:
        """Refuse: only a task runs it."""
        raise NotImplementedError


class Starter:
    """Starts coroutines as tasks, their first step at once.

    Args:
        loop: the running loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with no task."""
        self._loop = loop
        self._spare: tuple[asyncio.Task[None], _Resumed] | None = None

    def close(self) -> None:
        """Let the spare task go."""
        if self._spare is not None:
            self._spare[0].cancel()
            self._spare = None

    if sys.version_info >= (3, 12):

        def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            """Return a task of ``coroutine``, which has run until it waits or ends, in a context of its own."""
            return asyncio.Task(coroutine, loop=self._loop, eager_start=True)

    else:

        def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            """Return a task of ``coroutine``, which has run until it waits or ends, in a context of its own."""
            loop = self._loop
            task, resumed = self._spare or self._new_spare()
            outer = None
            try:
                _enter_task(loop, task)
            except RuntimeError:  # a task runs here already: step aside
                outer = asyncio.current_task(loop)
                assert outer is not None
                _leave_task(loop, outer)
                _enter_task(loop, task)
            try:
                waits = resumed.begin(coroutine)
            finally:
                _leave_task(loop, task)
                if outer is not None:
                    _enter_task(loop, outer)
            if waits:
                self._spare = None
                _register_task(task)
            elif task.cancelling():  # it cancelled itself, and ended all the same
                self.close()
            return task

        def _new_spare(self) -> tuple[asyncio.Task[None], _Resumed]:
            resumed = _Resumed(self._loop)
            task = asyncio.Task(resumed, loop=self._loop)
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - its loop may end first
            _unregister_task(task)  # nobody's task yet, so nobody is to see it
            self._spare = (task, resumed)
            return self._spare
