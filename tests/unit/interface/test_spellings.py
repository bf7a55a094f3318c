"""How types are spelled."""

from __future__ import annotations

import collections.abc
import datetime as dt
import decimal
import enum
import typing
import uuid
from collections.abc import Iterable, MutableMapping, Reversible, Sequence
from typing import Any, Final, Literal, LiteralString

import msgspec
import pytest

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.shapes import Array, Map, Memory, Wire
from seqrpc.interface.spellings import QUALIFIERS, enum_shape, literal_shape, scalar_shape


@pytest.mark.parametrize(
    "annotation, kind, msgspec_knows",
    [
        (list, list, True),
        (typing.List[int], list, True),  # noqa: UP006
        (Sequence[int], list, True),
        (collections.abc.MutableSequence[int], list, True),
        (collections.abc.Collection[int], list, True),
        (typing.Collection[int], list, True),
        (Iterable[int], list, False),
        (typing.Iterable[int], list, False),
        (Reversible[int], list, False),
        (set, set, True),
        (typing.Set[int], set, True),  # noqa: UP006
        (collections.abc.Set[int], set, True),
        (typing.AbstractSet[int], set, True),
        (frozenset[int], frozenset, True),
        (typing.FrozenSet, frozenset, True),  # noqa: UP006
        (tuple, tuple, True),
        (typing.Tuple, tuple, True),  # noqa: UP006
        (tuple[int, ...], tuple, True),
    ],
)
def test_arrays_have_many_names(annotation: Any, kind: type, msgspec_knows: bool) -> None:
    shape = shape_of(annotation)
    assert isinstance(shape, Array)
    assert (shape.kind, shape.is_respelled) == (kind, not msgspec_knows)


@pytest.mark.parametrize(
    "annotation",
    [dict, typing.Dict[str, int], collections.abc.Mapping[str, int], MutableMapping[str, int], typing.Mapping],  # noqa: UP006
)
def test_maps_have_many_names(annotation: Any) -> None:
    assert isinstance(shape_of(annotation), Map)


def test_memory_has_two_names() -> None:
    for annotation in (memoryview, getattr(collections.abc, "Buffer", memoryview)):
        assert isinstance(shape_of(annotation), Memory)


def test_what_is_said_of_a_field_says_nothing_of_its_type() -> None:
    assert shape_of(Final[int]) == shape_of(int)
    assert typing.Required in QUALIFIERS


@pytest.mark.parametrize(
    "annotation, wires, is_small",
    [
        (type(None), {Wire.NIL}, True),
        (bool, {Wire.BOOL}, True),
        (int, {Wire.INT}, True),
        (float, {Wire.FLOAT, Wire.INT}, True),
        (str, {Wire.STR}, False),
        (LiteralString, {Wire.STR}, False),
        (bytes, {Wire.BYTES}, False),
        (bytearray, {Wire.BYTES}, False),
        (dt.datetime, {Wire.TIME, Wire.STR}, True),
        (dt.date, {Wire.STR}, True),
        (dt.time, {Wire.STR}, True),
        (dt.timedelta, {Wire.STR}, True),
        (uuid.UUID, {Wire.STR}, True),
        (decimal.Decimal, {Wire.STR}, False),
        (msgspec.UnsetType, set(), True),
    ],
)
def test_scalars_have_no_parts(annotation: Any, wires: set[Wire], is_small: bool) -> None:
    shape = scalar_shape(annotation)
    assert shape is not None
    assert (shape.wires, shape.is_small, shape.parts) == (wires, is_small, ())  # type: ignore[comparison-overlap]
    assert shape.is_respelled == (annotation is LiteralString)


@pytest.mark.parametrize("annotation", [list, list[int], complex, Any, {}, "int", Literal[1]])
def test_what_has_parts_is_no_scalar(annotation: Any) -> None:
    assert scalar_shape(annotation) is None


def test_literals_are_what_their_values_are() -> None:
    shape = literal_shape(Literal["a", 1, None, True])  # noqa: PYI061 - as it may be written
    assert shape is not None
    assert shape.wires == {Wire.STR, Wire.INT, Wire.NIL, Wire.BOOL}
    assert literal_shape(Literal[b"a"]) is None


class Text(str, enum.Enum):  # noqa: UP042 - as it may be written
    A = "a"


class Mixed(enum.Enum):
    A = "a"
    B = 1


class Float(enum.Enum):
    A = 1.5


class Number(enum.IntEnum):
    ONE = 1


class Nothing(enum.Enum):
    pass


@pytest.mark.parametrize(
    "kind, wires", [(Text, {Wire.STR}), (Number, {Wire.INT}), (Mixed, None), (Float, None), (Nothing, None)]
)
def test_enums_are_of_strings_or_of_integers(kind: type[enum.Enum], wires: set[Wire] | None) -> None:
    shape = enum_shape(kind)
    assert (None if shape is None else shape.wires) == wires
    if shape is None:
        with pytest.raises(TypeError, match="write an Enum whose values are all strings, or all integers"):
            shape_of(kind)
