"""Coroutines and async generators without an event loop: those that never wait for anything."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any


def drive(awaitable: Any, what: str) -> Any:
    """Return what awaiting something gives.

    Args:
        awaitable: what is awaited.
        what: what it is, for the error.

    Raises:
        RuntimeError: it waits, which takes an event loop.
        TypeError: it cannot be awaited.
        Exception: what it raises.
    """
    is_generator = inspect.isgenerator(awaitable)  # with what types.coroutine says of it
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"{what}: an object of {type(awaitable).__name__} cannot be awaited")
    steps: Any = awaitable if is_generator else awaitable.__await__()
    try:
        next(steps)
    except StopIteration as stop:
        return stop.value
    throw = getattr(steps, "throw", None)
    if throw is not None:
        with contextlib.suppress(Exception, GeneratorExit):  # it may wait at its end, too
            throw(GeneratorExit())  # close() would leave an async generator as one that runs
    raise RuntimeError(f"{what} waits for something, and there is no event loop here: write it as a plain function")


class Driven(Iterator[Any]):
    """The items of an async iterable that never waits.

    Args:
        items: the iterable.
        what: what it is, for the error.
    """

    def __init__(self, items: AsyncIterable[Any], what: str) -> None:
        """Begin where it begins."""
        self._iterator: AsyncIterator[Any] = aiter(items)
        self._what = what

    def __next__(self) -> Any:
        """Return the next item."""
        try:
            return drive(anext(self._iterator), self._what)
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End what gives the items."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            drive(close(), self._what)
