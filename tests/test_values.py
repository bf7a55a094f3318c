from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from helpers import owned

from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.values import (
    EXT_BUFFER,
    EXT_CHANNEL,
    EXT_DESCRIPTOR,
    EXT_STREAM,
    Handle,
    Handles,
    descriptors_in,
)


@dataclass
class Record:
    value: Any
    missing: Any = field(init=False)


@dataclass(frozen=True)
class Key:
    value: Any


class Structure(msgspec.Struct):
    value: Any


class Colour(enum.Enum):
    RED = "red"


def test_4_the_extension_types_are_numbered_as_written() -> None:
    assert (EXT_DESCRIPTOR, EXT_STREAM, EXT_CHANNEL, EXT_BUFFER) == (1, 2, 3, 4)


@pytest.mark.parametrize("ext_type", [EXT_STREAM, EXT_CHANNEL])
def test_a_handle_lends_its_descriptor_and_keeps_it(ext_type: int) -> None:
    with owned(1) as (fd,):
        handle = Handles().receive(ext_type, fd)
        assert isinstance(handle, Handle)
        assert (handle.ext_type, handle.fd) == (ext_type, fd)
        assert handle.fileno() == fd.fileno()
        handle.sent()
        handle.unsent()
        assert not fd.closed
    with pytest.raises(ValueError, match="closed"):
        handle.fileno()


def test_handles_and_nothing_else_travel_by_themselves() -> None:
    with owned(1) as (fd,):
        handle = Handle(EXT_STREAM, fd)
        assert Handles().travels(handle)
        assert Handles().export(handle) is handle
        for other in (fd, None, [handle], iter(())):
            assert not Handles().travels(other)
            assert Handles().export(other) is None


def test_descriptors_are_found_at_any_depth_of_any_type_that_can_be_sent() -> None:
    with owned(12) as fds:
        a, b, c, d, e, f, g, h, i, j, k, m = fds
        record = Record([a])
        value = [
            record,
            {"x": b, "y": {"z": (c,)}},
            {d: 1, Key((e,)): 2},
            {f},
            frozenset([g]),
            Structure({1: [h, Record(i)]}),
            (j, [k, "text", b"bytes", 1, None, 1.5, Colour.RED]),
            Key(Structure(m)),
        ]
        assert {id(fd) for fd in descriptors_in(value)} == {id(fd) for fd in fds}
        assert descriptors_in(a) == [a]


@pytest.mark.parametrize(
    "value", [None, 1, "text", b"bytes", [], {}, Record, Structure, Colour.RED, object()], ids=repr
)
def test_where_there_is_none_none_is_found(value: Any) -> None:
    assert descriptors_in(value) == []


def test_what_is_deep_or_holds_itself_is_searched_too() -> None:
    with owned(2) as (first, second):
        deep: Any = first
        for _ in range(100_000):
            deep = [deep]
        assert descriptors_in(deep) == [first]

        itself: list[Any] = [second]
        itself.append(itself)
        record = Record(None)
        record.value = {"me": record, "list": itself}
        assert descriptors_in(record) == [second]


def test_one_that_is_there_twice_may_be_told_twice_and_closes_once() -> None:
    with owned(1) as (fd,):
        found: list[OwnedFd] = descriptors_in([fd, fd])
        assert set(map(id, found)) == {id(fd)}
