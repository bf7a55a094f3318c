"""What is made once of a class, or of a generic one whose type variables are bound, kept as long as the class is."""

from __future__ import annotations

import typing
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ByClass(Generic[T]):
    """Makes something of classes, once of each.

    Args:
        make: makes it of a class, or of ``Class[...]``.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[Any], T]) -> None:
        """Begin with none."""
        self._make = make
        self._made: weakref.WeakKeyDictionary[type, dict[Any, T]] = weakref.WeakKeyDictionary()

    def of(self, cls: Any) -> T:
        """Return what was made of a class."""
        made = self._made.setdefault(typing.get_origin(cls) or cls, {})
        arguments = typing.get_args(cls)
        if arguments not in made:
            made[arguments] = self._make(cls)
        return made[arguments]
