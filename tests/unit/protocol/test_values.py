from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from support.descriptors import owned

from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import MAX_VALUES_SEARCHED
from seqrpc.protocol.values import (
    EXT_BUFFER,
    EXT_CHANNEL,
    EXT_DESCRIPTOR,
    EXT_STREAM,
    BareValue,
    BareValues,
    descriptors_in,
    give_up,
    not_in,
    owners_of,
    values_in,
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
def test_a_bare_value_lends_its_descriptor_and_keeps_it(ext_type: int) -> None:
    with owned(1) as (fd,):
        bare = BareValues().receive(ext_type, fd)
        assert isinstance(bare, BareValue)
        assert (bare.ext_type, bare.fd) == (ext_type, fd)
        assert bare.fileno() == fd.fileno()
        bare.sent()
        bare.unsent()
        assert not fd.closed
    with pytest.raises(ValueError, match="closed"):
        bare.fileno()


def test_bare_values_and_nothing_else_travel_by_themselves() -> None:
    with owned(1) as (fd,):
        bare = BareValue(EXT_STREAM, fd)
        assert BareValues().travels(bare)
        assert BareValues().departure_of(bare) is bare
        for other in (fd, None, [bare], iter(())):
            assert not BareValues().travels(other)
            assert BareValues().departure_of(other) is None


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
        assert descriptors_in(deep, 100_001) == [first]

        itself: list[Any] = [second]
        itself.append(itself)
        record = Record(None)
        record.value = {"me": record, "list": itself}
        assert descriptors_in(record) == [second]


def test_one_that_is_there_twice_may_be_told_twice_and_closes_once() -> None:
    with owned(1) as (fd,):
        found: list[OwnedFd] = descriptors_in([fd, fd])
        assert set(map(id, found)) == {id(fd)}


def test_so_many_values_are_looked_at_and_no_more_in_order() -> None:
    assert list(values_in([1, [2, {3: "c", "d": (4,)}], 5], 7)) == [
        [1, [2, {3: "c", "d": (4,)}], 5],
        1,
        [2, {3: "c", "d": (4,)}],
        2,
        {3: "c", "d": (4,)},
        3,
        "d",
    ]
    assert list(values_in([1, 2], 0)) == []
    many = [1] * 1_000_000
    assert sum(1 for _ in values_in([many, many])) == MAX_VALUES_SEARCHED
    assert sum(1 for _ in values_in([{str(index): index for index in range(100_000)}])) == MAX_VALUES_SEARCHED


def test_what_lies_behind_so_many_values_is_not_found() -> None:
    with owned(2) as (first, second):
        assert descriptors_in([1, first, second], 4) == [first, second]
        assert descriptors_in([1, first, second], 3) == [first]
        assert descriptors_in([first, [1] * MAX_VALUES_SEARCHED, second]) == [first]


def test_descriptors_that_are_not_in_a_value_are_told_if_it_is_not_too_large_to_say() -> None:
    with owned(3) as fds:
        first, second, third = fds
        assert not_in([first, {"a": second}], fds) == [third]
        assert not_in([first, {"a": second, "b": third}], fds) == []
        assert not_in(None, fds) == fds
        assert not_in([first], []) == []
        assert not_in([1, first], fds, 3) == [second, third]
        assert not_in([1, first, 2], fds, 3) == []
        assert not_in([first, [1] * 1_000_000], [first]) == [], "the search ends when all are found"


def test_whose_descriptors_are_whose_is_told_by_the_positions_of_values() -> None:
    with owned(4) as fds:
        first, second, third, fourth = fds
        values = [1, [first, second], "x", third, [third]]
        assert owners_of(values, fds) == {1: [first, second], 3: [third]}
        assert owners_of(values, [first, second]) == {1: [first, second]}
        assert owners_of(values, []) == {}
        assert owners_of([[1] * MAX_VALUES_SEARCHED, first], fds) == {}
        assert owners_of([1, first, second, fourth], fds, 3) == {1: [first], 2: [second]}


class Life(BareValues):
    """Remembers the bare values that were given up."""

    def __init__(self) -> None:
        self.gone: list[Any] = []

    def give_up(self, value: Any) -> None:
        self.gone.append(value)


def test_what_is_given_up_lets_go_of_all_that_is_in_it_and_may_be_given_up_again() -> None:
    with owned(5) as fds:
        first, second, third, fourth, fifth = fds
        bare, another = BareValue(EXT_STREAM, fourth), BareValue(EXT_CHANNEL, fifth)
        value = [first, 1, {"a": (bare, second), another: None}, Record(third)]
        for times in (1, 2):
            give_up(value, life := Life())
            assert [fd.closed for fd in fds] == [True, True, True, False, False]
            assert sorted(map(id, life.gone)) == sorted(map(id, (bare, another))), times
        give_up(bare, life)
        assert life.gone[-1] is bare
        give_up(bare, BareValues())
        assert not fourth.closed, "bare values are borrowed"


def test_what_is_one_thing_is_not_looked_into() -> None:
    with owned(1) as (fd,):
        record = Record(fd)

        class Whole(Life):
            def travels(self, value: Any) -> bool:
                return isinstance(value, Record)

        give_up([record], life := Whole())
        assert life.gone == [record]
        assert not fd.closed


def test_what_is_kept_in_another_value_is_not_given_up() -> None:
    with owned(4) as fds:
        first, second, third, fourth = fds
        handle, another = BareValue(EXT_STREAM, fourth), BareValue(EXT_CHANNEL, fourth)
        whole = [second]
        give_up(
            [first, whole, handle, another, third, "text"],
            life := Life(),
            {"kept": [third, another], "as it is": whole},
        )
        assert [fd.closed for fd in fds] == [True, False, False, False]
        assert life.gone == [handle]
        give_up([first, second, third], life, "text")
        assert [fd.closed for fd in fds] == [True, True, True, False]


def test_nothing_is_given_up_where_it_is_not_known_what_is_kept() -> None:
    with owned(2) as (first, second):
        give_up([first], Life(), [[1] * MAX_VALUES_SEARCHED, second])
        assert not first.closed
        give_up([first], Life(), [1] * (MAX_VALUES_SEARCHED - 1))
        assert first.closed


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "text", b"bytes", [], object()], ids=repr)
def test_what_has_nothing_in_it_may_be_given_up(value: Any) -> None:
    give_up(value, Life())


def test_what_lies_behind_so_many_values_is_not_given_up() -> None:
    with owned(2) as (first, second):
        give_up([first, [1] * MAX_VALUES_SEARCHED, second], Life())
        assert first.closed
        assert not second.closed
