from __future__ import annotations

import math
import os
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.properties import PROPERTY

import seqrpc
from seqrpc.workers.plain import packed, unpacked

TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)
"""Surrogates too: names of files may have some."""

HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | TEXT
    | st.binary(max_size=20)
    | st.builds(range, st.integers(-(2**63), 2**63), st.integers(-9, 9), st.integers(1, 9)),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)

PLAIN = st.recursive(
    HASHABLE | st.builds(bytearray, st.binary(max_size=20)),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.sets(HASHABLE, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
    ),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """Return a value with the types in it, which equality does not tell: 1 == True == 1.0, and 0.0 == -0.0."""
    kind = type(value).__name__
    if isinstance(value, float):
        return kind, struct.pack("d", value)
    if isinstance(value, complex):
        return kind, struct.pack("dd", value.real, value.imag)
    if isinstance(value, dict):
        return kind, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return kind, [shape(item) for item in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(shape(item)) for item in value)
    return kind, value


def over_the_wire(value: Any) -> Any:
    return unpacked(msgpack.unpackb(msgpack.packb(packed(value, "it")), strict_map_key=False))


@PROPERTY
@given(PLAIN)
def test_plain_data_come_back_each_as_the_type_that_it_was(value: Any) -> None:
    back = over_the_wire(value)
    assert back == value
    assert shape(back) == shape(value)


@pytest.mark.parametrize(
    "value",
    [2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**300, -(10**300), 10**299, 1 << 20_000, -(1 << 20_000)],
    ids=lambda value: f"{value.bit_length()} bits",
)
def test_whole_numbers_of_any_size_travel(value: int) -> None:
    assert over_the_wire([value]) == [value]


@pytest.mark.parametrize("value", ["", "ascii", "\u00e9\U0001f600", "a name\udcff", "\ud83d\ude00", "\0"])
def test_text_travels_also_if_it_is_no_unicode(value: str) -> None:
    assert over_the_wire({value: [value]}) == {value: [value]}


def test_what_is_no_number_travels() -> None:
    assert math.isnan(over_the_wire(math.nan))
    assert over_the_wire(-math.inf) == -math.inf


def test_descriptors_and_buffers_are_lent(pipe: tuple[int, int]) -> None:
    with seqrpc.OwnedFd(os.dup(pipe[0])) as fd, seqrpc.Buffer.allocate(10) as buffer:
        told = packed({"fd": fd, "buffers": (buffer,)}, "it")
        back = unpacked(told)
        assert back["fd"] is fd
        assert back["buffers"][0] is buffer


class Many(list[int]): ...


@pytest.mark.parametrize(
    "value, text",
    [
        (object(), "it is of type object, which does not travel: plain data do, and nothing is pickled"),
        ([1, {"a": (2, len)}], r"it\[1\]\['a'\]\[1\] is of type builtin_function_or_method"),
        ({Ellipsis: 1}, r"it\[key Ellipsis\] is of type ellipsis"),
        ({"x" * 1000: object}, rf"it\['{'x' * 49}\] is of type type"),
        (Many([1]), "it is of type Many"),
        (memoryview(b""), "it is of type memoryview"),
    ],
)
def test_what_does_not_travel_is_told_with_the_way_to_it(value: Any, text: str) -> None:
    with pytest.raises(TypeError, match=f"^{text}"):
        packed(value, "it")


def test_what_lies_too_deep_or_in_itself_is_told() -> None:
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    assert over_the_wire(deep) == deep
    with pytest.raises(ValueError, match="is nested too deeply: more than 30 values within each other"):
        packed([deep], "it")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="is nested too deeply"):
        packed(endless, "it")


@pytest.mark.parametrize("value", [[9], [-1.5], [], [4, 1], [5, "x"], ["kind"], [8]])
def test_what_was_never_packed_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError, IndexError)):
        unpacked(value)
