"""Annotations resolved, each with what surrounds it."""

from __future__ import annotations

import dataclasses
import functools
import sys
import typing
from typing import Any, Generic, NamedTuple, Self, TypedDict, TypeVar

import attr
import attrs
import msgspec
import pytest
from support.sources import module_of

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.contents import spelling
from seqrpc.interface.hints import NOWHERE, Scope, bases_of, field_hints, function_hints, is_typed_dict, resolve

T = TypeVar("T")
U = TypeVar("U")


class Base(Generic[T]):
    def put(self, item: T, also: list[T]) -> Self: ...  # type: ignore[empty-body]


class Middle(Base[list[T]], Generic[T]):
    """Calls by the same name what it means something else by."""


class Other(Generic[U]):
    def look(self, at: U) -> None: ...


class Leaf(Middle[int], Other[str]):
    pass


class Left(Middle[U], Generic[U]):
    pass


class Right(Middle[U], Generic[U]):
    pass


class Diamond(Left[int], Right[int]):
    pass


def meant(hint: Any, scope: Scope) -> Any:
    return spelling(shape_of(hint, scope))


def test_type_variables_are_followed_to_what_they_are_bound_to() -> None:
    for cls, put in ((Base, Any), (Middle, list[Any]), (Leaf, list[int]), (Diamond, list[int])):
        scopes = bases_of(cls)
        hints = function_hints(Base.put, scopes[Base])
        assert meant(*hints["item"]) == put
        assert meant(*hints["also"]) == list[put]  # type: ignore[valid-type]
    assert meant(*function_hints(Other.look, bases_of(Leaf)[Other])["at"]) is str
    scopes = bases_of(Left, (str,))
    assert meant(*function_hints(Base.put, scopes[Base])["item"]) == list[str]
    assert list(scopes) == [Left, Middle, Base]


def test_what_itself_means_is_the_class_that_was_asked_about() -> None:
    for base, scope in bases_of(Leaf).items():
        assert scope.itself == (Leaf, NOWHERE), base
    assert bases_of(Left, (str,))[Base].itself == (Left[str], NOWHERE)
    outer = Scope({"name": int})
    assert bases_of(Left, ("name",), outer)[Base].itself == (Left["name"], outer)  # type: ignore[name-defined]


@dataclasses.dataclass
class Data(Generic[T]):
    item: T


@dataclasses.dataclass
class SubData(Data[list[T]], Generic[T]):
    more: T


class Struct(msgspec.Struct, Generic[T]):
    item: T


class SubStruct(Struct[list[T]], Generic[T]):
    more: T


@attrs.define
class Attrs(Generic[T]):
    item: T


@attrs.define
class SubAttrs(Attrs[list[T]], Generic[T]):
    more: T


class Typed(TypedDict, Generic[T]):
    item: T


class SubTyped(Typed[list[T]], Generic[T]):
    more: T


class Tuple(NamedTuple, Generic[T]):
    item: T


@pytest.mark.parametrize("cls", [SubData, SubStruct, SubAttrs, SubTyped])
def test_fields_are_bound_where_they_are_written(cls: Any) -> None:
    hints = field_hints(cls, bases_of(cls, (int,)))
    assert {name: meant(*hint) for name, hint in hints.items()} == {"item": list[int], "more": int}
    assert {name: meant(*hint) for name, hint in field_hints(cls, bases_of(cls)).items()} == {
        "item": list[Any],
        "more": Any,
    }


def test_named_tuples_are_bound_too() -> None:
    class Sub(Tuple[list[U]], Generic[U]):
        pass

    assert meant(*field_hints(Sub, bases_of(Sub, (int,)))["item"]) == list[int]


def test_typed_dicts_are_known_whoever_made_them() -> None:
    assert is_typed_dict(Typed)
    assert not is_typed_dict(dict)
    assert not is_typed_dict(Data)
    assert not is_typed_dict(Typed[int])
    extensions = pytest.importorskip("typing_extensions")
    made = extensions.TypedDict("made", {"a": int})
    assert is_typed_dict(made)
    assert field_hints(made, bases_of(made))["a"][0] is int


def test_types_of_attrs_that_are_no_annotations_are_found() -> None:
    made = attr.make_class("made", {"a": attr.ib(type=int), "b": attr.ib(type="list[int]"), "c": attr.ib()})
    hints = field_hints(made, bases_of(made))
    assert {name: hint for name, (hint, _scope) in hints.items()} == {"a": int, "b": list[int]}


SHADOWING = """
    from __future__ import annotations
    import dataclasses
    from datetime import date

    @dataclasses.dataclass
    class Day:
        date: date | None = None
        list: list[int] = dataclasses.field(default_factory=list)
        also: Inner | None = None

        class Inner:
            pass

        def set(self, items: set[date], other: Inner) -> list[Day]: ...
"""


def test_a_field_or_method_may_be_called_as_a_type_is() -> None:
    module = module_of(SHADOWING)
    scopes = bases_of(module.Day)
    hints = {name: hint for name, (hint, _scope) in field_hints(module.Day, scopes).items()}
    assert hints == {"date": module.date | None, "list": list[int], "also": module.Day.Inner | None}
    hints = {name: hint for name, (hint, _scope) in function_hints(module.Day.set, scopes[module.Day]).items()}
    assert hints == {"items": set[module.date], "other": module.Day.Inner, "return": list[module.Day]}  # type: ignore[name-defined]


def test_names_that_nobody_knows_are_an_error() -> None:
    def function(a: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(NameError, match="NoSuchName"):
        function_hints(function, NOWHERE)
    with pytest.raises(NameError, match="NoSuchName"):
        resolve("list[NoSuchName]", NOWHERE)
    assert resolve("list[name]", Scope({"name": int})) == list[int]


def test_wrapped_functions_have_the_annotations_of_what_they_wrap() -> None:
    @functools.wraps(Base.put)
    def put(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(args, kwargs)

    assert list(function_hints(put, bases_of(Leaf)[Base])) == ["item", "also", "return"]
    assert function_hints(lambda x: x, NOWHERE) == {}
    assert function_hints(functools.partial(int), NOWHERE) == {}


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
@pytest.mark.skipif(sys.version_info < (3, 12), reason="it is syntax since 3.12")
def test_type_parameters_are_bound(future: str) -> None:
    module = module_of(f"""
        {future}
        import dataclasses
        class Store[T]:
            def put(self, item: T) -> list[T]: ...
            def swap[V](self, item: T, other: V) -> V: ...
        class Users(Store[dict[str, int]]): ...
        @dataclasses.dataclass
        class Box[T]:
            item: T
            more: list[T] | None = None
        @dataclasses.dataclass
        class Boxes[T](Box[list[T]]):
            last: T | None = None
        T = "a name of the module's"
    """)
    hints = function_hints(module.Store.put, bases_of(module.Users)[module.Store])
    assert [meant(*hint) for hint in hints.values()] == [dict[str, int], list[dict[str, int]]]
    hints = function_hints(module.Store.swap, bases_of(module.Users)[module.Store])
    assert [meant(*hint) for hint in hints.values()] == [dict[str, int], Any, Any]
    fields = field_hints(module.Boxes, bases_of(module.Boxes, (int,)))
    assert {name: meant(*hint) for name, hint in fields.items()} == {
        "item": list[int],
        "more": list[list[int]] | None,
        "last": int | None,
    }


def test_protocols_and_generic_bases_without_arguments_are_no_bindings() -> None:
    class Looks(typing.Protocol[T]):  # type: ignore[misc]
        def look(self) -> T: ...

    class Real(Looks[int], Base):  # type: ignore[type-arg]
        pass

    scopes = bases_of(Real)
    assert meant(*function_hints(Looks.look, scopes[Looks])["return"]) is int
    assert scopes[Base].bindings == {}
