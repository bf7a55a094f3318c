"""What types consist of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
import pytest
from msgspec import inspect

from seqrpc.protocol.typeinfo import parts_of, types_in

T = TypeVar("T")


class Tree(msgspec.Struct):
    name: str
    left: Tree | None = None
    right: Tree | None = None


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass
class Box(Generic[T]):
    item: T


class Pair(NamedTuple):
    first: bool
    second: bytes


class Movie(TypedDict):
    title: str


def parts(kind: Any) -> list[type]:
    return [type(info) for info in parts_of(inspect.type_info(kind))]


@pytest.mark.parametrize(
    "kind, expected",
    [
        (int, []),
        (Any, []),
        (list[int], [inspect.IntType]),
        (dict[str, float], [inspect.StrType, inspect.FloatType]),
        (tuple[int, str], [inspect.IntType, inspect.StrType]),
        (tuple[int, ...], [inspect.IntType]),
        (set[bytes] | None, [inspect.SetType, inspect.NoneType]),
        (Point, [inspect.IntType, inspect.FloatType]),
        (Box[bool], [inspect.BoolType]),
        (Pair, [inspect.BoolType, inspect.BytesType]),
        (Movie, [inspect.StrType]),
        (Annotated[Point, msgspec.Meta(description="a point")], [inspect.DataclassType]),
    ],
)
def test_a_type_is_made_of_its_elements_keys_fields_and_choices(kind: Any, expected: list[type]) -> None:
    assert parts(kind) == expected


def test_all_types_in_one_are_found_once() -> None:
    found = types_in(dict[str, tuple[Point, Pair] | None])
    assert [type(info).__name__ for info in found[:2]] == ["DictType", "UnionType"]
    assert len(found) == len({id(info) for info in found})
    assert {type(info) for info in found} == {
        *(inspect.DictType, inspect.StrType, inspect.UnionType, inspect.NoneType, inspect.TupleType),
        *(inspect.DataclassType, inspect.NamedTupleType, inspect.IntType, inspect.FloatType, inspect.BoolType),
        inspect.BytesType,
    }


def test_a_type_that_holds_itself_has_an_end() -> None:
    assert sum(isinstance(info, inspect.StructType) for info in types_in(Tree)) == 1


def test_whoever_knows_more_of_a_type_says_what_it_is_made_of() -> None:
    inside = inspect.type_info(Point)

    def through_bytes(info: inspect.Type) -> list[inspect.Type]:
        return [inside] if isinstance(info, inspect.BytesType) else parts_of(info)

    found = types_in(list[bytes], through_bytes)
    assert inside in found
    assert any(isinstance(info, inspect.FloatType) for info in found)


def test_what_is_no_type_is_an_error() -> None:
    with pytest.raises(TypeError):
        types_in(5)
