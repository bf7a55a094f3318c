"""Coroutines and async generators without an event loop: those that never wait for anything."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def drive(awaitable: Awaitable[T], what: str) -> T:
    """Return what awaiting something gives.

    Args:
        awaitable: what is awaited.
        what: what it is, for the error.

    Raises:
        RuntimeError: it waits, which takes an event loop.
        Exception: what it raises.
    """
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as stop:
        result: T = stop.value
        return result
    close = getattr(steps, "close", None)
    if close is not None:
        close()
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
