"""The kinds of handlers: coroutine functions, async generators, and plain functions in threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import copy_context
from typing import Any

from seqrpc.aio.accounts import Account
from seqrpc.aio.answers import Answers
from seqrpc.aio.current import HandledCall
from seqrpc.calls.departures import Source
from seqrpc.errors import RpcError
from seqrpc.interface.functions import Runs, call_plain, wraps_wrongly
from seqrpc.kernel.descriptors import OwnedFd, close_all


async def handle(
    call: HandledCall, args: Sequence[Any], kwargs: dict[str, Any], account: Account, answers: Answers
) -> Any:
    """Run a handler that is not, or may not be, an ``async def``, and return its result.

    Args:
        call: what it answers.
        args: its arguments by position, and
        kwargs: by name.
        account: of the caller's user; has threads for plain functions.
        answers: lets go of what a thread returns after its call ended.
    """
    handler, spec = call.entry.handler, call.entry.spec
    if spec.description.runs is Runs.COROUTINE:
        return await _to_await(call, handler(*args, **kwargs))
    if spec.description.runs is Runs.GENERATOR:
        return _stream_of(call, handler(*args, **kwargs))
    return await _run_in_thread(call, functools.partial(handler, *args, **kwargs), account, answers)


def _to_await(call: HandledCall, coroutine: Any) -> Awaitable[Any]:
    """Return what a plain function returned that wraps a coroutine function, if it can be awaited."""
    if not isinstance(coroutine, Awaitable):
        raise wraps_wrongly(call.entry.spec.function, "a coroutine function", coroutine, "something to await")
    return coroutine


def _stream_of(call: HandledCall, generator: AsyncIterator[Any]) -> Source:
    """Return what the answer's stream is made of. It outlives the call, with the descriptors that came with it."""
    if not hasattr(type(generator), "__aiter__"):
        function = call.entry.spec.function
        raise wraps_wrongly(function, "an async generator function", generator, "an async iterator")
    fds, call.request.fds = call.request.fds, []
    call.deadline_ns = None  # the deadline was for the call; the reader of a stream takes as much as it likes
    return Source(generator, call.request.method, fds, is_sensitive=call.entry.spec.is_sensitive)


async def _run_in_thread(call: HandledCall, function: Callable[[], Any], account: Account, answers: Answers) -> Any:
    """Run a plain function. A thread cannot be stopped: descriptors it was given live as long as it runs."""
    running = account.submit(functools.partial(copy_context().run, call_plain, function))
    try:
        return await asyncio.wrap_future(running)
    except asyncio.CancelledError:
        account.ledger.threads.discard(running)
        fds, call.request.fds = call.request.fds, []
        running.add_done_callback(functools.partial(_clean_up_after_thread, answers, fds))
        raise


def _clean_up_after_thread(answers: Answers, fds: list[OwnedFd], finished: concurrent.futures.Future[Any]) -> None:
    """Close what a thread was given, and what it returned or raised, once it ends after its call did."""
    close_all(fds)
    if finished.cancelled():
        return
    exc = finished.exception()
    if exc is None:
        answers.give_up(finished.result())
    elif isinstance(exc, RpcError):
        answers.give_up(getattr(exc, "data", None))
