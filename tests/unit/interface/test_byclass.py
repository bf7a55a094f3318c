"""What is made once of each class."""

from __future__ import annotations

import gc
from typing import Any, Generic, TypeVar

import pytest

from seqrpc.interface.byclass import ByClass

T = TypeVar("T")


class Box(Generic[T]):
    pass


def test_it_is_made_once_of_a_class_and_of_each_binding_of_a_generic_one() -> None:
    asked: list[Any] = []

    def make(cls: Any) -> object:
        asked.append(cls)
        return object()

    made = ByClass(make)
    for cls in (Box, Box[int], Box[str], int):
        assert made.of(cls) is made.of(cls)
    assert asked == [Box, Box[int], Box[str], int]
    assert made.of(Box[int]) is not made.of(Box)


def test_what_fails_is_tried_again() -> None:
    failing = [True]

    def make(cls: Any) -> Any:
        if failing:
            raise TypeError(failing.pop())
        return cls

    made = ByClass(make)
    with pytest.raises(TypeError):
        made.of(Box)
    assert made.of(Box) is Box


def test_it_is_kept_as_long_as_the_class() -> None:
    class Passing(Generic[T]):
        pass

    made = ByClass(lambda _cls: object())
    made.of(Passing)
    made.of(Passing[int])
    assert len(made._made) == 1
    del Passing
    getattr(Generic, "cache_clear", int)()
    gc.collect()
    assert len(made._made) <= 1, "typing keeps some generic classes for a while"
