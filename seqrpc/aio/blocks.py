"""What is entered by ``async with`` says so to whoever writes ``with``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn


class AsyncBlock:
    """Base of what ``async with`` enters. Type checkers do not see that ``with`` finds something, too: a TypeError."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise TypeError(f"{self!r} is entered by 'async with', not by 'with'")

        def __exit__(self, *_exc: object) -> None:
            """Be there, for Python looks for it first."""
