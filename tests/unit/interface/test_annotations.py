"""From annotations to shapes: all spellings of a type."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import socket
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


def test_a_union_of_names_for_addresses_is_flat() -> None:
    shape = shape_of(Union[ipaddress.IPv4Address, Optional[ipaddress.IPv6Address]])  # noqa: UP007, UP045
    assert [type(part) for part in shape.parts] == [Coded, Coded, Scalar]
