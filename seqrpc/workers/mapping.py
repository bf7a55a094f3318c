"""One call for each of many items, as many at a time as are worth it, and their results as they are wanted."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from seqrpc.aio.blocks import AsyncBlock

T = TypeVar("T")

_END: Final = object()

Progress = Callable[[int], object]
"""Called with the number of items that are done, each time that one is."""


class Results(AsyncBlock, Generic[T]):
    """The results of :meth:`seqrpc.WorkerPool.map`, an asynchronous iterator: close it if it is not read to its end.

    Args:
        call: makes the call for one item.
        items: what the calls are for.
        ordered: whether the results come in the order of the items, or as they are there.
        look_ahead: calls that are made at most before the result of the first of them is taken.
        progress: see :data:`Progress`.
    """

    def __init__(
        self,
        call: Callable[[Any], Awaitable[T]],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        ordered: bool,
        look_ahead: int,
        progress: Progress | None,
    ) -> None:
        """Make no call yet: the first are made when the first result is asked for."""
        self._call = call
        self._items = items
        self._ordered = ordered
        self._look_ahead = look_ahead
        self._progress = progress
        self._under_way: deque[asyncio.Future[T]] = deque()  # or done, and not taken
        self._source: Iterator[Any] | AsyncIterator[Any] | None = None
        self._reading: asyncio.Future[Any] | None = None  # of the next item, where the source is asynchronous
        self._has_more = True
        self._done = 0
        self._is_closed = False

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> T:
        """Wait for the next result.

        Raises:
            StopAsyncIteration: there is none.
            Exception: what the call raised, or the source of the items; the calls under way are cancelled.

        Cancel: so are they, and there are no more results.
        """
        if self._is_closed:
            raise StopAsyncIteration
        try:
            result = await self._next()
        except BaseException:
            await self.aclose()
            raise
        self._done += 1
        if self._progress is not None:
            self._progress(self._done)
        return result

    async def _next(self) -> T:
        while True:
            self._make_calls()
            task = self._ready()
            if task is not None:
                self._under_way.remove(task)
                return task.result()
            awaited = [self._under_way[0]] if self._ordered and self._under_way else [*self._under_way]
            reading = [] if self._reading is None else [self._reading]
            if not awaited and not reading:
                raise StopAsyncIteration
            await asyncio.wait([*awaited, *reading], return_when=asyncio.FIRST_COMPLETED)

    def _ready(self) -> asyncio.Future[T] | None:
        """Return a call that has ended, whose turn it is."""
        if self._ordered:
            return self._under_way[0] if self._under_way and self._under_way[0].done() else None
        return next((each for each in self._under_way if each.done()), None)

    def _make_calls(self) -> None:
        """Make calls, up to the bound, for the items that are there."""
        if self._source is None:
            self._source = aiter(self._items) if isinstance(self._items, AsyncIterable) else iter(self._items)
        while self._has_more and len(self._under_way) < self._look_ahead:
            if isinstance(self._source, AsyncIterator):
                if self._reading is None:
                    self._reading = asyncio.ensure_future(_item(self._source))
                if not self._reading.done():
                    return
                reading, self._reading = self._reading, None
                item = reading.result()
            else:
                item = next(self._source, _END)
            if item is _END:
                self._has_more = False
                return
            self._under_way.append(asyncio.ensure_future(self._call(item)))

    async def aclose(self) -> None:
        """Cancel the calls under way, and wait for their ends; the source is closed if it can be."""
        self._is_closed, self._has_more = True, False
        ended = [*self._under_way, *([] if self._reading is None else [self._reading])]
        for task in ended:
            task.cancel()
        if ended:
            await asyncio.wait(ended)
            for task in ended:
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    task.result()
            self._under_way.clear()
            self._reading = None
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    async def __aenter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()


async def _item(source: AsyncIterator[Any]) -> Any:
    """Return the next item, or :data:`_END`."""
    return await anext(source, _END)
