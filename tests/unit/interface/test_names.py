"""Names that stand for other types: type variables, Self, texts and aliases."""

from __future__ import annotations

import sys
import typing
from typing import Any, ForwardRef, Literal, TypeVar

import msgspec
import pytest
from support.annotations import Point, Vault
from support.sources import module_of

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.contents import spelling
from seqrpc.interface.conversion import convert
from seqrpc.interface.hints import NOWHERE, Scope
from seqrpc.interface.names import NameReader
from seqrpc.interface.planning import plan
from seqrpc.interface.shapes import Alias, Anything

T = TypeVar("T")
Number = TypeVar("Number", int, float)
Small = TypeVar("Small", bound=int)
Later = TypeVar("Later", bound="Point")
ITSELF: Any = vars(typing)["Self"]  # which type checkers want to see in classes only


def test_a_type_variable_is_what_it_is_bound_to_or_its_bound_or_anything() -> None:
    scope = Scope({"Point": Point}, {T: (list[Small], Scope(bindings={Small: (str, NOWHERE)}))})  # type: ignore[valid-type]
    assert spelling(shape_of(T, scope)) == list[str]
    assert spelling(shape_of(dict[str, T], scope)) == dict[str, list[str]]  # type: ignore[valid-type]
    assert isinstance(shape_of(T), Anything)
    assert spelling(shape_of(Small)) is int
    assert spelling(shape_of(Later, scope)) is Point
    assert spelling(shape_of(Number)) == int | float


def test_self_is_the_class_that_it_stands_in() -> None:
    assert spelling(shape_of(list[ITSELF], Scope(itself=(Vault, NOWHERE)))) == list[Vault]
    with pytest.raises(TypeError, match=r"^x\[\]: there is no class here that Self could mean$"):
        shape_of(list[ITSELF], path="x")


def test_a_text_is_what_it_names_where_it_stands() -> None:
    scope = Scope({"Point": Point})
    assert spelling(shape_of("Point", scope)) is Point
    assert spelling(shape_of(list["Point"], scope)) == list[Point]
    assert spelling(shape_of(ForwardRef("Point | None"), scope)) == Point | None
    assert spelling(shape_of(Literal["Point"], scope)) == Literal["Point"]
    text = r"^x: 'Line' cannot be resolved: name 'Line' is not defined \(only names at the top of a module are known\)$"
    with pytest.raises(TypeError, match=text):
        shape_of("Line", scope, "x")


def test_who_reads_names_has_to_read_what_they_stand_for() -> None:
    reader = NameReader()
    with pytest.raises(NotImplementedError):
        reader.read(int, NOWHERE, "")
    with pytest.raises(NotImplementedError):
        reader.union(Number, (), "")


def aliases() -> Any:
    extensions = pytest.importorskip("typing_extensions")
    module = module_of("""
        import dataclasses
        from typing import Annotated, TypeVar
        from typing_extensions import TypeAliasType
        T = TypeVar("T")
        Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | None")
        Ids = TypeAliasType("Ids", list[int])
        Row = TypeAliasType("Row", list[T], type_params=(T,))
        Tree = TypeAliasType("Tree", "T | list[Tree[T]]", type_params=(T,))
        Loop = TypeAliasType("Loop", "Loop")
        Here = TypeAliasType("Here", "There")
        There = TypeAliasType("There", "Annotated[Here, 'a note']")
        Either = TypeAliasType("Either", "Either | int")
        Wrong = TypeAliasType("Wrong", "list[Wrong | complex]")
        Wider = TypeAliasType("Wider", "list[Wider[tuple[T, T, T]]]", type_params=(T,))
        @dataclasses.dataclass
        class Document:
            body: "Json"
            ids: Ids = dataclasses.field(default_factory=list)
    """)
    assert extensions
    return module


def new_aliases() -> Any:
    if sys.version_info < (3, 12):
        pytest.skip("it is syntax since 3.12")
    return module_of("""
        import dataclasses
        from typing import Annotated
        type Json = dict[str, Json] | list[Json] | str | int | None
        type Ids = list[int]
        type Row[T] = list[T]
        type Tree[T] = T | list[Tree[T]]
        type Loop = Loop
        type Here = There
        type There = Annotated[Here, 'a note']
        type Either = Either | int
        type Wrong = list[Wrong | complex]
        type Wider[T] = list[Wider[tuple[T, T, T]]]
        @dataclasses.dataclass
        class Document:
            body: Json
            ids: Ids = dataclasses.field(default_factory=list)
    """)


@pytest.mark.parametrize("made", [aliases, new_aliases])
def test_a_name_says_what_it_stands_for(made: Any) -> None:
    module = made()
    assert spelling(shape_of(module.Ids)) == list[int]
    assert spelling(shape_of(module.Row[str])) == list[str]
    assert spelling(shape_of(module.Row)) == list[Any]
    assert isinstance(shape_of(module.Json), Alias)
    value = {"a": [1, "x", {"b": None}]}
    assert convert(value, plan(module.Json)) == value
    assert convert({"body": value}, plan(module.Document)).body == value
    assert convert(value, plan(module.Json | None | bytes)) == value
    with pytest.raises(msgspec.ValidationError, match="got `float`"):
        convert({"a": [1, "x", {"b": 1.5}]}, plan(module.Json))
    assert convert([["x"], "y"], plan(module.Tree[str])) == [["x"], "y"]
    with pytest.raises(msgspec.ValidationError, match=r"got `str` - at `\$\[0\]\[0\]`"):
        convert([["x"]], plan(module.Tree[int]))


@pytest.mark.parametrize("made", [aliases, new_aliases])
@pytest.mark.parametrize(
    "name, message",
    [
        ("Loop", "x: .* stands for itself"),
        ("Here", "x: .* stands for itself"),
        ("Either", "x: Either is a union of itself"),
        ("Wrong", r"x\[\]: values of type complex cannot be sent"),
        ("Wider", r"x(\[\]?)*: it is nested without an end: write a class"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(made: Any, name: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        shape_of(getattr(made(), name), path="x")


def test_the_same_text_in_two_names_means_what_it_means_there() -> None:
    pytest.importorskip("typing_extensions")
    module = module_of("""
        from typing import TypeVar
        from typing_extensions import TypeAliasType
        T = TypeVar("T")
        One = TypeAliasType("One", "list[T]", type_params=(T,))
        Other = TypeAliasType("Other", "list[T]", type_params=(T,))
    """)
    assert spelling(shape_of(module.One[module.Other[module.One[int]]])) == list[list[list[int]]]


def test_an_old_name_may_hold_itself() -> None:
    module = module_of("""
        from __future__ import annotations
        import dataclasses
        from typing import Union
        Json = Union[dict[str, "Json"], list["Json"], str, int, None]
        @dataclasses.dataclass
        class Document:
            body: Json
    """)
    value = {"a": [1, "x", {"b": None}]}
    assert convert({"body": value}, plan(module.Document)).body == value
    with pytest.raises(msgspec.ValidationError, match=r"got `float`.* - at `\$\.body"):
        convert({"body": {"a": [[[1.5]]]}}, plan(module.Document))


@pytest.mark.skipif(sys.version_info < (3, 13), reason="type variables have defaults since 3.13")
def test_a_type_variable_may_have_a_default() -> None:
    module = module_of("""
        import dataclasses
        @dataclasses.dataclass
        class Box[T = int]:
            item: T
    """)
    assert convert({"item": 5}, plan(module.Box)).item == 5
    with pytest.raises(msgspec.ValidationError):
        convert({"item": "a"}, plan(module.Box))
    assert convert({"item": "a"}, plan(module.Box[str])).item == "a"
