"""What surrounds a call: until when, and with what metadata."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar, Token, copy_context
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from seqrpc.errors import DeadlineExceeded

T = TypeVar("T")


class Scope(msgspec.Struct, eq=False):
    """What calls that are made here take along. A handler's is its :class:`~seqrpc.CurrentCall`."""

    deadline_ns: int | None = None
    outgoing_meta: dict[str, str] | None = None
    outer: Scope | None = None


_FOREVER = 1e9  # seconds, 31 years; no bound, for the wire's 64 bits hold only 19 times as much

EVERYWHERE = Scope()
"""The scope outside of any."""

scope: ContextVar[Scope] = ContextVar("seqrpc.scope", default=EVERYWHERE)


def run_outside(function: Callable[..., T], *args: Any) -> T:
    """Call a function outside of any scope: what it leaves on the loop is not to keep the call that is running now."""
    context = copy_context()
    context.run(scope.set, EVERYWHERE)
    return context.run(function, *args)


class _Bounded:
    """What ``async with seqrpc.timeout(...)`` enters; a class, for entering a generator takes longer than the call."""

    __slots__ = ("_bound", "_delay", "_token")

    def __init__(self, delay: float | None) -> None:
        self._delay = delay
        self._bound: asyncio.Timeout
        self._token: Token[Scope]

    async def __aenter__(self) -> None:
        outer, delay, now = scope.get(), self._delay, time.monotonic_ns()
        deadline_ns = outer.deadline_ns
        if delay is not None and not delay >= _FOREVER:
            own = now + int(delay * 1e9)
            deadline_ns = own if deadline_ns is None else min(own, deadline_ns)
        self._bound = asyncio.timeout(None if deadline_ns is None else (deadline_ns - now) / 1e9)
        await self._bound.__aenter__()
        self._token = scope.set(Scope(deadline_ns, outer.outgoing_meta, outer))

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        scope.reset(self._token)
        try:
            await self._bound.__aexit__(kind, exc, tb)
        except TimeoutError as timeout:
            raise DeadlineExceeded("the time given by seqrpc.timeout is up") from timeout
        if self._bound.expired() and isinstance(exc, TimeoutError) and not isinstance(exc, DeadlineExceeded):
            raise DeadlineExceeded("the time given by seqrpc.timeout is up") from exc


def timeout(delay: float | None) -> AbstractAsyncContextManager[None]:
    """Bound what happens inside to ``delay`` seconds, and tell the other side of calls when time is up.

    The earlier deadline holds where several are inside one another; a handler starts with its caller's.
    None adds no bound.

    Raises:
        DeadlineExceeded: time is up. It is a :class:`TimeoutError` too.
    """
    return _Bounded(delay)


@contextmanager
def metadata(**entries: str) -> Iterator[None]:
    """Send ``entries`` along with the calls made inside, for the other side's ``current_call().meta``.

    They add to those of an outer block. A handler's own calls do not take its caller's along.

    Raises:
        TypeError: a value is no string.
    """
    for key, value in entries.items():
        if not isinstance(value, str):
            raise TypeError(f"metadata are strings, got {value!r} for {key!r}")
    outer = scope.get()
    token = scope.set(Scope(outer.deadline_ns, {**(outer.outgoing_meta or {}), **entries}, outer))
    try:
        yield
    finally:
        scope.reset(token)
