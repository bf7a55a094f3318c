"""What is made once of each class."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import pytest

from seqrpc.interface.byclass import ByClass
from seqrpc.interface.methods import method
from seqrpc.interface.proxies import ProxyClasses
from seqrpc.interface.service import RemoteService, Service
from seqrpc.interface.services import services_of
from seqrpc.interface.signature import spec_of

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


class Fixed(type):
    """A class of classes that take no attributes."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise AttributeError(name)


class Unchanging(metaclass=Fixed):
    pass


def test_a_class_has_what_was_made_of_it_and_not_what_was_made_of_its_base() -> None:
    class Wider(Box[int]):
        pass

    made, other = ByClass(lambda cls: (cls,)), ByClass(lambda cls: [cls])
    for cls in (Box, Wider, int, Unchanging):
        assert made.of(cls) == (cls,)
        assert other.of(cls) == [cls]
        assert made.of(cls) is made.of(cls)


def test_it_is_kept_as_long_as_the_class_to_which_it_refers() -> None:
    class Passing:
        pass

    class Held:
        def __init__(self, cls: type) -> None:
            self.cls = cls

    made = ByClass(Held)
    passing, held = weakref.ref(Passing), weakref.ref(made.of(Passing))
    gc.collect()
    assert held() is not None
    del Passing
    gc.collect()
    assert (passing(), held()) == (None, None)


def test_it_is_kept_no_longer_than_its_maker() -> None:
    made = ByClass(lambda _cls: {Box})
    kept = weakref.ref(made.of(Box))
    del made
    gc.collect()
    assert kept() is None


def test_whatever_has_the_members_of_a_protocol_is_one_afterwards() -> None:
    @runtime_checkable
    class Adding(Protocol):
        async def add(self) -> int: ...

    class Adder:
        async def add(self) -> int:
            return 1

    ByClass(lambda _cls: object()).of(Adding)
    assert isinstance(Adder(), Adding)


def test_a_service_that_was_served_goes_as_any_class_does() -> None:
    class Passing(Service):
        @method
        async def add(self, a: int, b: list[Path]) -> dict[str, int]:
            return {__class__.__name__: a}  # type: ignore[name-defined]

    spec_of(Passing)
    ProxyClasses(RemoteService, lambda _spec, _finish: lambda _self: None).of(Passing)
    services_of(Passing())
    passing = weakref.ref(Passing)
    del Passing
    gc.collect()
    assert passing() is None
