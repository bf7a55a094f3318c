"""The call that a handler answers: as it is run, and as the handler sees it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import weakref
from collections.abc import Awaitable, Coroutine, Mapping
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from seqrpc.aio.connection import Connection, link_of
from seqrpc.aio.places import runs_here
from seqrpc.errors import RpcError, WrongLoop
from seqrpc.interface.scope import Scope, scope
from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import LOOP_LOOK_INTERVAL
from seqrpc.protocol.messages import Request

T = TypeVar("T")


class Runner(Protocol):
    """What runs a call."""

    running: Any
    """What else it runs (:class:`~seqrpc.aio.running.RunningCalls`)."""

    def end_unbegun(self, call: HandledCall) -> None:
        """Answer a call whose task was cancelled before its first step."""
        ...


class HandledCall(Scope, kw_only=True, eq=False):
    """A request, and the handler that runs, or is about to run, for it. It surrounds calls that the handler makes."""

    request: Request
    caller: Credentials
    connection: Connection
    dispatcher: Runner
    entry: Any
    """The method (:class:`~seqrpc.aio.registry.Entry`)."""

    task: asyncio.Task[Any] | None = None
    """The task of the handler; None in the handler's first step, and of one that never waits."""

    is_paced: bool = False
    has_begun: bool = False
    coroutine: Coroutine[Any, Any, Any] | None = None
    """What never began, if the task ends so."""

    timer: asyncio.TimerHandle | None = None
    """What stops it at its deadline."""

    stopped: RpcError | None = None
    """What to answer if it ends by being cancelled."""

    view: weakref.ref[CurrentCall] | None = None
    """The call as its handler sees it, made when it looks; not held, for it holds the call."""

    handling: Any = None
    """What surrounds the handler, if interceptors do (:class:`~seqrpc.aio.interception.Handling`)."""

    def __call__(self, _task: object) -> None:
        """Hear that the task has ended; this is called only while the handler has not begun."""
        self.dispatcher.end_unbegun(self)

    def stop(self) -> None:
        """Cancel the handler."""
        if self.task is not None:  # else it is in its first step, which nothing stops
            self.task.cancel()


class CurrentCall:
    """The call that a handler answers, as :func:`current_call` tells."""

    __slots__ = ("__weakref__", "_call")

    def __init__(self, call: HandledCall) -> None:
        """Wrap a call."""
        self._call = call

    @property
    def method(self) -> str:
        """Its name on the wire, ``Service.method``."""
        return self._call.request.method

    @property
    def caller(self) -> Credentials:
        """Who calls, by the kernel's word: whoever made the connection, or on a socket pair the packet's sender."""
        return self._call.caller

    @property
    def connection(self) -> Connection:
        """The connection that the call came on, to call back."""
        return self._call.connection

    @property
    def meta(self) -> Mapping[str, str]:
        """What the caller sent along with :func:`seqrpc.metadata`."""
        return self._call.request.options.meta or {}

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, in seconds of ``time.monotonic()``, or None."""
        nanoseconds = self._call.request.options.deadline
        return None if nanoseconds is None else nanoseconds / 1e9

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

    def __repr__(self) -> str:
        """Return which method is called, and by whom."""
        return f"<CurrentCall {self.method} caller={self.caller}>"


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
    here: Scope | None = scope.get()
    while here is not None:
        if isinstance(here, HandledCall):
            return here
        here = here.outer
    return None


def current_call() -> CurrentCall:
    """Return the call that the running handler answers, also in a plain function's thread.

    Raises:
        LookupError: no handler is running here.
    """
    call = handled_call()
    if call is None:
        raise LookupError(
            "current_call() works inside a handler only: take there what is needed elsewhere, and pass it on"
        )
    return view_of(call)


def view_of(call: HandledCall) -> CurrentCall:
    """Return a call as its handler sees it."""
    view = None if call.view is None else call.view()
    if view is None:
        view = CurrentCall(call)
        call.view = weakref.ref(view)
    return view
