"""The lives of services: what surrounds the time in which they are served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar

from seqrpc.interface.scope import run_outside
from seqrpc.interface.service import Service
from seqrpc.kernel import forks
from seqrpc.limits import CANCEL_GRACE, Limits
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.lifespans")

_surrounding: ContextVar[_Life | None] = ContextVar("_surrounding", default=None)
"""The lifespan whose code runs, or that of the task that started this one."""


class _Life:
    """The lifespan of one service, in a task of its own, which enters it and leaves it.

    Task groups, time-outs and cancel scopes belong to a task: so only one task uses those of the lifespan, and if
    they cancel the task that they surround, no other service is affected.
    """

    def __init__(self, service: Service) -> None:
        """Begin to enter it."""
        loop = asyncio.get_running_loop()
        self.name = type(service).service_name
        self.has_begun = loop.create_future()
        self.is_ending = False
        self._may_end = loop.create_future()
        # Outside of the call, or the time-out, in which the server is started: it lives longer.
        self.task = run_outside(lambda: loop.create_task(self._live(service), name=f"lifespan of {self.name}"))

    async def _live(self, service: Service) -> None:
        _surrounding.set(self)
        async with _lifespan_of(service):
            self.has_begun.set_result(None)
            if not self.is_ending:  # it was cancelled while it began, and went on
                await self._may_end

    def check(self) -> None:
        """Raise what it raised, or that it ended, if it has."""
        if self.task.done():
            if not self.task.cancelled():
                self.task.result()
            raise RuntimeError(f"the lifespan of {self.name} ended before the server began")

    async def end(self, patience: float, close_timeout: float) -> None:
        """Leave it; cancel it if it has not been entered yet, or has not been left after ``patience`` seconds."""
        self.is_ending = True
        if self.has_begun.done():
            if not self._may_end.done():
                self._may_end.set_result(None)
            if not await _done(self.task, patience):
                _log.warning("= the lifespan of %s has not ended within %.3g s; it is cancelled", self.name, patience)
        self.task.cancel()
        if not await _done(self.task, close_timeout):
            _log.warning(
                "= the lifespan of %s is still running %g s after it was cancelled; it is not waited for",
                self.name,
                close_timeout,
            )


class Lifespans:
    """The lifespans of the services that are served together: entered one after the other, left in reverse.

    Args:
        services: those whose class has no lifespan of its own cost nothing.
        limits: ``lifespan_timeout`` and ``close_timeout`` are used.
        when_broken: called when one ends that was not told to, once all have begun.
    """

    def __init__(self, services: Iterable[Service], limits: Limits, when_broken: Callable[[], None]) -> None:
        """Find the services that have one."""
        self._services = [service for service in services if type(service).lifespan is not Service.lifespan]
        self._limits = limits
        self._when_broken = when_broken
        self._lives: list[_Life] = []
        self._have_begun = False
        self._others_ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ending: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        if self._services:
            forks.register(self, Lifespans._let_go_in_child)

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._services)

    def _let_go_in_child(self) -> None:
        """Never leave them: this is a copy in a forked child, and to drop a coroutine would run its ``finally``."""
        _of_parents.append((self._lives, self._ending))
        self._services, self._lives, self._ending = [], [], None

    async def begin(self) -> None:
        """Enter them all.

        Raises:
            Exception: what one raised; those that were entered before are left again.
            TypeError: one is no async context manager.

        Cancel: those that were entered are left again.
        """
        try:
            for service in self._services:
                life = _Life(service)
                self._lives.append(life)
                life.task.add_done_callback(lambda _task, life=life: self._ended(life))  # type: ignore[misc]
                waited = [life.has_begun, *(entered.task for entered in self._lives)]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for entered in self._lives:
                    entered.check()
            self._have_begun = True
        except BaseException:
            await self.end()
            raise

    def _ended(self, life: _Life) -> None:
        """Hear that one has ended: as it should, or by itself."""
        failure = None if life.task.cancelled() else life.task.exception()
        if not life.has_begun.done():  # whoever waits for it to begin is told
            return
        if failure is not None:
            self._failure = self._failure or failure
            _log.error("! the lifespan of %s failed", life.name, exc_info=failure)
        if not life.is_ending and self._have_begun:
            if life.task.cancelled():
                life.task.get_loop().call_later(CANCEL_GRACE, self._break, life)
            else:
                self._break(life)

    def _break(self, life: _Life) -> None:
        """Close the server because one of its services has ended, unless it is being closed already."""
        if life.is_ending:
            return
        _log.error("= the lifespan of %s ended before its server, which is closed", life.name)
        self._when_broken()

    async def end(self) -> None:
        """Leave those that were entered, within ``lifespan_timeout``; a second time, wait for that.

        Nothing else of the server runs any more. What they raise is logged, and kept for :meth:`wait`.

        Cancel: they are left all the same.
        """
        if not self._others_ended.done():
            self._others_ended.set_result(None)
        if self._lives and (self._ending is None or self._ending.cancelled()):
            self._ending = asyncio.ensure_future(self._end_all())
        if self._ending is not None:
            await asyncio.wait([self._ending])  # if that is cancelled, this is not

    async def _end_all(self) -> None:
        loop = asyncio.get_running_loop()
        close_timeout = self._limits.close_timeout
        deadline = loop.time() + self._limits.lifespan_timeout
        for life in reversed(self._lives):
            await life.end(max(deadline - loop.time(), close_timeout), close_timeout)

    async def wait(self, closed: asyncio.Future[None]) -> None:
        """Wait until all is closed, and raise what the first raised of those that failed after they had begun.

        Lifespans that call this, and tasks that they started, wait for no lifespan: they would wait for themselves.

        Args:
            closed: done when the lifespans, too, have ended.
        """
        waited = self._others_ended if _surrounding.get() in self._lives else closed
        await asyncio.wait([waited])
        if not waited.cancelled():  # if that is cancelled, this is not
            waited.result()
        if self._failure is not None:
            raise self._failure


_of_parents: list[object] = []
"""Of the processes that this one was forked from, kept for good."""


def _lifespan_of(service: Service) -> AbstractAsyncContextManager[object]:
    """Return the context manager of a service.

    Raises:
        TypeError: it is none; most often the decorator is forgotten.
    """
    lifespan = service.lifespan()
    if not hasattr(lifespan, "__aenter__"):
        if asyncio.iscoroutine(lifespan):
            lifespan.close()
        where = type(service).lifespan.__qualname__
        raise TypeError(f"{where}: an async context manager was expected (@contextlib.asynccontextmanager)")
    body = getattr(lifespan, "gen", None)  # what @contextlib.asynccontextmanager surrounds
    if body is not None and not hasattr(body, "__anext__"):
        body.close()
        raise TypeError(f"{type(service).lifespan.__qualname__}: it is no 'async def' with a 'yield': write one")
    return lifespan


async def _done(task: asyncio.Task[None], patience: float) -> bool:
    """Wait for a task; return whether it has ended in time."""
    await asyncio.wait([task], timeout=patience)
    return task.done()
