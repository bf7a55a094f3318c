"""The call that a handler answers: as it is run, and as the handler sees it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Awaitable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from seqrpc.aio.connection import Connection, link_of
from seqrpc.aio.places import runs_here
from seqrpc.errors import RpcError, WrongLoop
from seqrpc.interface.alarms import Alarm
from seqrpc.interface.current import AnsweredCall, HandledView, answered_call
from seqrpc.interface.scope import scope
from seqrpc.limits import LOOP_LOOK_INTERVAL

T = TypeVar("T")


class Runner(Protocol):
    """What runs a call."""

    running: Any
    """What else it runs (:class:`~seqrpc.aio.running.RunningCalls`)."""

    def end_unbegun(self, call: HandledCall) -> None:
        """Answer a call whose task was cancelled before its first step."""
        ...


class HandledCall(AnsweredCall, kw_only=True, eq=False):
    """A call that is answered on an event loop."""

    dispatcher: Runner

    task: asyncio.Task[Any] | None = None
    """The task of the handler; None in the handler's first step, and of one that never waits."""

    began: int = 0
    """When its request came, in nanoseconds of ``time.monotonic_ns()``."""

    is_paced: bool = False
    has_begun: bool = False
    coroutine: Coroutine[Any, Any, Any] | None = None
    """What never began, if the task ends so."""

    timer: Alarm | None = None
    """What stops it at its deadline."""

    stopped: RpcError | None = None
    """What to answer if it ends by being cancelled."""

    code: str | None = None
    """Of the error that it is answered with."""

    handling: Any = None
    """What surrounds the handler, if interceptors do (:class:`~seqrpc.aio.interception.Handling`)."""

    def __call__(self, _task: object) -> None:
        """Hear that the task has ended; this is called only while the handler has not begun."""
        self.dispatcher.end_unbegun(self)

    def new_view(self) -> CurrentCall:
        """Return the call as its handler sees it, made anew."""
        return CurrentCall(self)

    def stop(self) -> None:
        """Cancel the handler."""
        if self.task is not None:  # else it is in its first step, which nothing stops
            self.task.cancel()


class CurrentCall(HandledView):
    """The call that a handler answers, as :func:`current_call` tells."""

    __slots__ = ()

    @property
    def connection(self) -> Connection:
        """The connection that the call came on, to call back."""
        connection: Connection = self._call.connection
        link_of(connection).is_known = True
        return connection

    def run(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the call's event loop, and wait for it: for handlers that run in threads.

        ``seqrpc.current_call().run(connection.proxy(Screen).show("working"))`` in a plain function is what ``await
        connection.proxy(Screen).show("working")`` is in a coroutine function. It has the context of whoever calls
        this: the deadline of the call, ``seqrpc.metadata``, ``current_call()``. What it returns is returned.

        The awaitable belongs to the call. If the call is cancelled, because its caller gave up, its deadline passed
        or its connection ended, the awaitable is cancelled too.

        Args:
            awaitable: a coroutine, or a future of that loop.

        Raises:
            Exception: what the awaitable raises.
            concurrent.futures.CancelledError: it was cancelled, the call is over, or the event loop was closed; as
                from the futures of ``asyncio.run_coroutine_threadsafe``.
            WrongLoop: this is the loop's own thread, which would wait for itself; ``await`` it there.
            WrongProcess: this is a fork of the process that answers the call.
        """
        call = self._call
        loop = call.connection.get_loop()
        errand = _within(call, awaitable)
        try:
            link_of(call.connection).check_process()
            if runs_here(loop):
                raise WrongLoop(
                    "current_call().run(...) on the event loop's own thread would wait for itself: use await"
                )
            context = copy_context()
            if not context.run(_is_inside, call):  # a thread that the handler started
                context.run(scope.set, call)
            future = context.run(_send_to, loop, errand)
            while not concurrent.futures.wait([future], LOOP_LOOK_INTERVAL).done:
                if loop.is_closed() and not future.done():
                    raise concurrent.futures.CancelledError("the event loop was closed")
        finally:
            for coroutine in (errand, awaitable):  # what never began must not warn that it was not awaited
                if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                    coroutine.close()
        result: T = future.result()
        return result


async def _within(call: HandledCall, awaitable: Awaitable[T]) -> T:
    """Wait for something as long as a call runs."""
    inner, outer = asyncio.current_task(), call.task
    assert inner is not None
    if outer is None or outer.done():
        raise asyncio.CancelledError("the call is over")

    def stop(_outer: asyncio.Task[Any]) -> None:
        inner.cancel("the call is over")

    outer.add_done_callback(stop)
    try:
        return await awaitable
    finally:
        outer.remove_done_callback(stop)


def _send_to(loop: asyncio.AbstractEventLoop, errand: Any) -> concurrent.futures.Future[Any]:
    """Have a loop run a coroutine in the context that is current here."""
    try:
        return asyncio.run_coroutine_threadsafe(errand, loop)
    except RuntimeError as exc:
        raise concurrent.futures.CancelledError("the event loop was closed") from exc


def _is_inside(call: HandledCall) -> bool:
    return handled_call() is call


def handled_call() -> HandledCall | None:
    """Return the call that the running handler answers, also in a plain function's thread; None outside of any."""
    call = answered_call()
    return call if isinstance(call, HandledCall) else None


if TYPE_CHECKING:

    def current_call() -> CurrentCall:
        """Return the call that the running handler answers: on an event loop it is one of these."""
