"""From annotations to shapes: all spellings of a type."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Generic,
    Literal,
    NewType,
    Optional,
    ParamSpec,
    Self,
    TypeVar,
    TypeVarTuple,
    Union,
)

import msgspec
import pytest
from support.annotations import Box, Color, DataVault, Point, Unresolved, Vault
from support.sources import module_of

from seqrpc.interface.annotations import is_service, is_stream, shape_of
from seqrpc.interface.contents import shapes_in, spelling
from seqrpc.interface.conversion import convert
from seqrpc.interface.hints import Scope
from seqrpc.interface.planning import plan
from seqrpc.interface.service import Service
from seqrpc.interface.shapes import (
    Alias,
    Anything,
    Array,
    BufferShape,
    Coded,
    Constrained,
    Descriptor,
    FixedTuple,
    Map,
    Memory,
    Object,
    Scalar,
    ServiceObject,
    Shape,
    Stream,
)
from seqrpc.interface.shapes import Union as UnionShape
from seqrpc.interface.streams import ReceivedStream
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Number = TypeVar("Number", int, float)
Small = TypeVar("Small", bound=int)
Later = TypeVar("Later", bound="Point")
Ts = TypeVarTuple("Ts")
P = ParamSpec("P")
UserId = NewType("UserId", int)
Handle = NewType("Handle", OwnedFd)
Nested = NewType("Nested", UserId)


class Read(ReceivedStream[T_co]):
    """The reading end of a stream."""


class Access(enum.Flag):
    READ = 1


class Store(Service, Generic[T]):
    pass


@pytest.mark.parametrize(
    "annotation, kind",
    [
        (int, Scalar),
        (Color, Scalar),
        (Any, Anything),
        (object, Anything),
        (T, Anything),
        (list[int], Array),
        (tuple[int, str], FixedTuple),
        (dict[str, int], Map),
        (Point, Object),
        (Box[int], Object),
        (int | str, UnionShape),
        (Annotated[int, msgspec.Meta(gt=0)], Constrained),
        (Path, Coded),
        (Access, Coded),
        (OwnedFd, Descriptor),
        (Buffer, BufferShape),
        (memoryview, Memory),
        (AsyncIterator[int], Stream),
        (Vault, ServiceObject),
        (Store[int], ServiceObject),
    ],
)
def test_annotations_are_read_as_what_they_are(annotation: Any, kind: type[Shape]) -> None:
    assert type(shape_of(annotation)) is kind
    assert type(shape_of(Annotated[annotation, "a note"])) is kind


@pytest.mark.parametrize(
    "annotation, same",
    [
        (UserId, int),
        (Nested, int),
        (Handle, OwnedFd),
        (list[UserId], list[int]),
        (Annotated[AsyncIterator[int], "a note"], AsyncIterator[int]),
        (AsyncIterator[Annotated[UserId, "a note"]] | None, AsyncIterator[int] | None),
        ("list[int]", list[int]),
        (ForwardRef("int"), int),
        (Optional[int], int | None),  # noqa: UP045
        (Union[int, Union[str, None]], int | str | None),  # noqa: UP007
        (Union[Annotated[int, "a"], Annotated[int, "b"]], int),  # noqa: UP007
        (Number, int | float),
        (list[Small], list[int]),  # type: ignore[valid-type]
        (dict[T, int], dict[Any, int]),  # type: ignore[valid-type]
        (Store[list[UserId]], Store[list[int]]),
    ],
)
def test_other_spellings_say_the_same(annotation: Any, same: Any) -> None:
    assert spelling(shape_of(annotation)) == spelling(shape_of(same))


def test_names_are_those_around_the_annotation() -> None:
    assert shape_of(Later, Scope({"Point": Point})) == shape_of(Point)
    assert shape_of("list[Point]", Scope({"Point": Point})) == shape_of(list[Point])
    assert shape_of(Self, Scope(itself=(Point, Scope()))) == shape_of(Point)
    assert shape_of(T, Scope(bindings={T: ("Name", Scope({"Name": int}))})) == shape_of(int)


@pytest.mark.parametrize(
    "annotation, of",
    [
        (AsyncIterator[int], int),
        (AsyncIterable[str], str),
        (AsyncGenerator[Point, None], Point),
        (Read[bytes], bytes),
        (Read, Any),
        (AsyncIterator, Any),
        (Annotated[AsyncIterator[int], "a note"], int),
        (int, None),
        (list[int], None),
        (Iterator[int], None),
    ],
)
def test_a_stream_is_known_and_of_what(annotation: Any, of: Any) -> None:
    assert is_stream(annotation) is (of is not None)
    if of is not None:
        shape = shape_of(annotation)
        assert isinstance(shape, Stream)
        assert shape.item == shape_of(of)


def test_services_are_known() -> None:
    assert [is_service(one) for one in (Vault, DataVault, Store[int], Point, list[Vault], int | str)] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


# What is refused, with its place


@dataclasses.dataclass
class Behind:
    inner: list[Deeper]


@dataclasses.dataclass
class Deeper:
    sock: dict[str, socket.socket] | None


@dataclasses.dataclass
class Endless(Generic[T]):
    next: Endless[list[T]] | None


@dataclasses.dataclass
class Branching(Generic[T]):
    next: Branching[tuple[T, T, T]] | None


@dataclasses.dataclass
class Many(Generic[*Ts]):
    items: tuple[*Ts]


@dataclasses.dataclass
class Calls(Generic[P]):
    x: int


@dataclasses.dataclass
class Given:
    x: int
    y: dataclasses.InitVar[int] = 0


TooWide: Any = enum.Flag("TooWide", {f"BIT{number}": 1 << number for number in range(17)})  # type: ignore[misc]
Bounded = msgspec.Meta(max_length=3)


@pytest.mark.parametrize(
    "annotation, message",
    [
        (socket.socket, "x: values of type socket cannot be sent: write seqrpc.OwnedFd"),
        (Behind, r"x\.inner\[\]\.sock\[\]: values of type socket cannot be sent"),
        (list[tuple[int, complex]], r"x\[\]\[1\]: values of type complex"),
        (dict[complex, int], "x's keys: values of type complex"),
        (AsyncIterator[complex], r"x\[\]: values of type complex"),
        (Box[complex], "x: values of type complex"),
        (Store[complex], "x: values of type complex"),
        (int | complex, "x: values of type complex"),
        (Store[int] | Store[str], "x: a service does not say which"),
        (AsyncIterator[int] | AsyncIterator[str], "x: a stream does not say which"),
        (Point | Box[int], r"x: Point and .*Box\[int\] cannot be told apart, .* tags"),
        (Unresolved, "x: an annotation of Unresolved cannot be resolved: name 'NoSuchName' is not defined"),
        (list["NoSuchName"], r"x\[\]: 'NoSuchName' cannot be resolved"),  # type: ignore[name-defined]  # noqa: F821
        ("1 +", r"x: '1 \+' cannot be resolved"),
        (Self, "x: there is no class here that Self could mean"),
        (Endless[int], "x.*: it is nested without an end"),
        (Branching[int], "x.*: it is nested without an end"),
        (Many[int, str], "x.items.*cannot be sent: it is no type that is known"),
        (Calls[[int, str]], "x: .*cannot be sent: it is no type that is known"),
        (Given, "x: Given.y is an InitVar, which no object has: make it a field"),
        (TooWide, "x: TooWide has 17 bits"),
        (Annotated[AsyncIterator[int], Bounded], r"x: bounds cannot be checked on AsyncIterator\[int\]"),
        (Annotated[Vault, Bounded], "x: bounds cannot be checked on Vault"),
        (Annotated[int | str, Bounded], r"x: bounds cannot be checked on int \| str"),
        (Annotated[Path, Bounded], "x: bounds cannot be checked on Path"),
        (5, "x: values of type 5 cannot be sent: it is no type that is known"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_place_and_a_way_out(annotation: Any, message: str) -> None:
    with pytest.raises(TypeError, match=rf"^{message}"):
        shape_of(annotation, path="x")


def test_what_is_nested_very_deeply_is_refused() -> None:
    annotation: Any = int
    for _ in range(100):
        annotation = list[annotation]
    with pytest.raises(TypeError, match=r"^x(\[\]?)*: it is nested without an end: write a class"):
        shape_of(annotation, path="x")


def test_without_a_place_the_text_begins_with_what_is_wrong() -> None:
    with pytest.raises(TypeError, match=r"^values of type complex cannot be sent"):
        shape_of(complex)


def test_a_class_in_a_function_is_known_unless_it_is_named_in_a_text() -> None:
    @dataclasses.dataclass
    class Inner:
        x: int

    made = dataclasses.make_dataclass("made", [("inner", Inner)])
    assert spelling(shape_of(made)) is made

    @dataclasses.dataclass
    class Outer:
        inner: Inner

    with pytest.raises(TypeError, match=r"Outer cannot be resolved: .*only names at the top of a module are known"):
        shape_of(Outer)


# Classes that lead to others


def test_classes_are_read_once_and_may_hold_themselves() -> None:
    @dataclasses.dataclass
    class Node:
        next: Any

    Node.__annotations__["next"] = list[Node] | None
    shape = shape_of(Node)
    assert sum(isinstance(found, Object) for found in shapes_in(shape)) == 1
    assert sum(isinstance(found, Object) for found in shapes_in(shape_of(tuple[Box[int], Box[int], Box[str]]))) == 2


def test_a_grammar_of_many_classes_is_read() -> None:
    names = [f"Kind{number}" for number in range(40)]
    classes = "\n".join(
        f"class {name}(msgspec.Struct, tag=True):\n    left: 'Expression'\n    number: int = 0" for name in names
    )
    module = module_of(f"import msgspec\n{classes}\nExpression = {' | '.join(names)} | int")
    value = {"type": "Kind0", "left": {"type": "Kind39", "left": 5}}
    assert convert(value, plan(module.Expression)).left == module.Kind39(5)


def test_a_set_of_what_comes_later_is_looked_at_too() -> None:
    with pytest.raises(TypeError, match=r"x\.keys: list\[int\] has no hash, and cannot be in a set"):
        shape_of(Keyed, path="x")


@dataclasses.dataclass(frozen=True)
class Key:
    parts: list[int]


@dataclasses.dataclass
class Keyed:
    keys: set[Key]


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
def test_keys_of_a_typed_dict_and_those_of_its_bases_are_read(future: str) -> None:
    module = module_of(f"""
        {future}
        from typing import Annotated, Generic, NotRequired, Required, TypedDict, TypeVar
        T = TypeVar("T")
        class Part(TypedDict, Generic[T], total=False):
            a: Required[T]
            b: T
        class Whole(Part[int]):
            c: str
            d: NotRequired[str]
            e: Annotated[NotRequired[str], "a note"]
            f: Annotated[str, "a note"]
    """)
    shape = shape_of(module.Whole)
    assert isinstance(shape, Object)
    assert shape.is_respelled
    assert {field.name: (spelling(field.shape), field.is_required) for field in shape.fields} == {
        "a": (int, True),
        "b": (int, False),
        "c": (str, True),
        "d": (str, False),
        "e": (str, False),
        "f": (str, True),
    }


def test_tuples_are_of_any_length_or_of_one() -> None:
    assert shape_of(tuple) == shape_of(tuple[Any, ...])
    assert spelling(shape_of(tuple[Literal["a"], ...])) == tuple[Literal["a"], ...]
    assert shape_of(tuple[()]).parts == ()
    with pytest.raises(TypeError, match=r"x: values of type Literal\[1.5\] cannot be sent: a Literal holds strings"):
        shape_of(Literal[1.5], path="x")


# Names for types


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


def test_a_union_of_names_for_addresses_is_flat() -> None:
    shape = shape_of(Union[ipaddress.IPv4Address, Optional[ipaddress.IPv6Address]])  # noqa: UP007, UP045
    assert [type(part) for part in shape.parts] == [Coded, Coded, Scalar]
