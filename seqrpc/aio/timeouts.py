"""Time-outs of calls on an event loop, which their other sides are told of."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from contextvars import Token
from types import TracebackType

from seqrpc.aio.blocks import AsyncBlock
from seqrpc.errors import DeadlineExceeded
from seqrpc.interface.scope import Scope, bounded, scope


class _Bounded(AsyncBlock):
    """What ``async with seqrpc.timeout(...)`` enters; a class, for entering a generator takes longer than the call."""

    __slots__ = ("_bound", "_delay", "_token")

    def __init__(self, delay: float | None) -> None:
        self._delay = delay
        self._bound: asyncio.Timeout
        self._token: Token[Scope]

    async def __aenter__(self) -> None:
        now = time.monotonic_ns()
        inside = bounded(scope.get(), self._delay, now)
        deadline_ns = inside.deadline_ns
        self._bound = asyncio.timeout(None if deadline_ns is None else (deadline_ns - now) / 1e9)
        await self._bound.__aenter__()
        self._token = scope.set(inside)

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

    def __repr__(self) -> str:
        return f"seqrpc.timeout({self._delay!r})"


def timeout(delay: float | None) -> AbstractAsyncContextManager[None]:
    """Bound what happens inside to ``delay`` seconds, and tell the other side of calls when time is up.

    The earlier deadline holds where several are inside one another; a handler starts with its caller's.
    None adds no bound.

    Raises:
        DeadlineExceeded: time is up. It is a :class:`TimeoutError` too.
    """
    return _Bounded(delay)
