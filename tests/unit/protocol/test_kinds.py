"""Which classes hold data in fields, and which values lend descriptors."""

from __future__ import annotations

import enum
import io
import mmap
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import attrs
import msgspec
import pytest

from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.kinds import fields_of, lends_by_class, lends_descriptor, may_be_unset, names_of


@dataclass
class Data:
    fileno: int
    extra: int = field(init=False, default=5)
    shared: ClassVar[int] = 7


@dataclass(slots=True)
class Slots:
    x: int
    y: int = field(init=False)


@dataclass
class Mixed(Slots):
    z: int = 0


@attrs.define
class Attrs:
    fileno: int
    _secret: int = 2


class Record(msgspec.Struct):
    fileno: int


class Pair(NamedTuple):
    fileno: int


class Colour(enum.Enum):
    fileno = 1
    RED = 2


class Answered:
    async def fileno(self) -> int:
        return 0


class Property:
    @property
    def fileno(self) -> int:
        return 0


class Wrapper:
    """Passes on what it does not have, as the files of tempfile do."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class OfItsOwn:
    def __init__(self) -> None:
        self.fileno = lambda: 0


@dataclass
class DataThatLends:
    fd: int

    def fileno(self) -> int:
        return self.fd


@contextmanager
def lenders() -> Iterator[list[Any]]:
    with (
        open(os.devnull, "rb") as file,
        tempfile.NamedTemporaryFile() as named,
        socket.socket() as sock,
        OwnedFd.dup(0) as fd,
        Buffer.allocate(1) as buffer,
    ):
        yield [file, named, sock, fd, buffer, Wrapper(file), OfItsOwn(), DataThatLends(0)]


def test_what_has_the_method_lends_a_descriptor() -> None:
    with lenders() as values:
        assert [lends_descriptor(value) for value in values] == [True] * len(values)


@pytest.mark.parametrize(
    "value",
    [
        Data(1),
        Attrs(1),
        Record(1),
        Pair(1),
        Colour.RED,
        Colour.fileno,
        {"fileno": 1},
        Answered(),
        Property(),
        Wrapper(Data(1)),
        socket.socket,
        5,
        None,
        [],
        object(),
        Slots(1),
        mmap.mmap(-1, 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_of_that_name_lends_nothing(value: Any) -> None:
    assert not lends_descriptor(value)


def test_classes_are_told_apart_by_themselves() -> None:
    assert lends_by_class(io.FileIO)
    assert lends_by_class(socket.socket)
    assert not lends_by_class(Data)
    assert not lends_by_class(Wrapper)


def test_fields_are_known_whatever_the_class_was_written_with() -> None:
    assert [names_of(kind) for kind in (Data, Slots, Mixed, Attrs, Record)] == [
        ("fileno", "extra"),
        ("x", "y"),
        ("x", "y", "z"),
        ("fileno", "_secret"),
        ("fileno",),
    ]
    assert [names_of(kind) for kind in (Pair, dict, int, Answered, OwnedFd)] == [None] * 5


def test_an_object_has_the_fields_that_it_has_of_its_own() -> None:
    changed = Data(1)
    changed.extra = 6
    changed.other = 7  # type: ignore[attr-defined]
    assert fields_of(Data(1)) == {"fileno": 1, "extra": 5}
    assert fields_of(changed) == {"fileno": 1, "extra": 6}
    assert fields_of(Slots(1)) == {"x": 1}
    assert fields_of(Mixed(1, 2)) == {"x": 1, "z": 2}
    assert fields_of(Attrs(1)) == {"fileno": 1, "_secret": 2}
    assert fields_of(Record(3)) == {"fileno": 3}
    assert fields_of({"a": 1}) is None


@dataclass
class Sized:
    width: int
    height: int = 2
    area: int = field(init=False)


Sized.area = property(lambda _self: pytest.fail("nobody asked"))  # type: ignore[assignment] # some replace a field so


def test_what_only_the_class_has_is_a_field_as_well_but_for_what_computes_something() -> None:
    made = msgspec.convert({"fileno": 1}, Data)
    assert "extra" not in vars(made)
    assert fields_of(made) == {"fileno": 1, "extra": 5}
    sized = Sized(1)
    del sized.height
    assert fields_of(sized) == {"width": 1, "height": 2}


@dataclass
class Sparse:
    a: int | msgspec.UnsetType = msgspec.UNSET


def test_fields_that_may_be_left_out_are_known() -> None:
    assert may_be_unset(Sparse)
    assert not may_be_unset(Data)
    assert fields_of(Sparse()) == {}
