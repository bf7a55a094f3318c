"""Handlers start at once, in the turn of the loop that brought their call: most are done before they first wait.

A task's first step otherwise waits for the loop's next turn, and a task is made for a handler that needs none.
Here the first step is taken by hand, with the functions that asyncio documents for other makers of tasks ("Extending
asyncio": ``_enter_task``, ``_leave_task``, ``_register_task``, ``_unregister_task``). A coroutine that then waits
goes on in the task that it saw as its own; one that does not leaves that task to the next. asyncio's own eager tasks
(3.12 and later) make a task for each coroutine all the same.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task, _register_task, _unregister_task
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from sys import getrefcount
from typing import Any, Final
from weakref import getweakrefcount

_NOTHING: Final = object()

ENDED: Final = object()
"""What a runner yields between two coroutines."""

Runner = Generator[Any, Any, None]
"""Runs one coroutine after the other, each to its end, in the context of whoever resumes it. It yields :data:`ENDED`,
is sent an owner and a coroutine of that, and yields what that waits for. A generator of its own, decorated with
``types.coroutine``: a coroutine that is awaited gives its result without making, raising and catching a
StopIteration, 0.4 to 0.7 µs a call (docs/performance.md)."""

_LOOKS: dict[str, Any] = {  # what the repr of a task and its print_stack() look at, as long as there is no coroutine
    "__name__": "spare",
    "__qualname__": "spare",
    "cr_await": None,
    "cr_code": None,
    "cr_frame": None,
    "cr_running": False,
}


class _Rest(Coroutine[Any, Any, None]):
    """What a spare task runs: it waits for a coroutine that has taken its first step already, then runs the rest."""

    __slots__ = ("_coroutine", "_parked", "_run", "_runner", "_yielded")

    def __init__(self, loop: asyncio.AbstractEventLoop, runner: Runner) -> None:
        self._parked = loop.create_future()
        self._parked._asyncio_future_blocking = True  # noqa: SLF001 - as ``await`` marks what it yields
        self._yielded: Any = self._parked
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._run: Callable[..., Any]
        self._runner = runner

    def go_on(self, coroutine: Coroutine[Any, Any, Any], yielded: Any, context: Context) -> None:
        """Take over a coroutine that waits for ``yielded``."""
        self._coroutine, self._yielded, self._run = coroutine, yielded, context.run
        if not self._parked.done():  # it may have cancelled its task, which then wakes for that
            self._parked.set_result(None)

    def let_end(self) -> None:
        """Let the task end as one does whose coroutine has ended."""
        if not self._parked.done():
            self._parked.set_result(None)

    def send(self, value: Any) -> Any:
        """Take the next step, for the task."""
        if self._yielded is not _NOTHING:
            yielded, self._yielded = self._yielded, _NOTHING
            return yielded
        if self._coroutine is None:  # it ended in its first step, and somebody knows its task
            raise StopIteration
        return self._step(self._runner.send, value)

    def _step(self, resume: Callable[[Any], Any], value: Any) -> Any:
        yielded = ENDED
        try:
            yielded = self._run(resume, value)
        finally:
            if yielded is ENDED:
                del self._run  # the context refers to whose task this is
        if yielded is ENDED:
            raise StopIteration
        return yielded

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
        return self._step(self._runner.throw, exc_info[0])

    def close(self) -> None:
        """Close the coroutine, as one does that will not be run to its end."""
        self._runner.close()

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
        new_runner: makes what runs them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, new_runner: Callable[[], Runner]) -> None:
        """Begin with no task."""
        self._loop = loop
        self._new_runner = new_runner
        self._spare: tuple[asyncio.Task[None], _Rest, Callable[[Any], Any]] | None = None

    def close(self) -> None:
        """Let the spare task go."""
        if self._spare is not None:
            self._spare[0].cancel()
            self._spare = None

    def start(self, context: Context, owner: object, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[None] | None:
        """Take the first step of ``coroutine``; return the task that takes the others, or None if it ended.

        Args:
            context: the coroutine's own.
            owner: goes to the runner with it.
            coroutine: has not begun. What the runner lets through in its first step is raised here.
        """
        loop = self._loop
        spare = self._spare or self._new_spare()
        task, rest, start = spare
        holders = getrefcount(task)
        try:
            _enter_task(loop, task)
        except RuntimeError:  # a task runs here already
            return self._start_inside(context, owner, coroutine)
        self._spare = None
        try:
            yielded = context.run(start, (owner, coroutine))
        except BaseException:
            rest.let_end()
            raise
        finally:
            _leave_task(loop, task)
        if yielded is not ENDED:
            rest.go_on(coroutine, yielded, context)
            _register_task(task)
            return task
        callbacks = task._callbacks  # noqa: SLF001 - nothing else tells
        if getrefcount(task) != holders or getweakrefcount(task) or callbacks or task.cancelling():
            rest.let_end()  # somebody knows it, and may cancel it later: it is nobody else's task
        else:
            self._spare = spare
        return None

    def _start_inside(
        self, context: Context, owner: object, coroutine: Coroutine[Any, Any, Any]
    ) -> asyncio.Task[None] | None:
        """Start a coroutine while a task runs, which steps aside."""
        outer = asyncio.current_task(self._loop)
        assert outer is not None
        _leave_task(self._loop, outer)
        try:
            return self.start(context, owner, coroutine)
        finally:
            _enter_task(self._loop, outer)

    def _new_spare(self) -> tuple[asyncio.Task[None], _Rest, Callable[[Any], Any]]:
        runner = self._new_runner()
        runner.send(None)
        rest = _Rest(self._loop, runner)
        task = asyncio.Task(rest, loop=self._loop)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - its loop may end first
        _unregister_task(task)  # nobody's task yet, so nobody is to see it
        self._spare = (task, rest, runner.send)
        return self._spare
