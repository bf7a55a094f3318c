"""The call that a handler answers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Awaitable, Mapping
from contextvars import copy_context
from typing import Any, TypeVar

from seqrpc.aio.connection import Connection
from seqrpc.aio.places import runs_here
from seqrpc.errors import WrongLoop
from seqrpc.interface.scope import Scope, scope
from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import LOOP_LOOK_INTERVAL
from seqrpc.protocol.messages import Request

T = TypeVar("T")


class CurrentCall(Scope, kw_only=True, eq=False):
    """The call that a handler answers; nothing in it is to be changed."""

    request: Request
    """What came, for those who want to see it."""

    caller: Credentials
    """Who calls, by the kernel's word: whoever made the connection, or on a socket pair the packet's sender."""

    connection: Connection
    """The connection that the call came on, to call back."""

    task: asyncio.Task[Any] | None = None
    """The task of its handler; None in the handler's first step, and of one that never waits."""

    @property
    def method(self) -> str:
        """Its name on the wire, ``Service.method``."""
        return self.request.method

    @property
    def meta(self) -> Mapping[str, str]:
        """What the caller sent along with :func:`seqrpc.metadata`."""
        return self.request.options.meta or {}

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, in seconds of ``time.monotonic()``, or None."""
        nanoseconds = self.request.options.deadline
        return None if nanoseconds is None else nanoseconds / 1e9

    def run(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the call's event loop, and wait for it: for handlers that run in threads.

        ``seqrpc.current_call().run(connection.proxy(Screen).show("working"))`` in a plain function is what ``await
        connection.proxy(Screen).show("working")`` is in a coroutine function. It has the context of whoever calls
        this: the deadline of the call, ``seqrpc.metadata``, ``current_call()``. What it returns is returned.

        It belongs to the call. Is that cancelled, because its caller gave up, its deadline passed or its connection
        ended, the awaitable is cancelled too.

        Args:
            awaitable: a coroutine, or a future of that loop.

        Raises:
            Exception: what the awaitable raises.
            concurrent.futures.CancelledError: it was cancelled, the call is over, or the event loop was closed; as
                from the futures of ``asyncio.run_coroutine_threadsafe``.
            WrongLoop: this is the loop's own thread, which would wait for itself; ``await`` it there.
            WrongProcess: this is a fork of the process that answers the call.
        """
        loop = self.connection.get_loop()
        errand = _within(self, awaitable)
        try:
            self.connection.check_process()
            if runs_here(loop):
                raise WrongLoop(
                    "current_call().run(...) on the event loop's own thread would wait for itself: use await"
                )
            context = copy_context()
            if not context.run(_is_inside, self):  # a thread that the handler started
                context.run(scope.set, self)
            future = context.run(_send_to, loop, errand)
            while not concurrent.futures.wait([future], LOOP_LOOK_INTERVAL).done:
                if loop.is_closed() and not future.done():
                    raise concurrent.futures.CancelledError("the event loop was closed")
        finally:
            for coroutine in (errand, awaitable):  # what never began is not to complain
                if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                    coroutine.close()
        result: T = future.result()
        return result


async def _within(call: CurrentCall, awaitable: Awaitable[T]) -> T:
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


def _is_inside(call: CurrentCall) -> bool:
    try:
        return current_call() is call
    except LookupError:
        return False


def current_call() -> CurrentCall:
    """Return the call that the running handler answers, also in a plain function's thread.

    Raises:
        LookupError: no handler is running here.
    """
    here: Scope | None = scope.get()
    while here is not None:
        if isinstance(here, CurrentCall):
            return here
        here = here.outer
    raise LookupError("current_call() works inside a handler only")
