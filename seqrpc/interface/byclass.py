"""What is made once of a class, or of a generic one whose type variables are bound, kept as long as the class is."""

from __future__ import annotations

import typing
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_NAME = "_abc_seqrpc_made"
"""The attribute of a class that has what was made of it. Python 3.11 takes every attribute of a Protocol for a member
that its implementations have, unless its name begins with ``_abc_``."""


class ByClass(Generic[T]):
    """Makes something of classes, once of each.

    What is made refers to its class most often. So the class itself keeps it, and both go together; a table of ours
    would keep both for ever.

    Args:
        make: makes it of a class, or of ``Class[...]``.
    """

    __slots__ = ("__weakref__", "_make", "_others")

    def __init__(self, make: Callable[[Any], T]) -> None:
        """Begin with none."""
        self._make = make
        self._others: weakref.WeakKeyDictionary[type, dict[Any, T]] = weakref.WeakKeyDictionary()
        """Of classes that take no attributes: those are built in, or want to be left alone."""

    def of(self, cls: Any) -> T:
        """Return what was made of a class."""
        made = self._made_of(typing.get_origin(cls) or cls)
        arguments = typing.get_args(cls)
        if arguments not in made:
            made[arguments] = self._make(cls)
        return made[arguments]

    def _made_of(self, cls: type) -> dict[Any, T]:
        """Return what was made of one class; the attribute of a base is not its own."""
        by_maker = vars(cls).get(_NAME)
        if by_maker is None:
            by_maker = weakref.WeakKeyDictionary()
            try:
                setattr(cls, _NAME, by_maker)
            except (AttributeError, TypeError):
                by_maker = None
        if not isinstance(by_maker, weakref.WeakKeyDictionary):
            return self._others.setdefault(cls, {})
        made: dict[Any, T] = by_maker.setdefault(self, {})
        return made
