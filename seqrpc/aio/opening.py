"""What is opened by awaiting it, or for the time of an ``async with`` block."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar


class Closable(Protocol):
    """What is closed at the end of the block."""

    async def close(self) -> None:
        """Close."""
        ...


T = TypeVar("T", bound=Closable)


class Opening(Generic[T]):
    """Await it, or use it in ``async with``.

    Args:
        open_one: opens it, and returns what was opened.
    """

    def __init__(self, open_one: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Open nothing yet."""
        self._open_one = open_one
        self._opened: T | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        """Open it, for whoever awaits this to close."""
        return self._open_one().__await__()

    async def __aenter__(self) -> T:
        """Open it; it is closed at the end of the block."""
        self._opened = await self._open_one()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close it."""
        assert self._opened is not None
        await self._opened.close()
