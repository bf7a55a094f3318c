"""What is opened by awaiting it, or for the time of an ``async with`` block."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from seqrpc.aio.blocks import AsyncBlock


class Closable(Protocol):
    """What is closed at the end of the block."""

    async def close(self) -> None:
        """Close."""
        ...


T = TypeVar("T", bound=Closable)


class Opening(AsyncBlock, Generic[T]):
    """Await it, or use it in ``async with``. One that is dropped without either has opened nothing, and warns.

    Args:
        open_one: opens it, and returns what was opened.
        name: the function that returned this, for errors.
    """

    def __init__(self, open_one: Callable[[], Coroutine[Any, Any, T]], name: str) -> None:
        """Open nothing yet."""
        self._open_one = open_one
        self._name = name
        self._was_used = False
        self._opened: T | None = None
        self._is_entered = False

    def __await__(self) -> Generator[Any, Any, T]:
        """Open it, for whoever awaits this to close."""
        self._was_used = True
        return self._open_one().__await__()

    async def __aenter__(self) -> T:
        """Open it; it is closed at the end of the block."""
        self._was_used = True
        if self._is_entered:
            raise RuntimeError(f"{self!r} is in a block already, which closes what it opened: call {self._name} anew")
        self._is_entered = True
        self._opened = await self._open_one()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close it."""
        assert self._opened is not None
        await self._opened.close()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            text = f"{self!r} is not open yet, and has no {name!r}: write 'async with' or 'await' before it"
            raise AttributeError(text, name=name)

    def __del__(self) -> None:
        """Say that nothing was opened."""
        if not self._was_used:
            text = f"{self!r} was never awaited, and nothing was opened: write 'async with' or 'await' before it"
            warnings.warn(text, RuntimeWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        """Return what made it."""
        return f"{self._name}(...)"
