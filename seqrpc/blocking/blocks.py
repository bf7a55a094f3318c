"""Blocks of 'with', for those who write 'async with'."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn


class Block:
    """Base of what is entered by 'with' alone."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __aenter__(self) -> NoReturn:
            """Say what to write.

            Raises:
                TypeError: always.
            """
            raise TypeError(f"{self!r} is entered by 'with', not by 'async with'")

        def __aexit__(self, *_exc: object) -> None:
            """Be there, for Python looks for it first."""
