"""What can be told apart on the wire, and what can be a key or in a set."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pytest
from support.annotations import Circle, OtherVault, Point, Shape, Square, Vault

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.shapes import Wire
from seqrpc.interface.wires import look_alike, why_no_key, why_not_hashable
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class OtherTag(msgspec.Struct, tag_field="kind", tag="other"):
    x: int


class SameTag(msgspec.Struct, tag="circle"):
    x: int


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
    y: int = 1


@dataclasses.dataclass(frozen=True)
class FrozenAroundList:
    x: list[int]


@dataclasses.dataclass(frozen=True)
class FrozenAroundItself:
    next: FrozenAroundItself | None


class FrozenStruct(msgspec.Struct, frozen=True):
    x: int


class FrozenArray(msgspec.Struct, frozen=True, array_like=True):
    x: int


class Hashed(msgspec.Struct):
    x: int

    def __hash__(self) -> int:
        return 1


class ByIdentity(msgspec.Struct, eq=False):
    x: int


@attrs.frozen
class FrozenAttrs:
    x: int


@attrs.define
class Attrs:
    x: int


class Pair(NamedTuple):
    first: int
    second: str


class PairAroundList(NamedTuple):
    first: list[int]


class Typed(TypedDict):
    x: int


def alike(*annotations: Any) -> Wire | None:
    found = look_alike(tuple(map(shape_of, annotations)))
    return None if found is None else found[2]


@pytest.mark.parametrize(
    "annotations",
    [
        (int, str, bool, None, bytes, list[int], dict[str, int]),
        (int, float),
        (str, bytes),
        (Any, int),
        (Any, Point),
        (Point, list[int], int),
        (Circle, Square),
        (Circle, Square, int),
        (Literal["a"], Literal["b"]),
        (Literal[1], bool),
        (Level, str),
        (Color, int),
        (dt.datetime, int),
        (decimal.Decimal, int),
        (decimal.Decimal, float),
        (dt.date, bytes),
        (ipaddress.IPv4Address, ipaddress.IPv6Address),
        (ipaddress.IPv4Network, ipaddress.IPv6Interface, int),
        (OwnedFd, Buffer, AsyncIterator[int], Vault, int),
        (OwnedFd, memoryview, AsyncIterator[int], Vault, str),
        (Annotated[int, msgspec.Meta(gt=0)], tuple[int, int]),
        (msgspec.UnsetType, int),
    ],
)
def test_what_differs_is_told_apart(annotations: tuple[Any, ...]) -> None:
    assert alike(*annotations) is None


@pytest.mark.parametrize(
    "annotations, wire",
    [
        ((str, dt.date), Wire.STR),
        ((str, dt.datetime), Wire.STR),
        ((str, uuid.UUID), Wire.STR),
        ((str, Color), Wire.STR),
        ((str, decimal.Decimal), Wire.STR),
        ((str, Path), Wire.STR),
        ((str, ipaddress.IPv4Address), Wire.STR),
        ((ipaddress.IPv4Address, ipaddress.IPv4Network), Wire.STR),
        ((Path, ipaddress.IPv4Address), Wire.STR),
        ((int, Level), Wire.INT),
        ((float, Level), Wire.INT),
        ((int, Annotated[int, msgspec.Meta(gt=0)]), Wire.INT),
        ((bytes, bytearray), Wire.BYTES),
        ((bytes, Path), Wire.BYTES),
        ((bytes, memoryview), Wire.BYTES),
        ((Buffer, memoryview), Wire.BUFFER),
        ((Literal["a"], str), Wire.STR),
        ((Literal["a", "b"], Literal["b", "c"]), Wire.STR),
        ((list[int], tuple[int, int]), Wire.ARRAY),
        ((list[int], set[int]), Wire.ARRAY),
        ((Pair, list[int]), Wire.ARRAY),
        ((FrozenArray, Pair), Wire.ARRAY),
        ((dict[str, int], Point), Wire.MAP),
        ((Point, Shape), Wire.MAP),
        ((Typed, Attrs), Wire.MAP),
        ((Circle, Point), Wire.MAP),
        ((Circle, OtherTag), Wire.MAP),
        ((Circle, SameTag), Wire.MAP),
        ((int, Point, Circle), Wire.MAP),
        ((AsyncIterator[int], AsyncIterator[str]), Wire.STREAM),
        ((Vault, None, OtherVault), Wire.CHANNEL),
    ],
)
def test_what_may_be_the_same_is_not(annotations: tuple[Any, ...], wire: Wire) -> None:
    assert alike(*annotations) is wire
    assert alike(*reversed(annotations)) is wire


@pytest.mark.parametrize(
    "annotation",
    [
        int, str, bytes, float, bool, None, Any, Color, Level, Literal["a", 1], dt.datetime, dt.date, uuid.UUID,
        decimal.Decimal, tuple[int, ...], tuple[int, str], frozenset[int], Pair, FrozenArray, Path,
        ipaddress.IPv4Address, int | str | None, Annotated[str, msgspec.Meta(max_length=3)], tuple[Any, ...],
    ],
)  # fmt: skip
def test_keys_and_members_have_a_hash_and_are_no_maps(annotation: Any) -> None:
    assert why_no_key(shape_of(annotation)) is None
    assert why_not_hashable(shape_of(annotation)) is None


@pytest.mark.parametrize(
    "annotation, key, member",
    [
        (Frozen, "Frozen is a map on the wire", None),
        (FrozenStruct, "FrozenStruct is a map on the wire", None),
        (FrozenAttrs, "FrozenAttrs is a map on the wire", None),
        (FrozenAroundItself, "FrozenAroundItself is a map on the wire", None),
        (Hashed, "Hashed is a map on the wire", None),
        (ByIdentity, "ByIdentity is a map on the wire", None),
        (int | Frozen, "Frozen is a map on the wire", None),
        (tuple[int, Frozen], "Frozen is a map on the wire", None),
        (OwnedFd, "OwnedFd travels as a descriptor", None),
        (AsyncIterator[int], r"AsyncIterator\[int\] travels as a descriptor", None),
        (Vault, "Vault travels as a descriptor", None),
        (Buffer, "Buffer travels as a descriptor", None),
        (memoryview, "memoryview travels as a descriptor", "memoryview is hashed by all that is in it"),
        (list[int], r"list\[int\] has no hash", r"list\[int\] has no hash"),
        (set[int], r"set\[int\] has no hash", r"set\[int\] has no hash"),
        (bytearray, "bytearray has no hash", "bytearray has no hash"),
        (Point, "Point is a map", "Point has no hash"),
        (Shape, "Shape is a map", "Shape has no hash"),
        (Attrs, "Attrs is a map", "Attrs has no hash"),
        (Typed, "Typed is a map", "Typed has no hash"),
        (dict[str, int], r"dict\[str, int\] is a map", r"dict\[str, int\] has no hash"),
        (FrozenAroundList, "FrozenAroundList is a map", r"list\[int\] has no hash"),
        (PairAroundList, r"list\[int\] has no hash", r"list\[int\] has no hash"),
        (tuple[int, list[int]], r"list\[int\] has no hash", r"list\[int\] has no hash"),
        (int | list[int], r"list\[int\] has no hash", r"list\[int\] has no hash"),
    ],
)  # fmt: skip
def test_all_others_are_refused_with_what_is_in_the_way(annotation: Any, key: str, member: str | None) -> None:
    with pytest.raises(TypeError, match=rf"^x: {key}.*, and cannot be the key of a map: send a list of pairs$"):
        shape_of(dict[annotation, int], path="x")
    reason = why_not_hashable(shape_of(annotation))
    assert (reason is None) == (member is None)
    if member is None:
        shape_of(set[annotation])
    else:
        with pytest.raises(TypeError, match=rf"^x: {member}, and cannot be in a set: send a list$"):
            shape_of(frozenset[annotation], path="x")


def test_a_class_without_a_hash_that_has_a_coding_has_none() -> None:
    class Version:
        __hash__ = None  # type: ignore[assignment]

    from seqrpc.interface.shapes import Coded
    from seqrpc.protocol.codings import Coding

    coding = Coding(kind=Version, wire_type=str, encode=str, decode=str)
    assert why_not_hashable(Coded(Version, coding, shape_of(str))) == "Version has no hash"
