"""What is written once: which shapes are the same, and what they are called."""

from __future__ import annotations

import dataclasses
import enum
import typing
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import pytest

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.components import Names, has_name, identity_of, wanted_name
from seqrpc.interface.hints import Scope
from seqrpc.interface.registering import register_type
from seqrpc.interface.shapes import Shape

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Mode(enum.Flag):
    READ = 1


class Coded(enum.Flag):
    READ = 1


register_type(Coded, wire_type=str, encode=str, decode=Coded.__getitem__)


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]


Foreign = dataclasses.make_dataclass("Größe", [("x", int)])


class Outer:
    class Inner(msgspec.Struct):
        x: int


def of(generic: Any, *arguments: Any) -> Any:
    """Return a generic type with arguments that type checkers cannot follow."""
    return generic[arguments if len(arguments) > 1 else arguments[0]]


Json: Any = of(dict, str, "Json") | of(list, "Json") | None
Other: Any = of(dict, str, "Other") | of(list, "Other") | int


def shape(annotation: Any) -> Shape:
    return shape_of(annotation, Scope(globals()))


@pytest.mark.parametrize(
    "annotation, name",
    [
        (Colour, "Colour"),
        (Mode, "Mode"),
        (Outer.Inner, "Inner"),
        (Foreign, "Gr_e"),
        ("Json", "Json"),
        (Page, "Page"),
        (Page[int], "Page_int"),
        (Page[Page[str]], "Page_Page_str"),
        (Page[int | None], "Page_int_None"),
        (Page[list[tuple[int, str]]], "Page_list_tuple_int_str"),
        (Page[dict[str, Colour]], "Page_dict_str_Colour"),
        (Page[Annotated[int, msgspec.Meta(ge=0)]], "Page_int"),
        (Page[Literal["a"]], "Page_Literal_a"),
    ],
)
def test_names_are_those_of_classes_and_of_what_they_are_bound_to(annotation: Any, name: str) -> None:
    assert has_name(shape(annotation))
    assert wanted_name(shape(annotation)) == name


def test_a_name_is_bounded_and_never_empty() -> None:
    long: Any = int
    for _ in range(40):
        long = tuple[long, int]
    assert len(wanted_name(shape(Page[long]))) <= 100
    assert wanted_name(shape(type("ä", (msgspec.Struct,), {}))) == "_"


@pytest.mark.parametrize("annotation", [int, list[int], Coded, Literal["a"], Annotated[int, msgspec.Meta(ge=0)], None])
def test_all_else_has_no_name(annotation: Any) -> None:
    assert not has_name(shape(annotation))


@pytest.mark.parametrize(
    "annotation",
    [
        "Json",
        of(Page, "Json"),
        Page[tuple[int, ...]],
        Annotated[int, msgspec.Meta(ge=0)],
        Mode,
        Page[Page[Colour | None]],
    ],
)
def test_what_is_read_twice_is_the_same(annotation: Any) -> None:
    assert shape(annotation) is not shape(annotation)
    assert identity_of(shape(annotation)) == identity_of(shape(annotation))
    assert hash(identity_of(shape(annotation))) is not None


@pytest.mark.parametrize(
    "one, other",
    [
        ("Json", "Other"),
        (Page[int], Page[str]),
        (list[int], set[int]),
        (Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=1)]),
        (Annotated[int, msgspec.Meta(ge=0)], int),
        (tuple[int, str], tuple[str, int]),
        (int, str),
    ],
)
def test_what_says_something_else_is_another(one: Any, other: Any) -> None:
    assert identity_of(shape(one)) != identity_of(shape(other))


_alias_type: Any = getattr(typing, "TypeAliasType", None)
Tree: Any = _alias_type("Tree", "list[Tree] | int") if _alias_type else Json


@pytest.mark.skipif(_alias_type is None, reason="it is there since 3.12")
def test_an_alias_of_python_is_known_by_its_name() -> None:
    assert identity_of(shape(Tree)) == identity_of(shape(Tree))
    assert wanted_name(shape(Tree)) == "Tree"


def test_things_of_one_name_get_numbers() -> None:
    names = Names()
    assert names.of(1, "A") == "A"
    assert names.of(2, "A") == "A_2"
    assert names.of(1, "B") == "A"
    assert names.of(3, "A_2") == "A_2_2"
    assert names.of(4, "A") == "A_3"
    assert 2 in names
    assert 5 not in names
    assert names[2] == "A_2"
