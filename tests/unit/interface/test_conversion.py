from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import os
import socket
import traceback
import typing
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Annotated, Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar, Union

import msgpack
import msgspec
import pytest

from seqrpc.aio.channels import Channel
from seqrpc.aio.proxy import Proxy
from seqrpc.aio.streams import Stream
from seqrpc.errors import InvalidParams, InvalidResult
from seqrpc.interface.conversion import Terms, convert, exact_type, plan, takes_descriptors
from seqrpc.interface.service import Service, method
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd, ValueFd, close_all
from seqrpc.limits import DEFAULT_LIMITS, MAX_CONVERTED_VALUES
from seqrpc.protocol.codec import Codec
from seqrpc.protocol.items import ItemReader
from seqrpc.protocol.values import Handles, descriptors_in

T = TypeVar("T")
Short = Annotated[str, msgspec.Meta(max_length=3)]
Positive = Annotated[int, msgspec.Meta(gt=0)]


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Shape(msgspec.Struct):
    name: str
    sides: int = 4


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Pair(NamedTuple):
    first: int
    second: str = "b"


class Movie(TypedDict):
    title: str
    year: typing.NotRequired[int]


@dataclasses.dataclass
class Holder:
    fd: OwnedFd
    spare: OwnedFd | None = None


class StructHolder(msgspec.Struct):
    fds: list[OwnedFd]


class PairHolder(NamedTuple):
    fd: OwnedFd


class DictHolder(TypedDict):
    fd: OwnedFd


@dataclasses.dataclass
class Mixed:
    source: OwnedFd | str
    name: str = "x"
    tags: list[str] = dataclasses.field(default_factory=list)
    length: int = dataclasses.field(init=False, default=7)


@dataclasses.dataclass
class Node:
    source: OwnedFd | str
    next: Node | None = None
    children: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Chicken:
    egg: Egg | None


@dataclasses.dataclass
class Egg:
    chicken: Chicken | None
    shell: OwnedFd | int


@dataclasses.dataclass
class Box(Generic[T]):
    item: T


@dataclasses.dataclass
class Even:
    source: OwnedFd | int

    def __post_init__(self) -> None:
        if isinstance(self.source, int) and self.source % 2:
            raise ValueError("odd")


@dataclasses.dataclass
class Unresolved:
    what: NoSuchName  # type: ignore[name-defined]  # noqa: F821


def converted(value: Any, annotation: Any) -> Any:
    return convert(value, plan(annotation))


MOMENT = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)
IDENTIFIER = uuid.UUID(int=5)


@pytest.mark.parametrize(
    "annotation, value, expected",
    [
        (int, 5, 5),
        (float, 5, 5.0),
        (str, "x", "x"),
        (bytes, b"x", b"x"),
        (bytearray, b"x", bytearray(b"x")),
        (None, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (Color, "red", Color.RED),
        (Level, 1, Level.LOW),
        (Shape, {"name": "a"}, Shape("a", 4)),
        (Circle | Square, {"type": "square", "side": 1}, Square(1.0)),
        (Point, {"x": 1, "y": 2}, Point(1, 2)),
        (list[Point], [{"x": 1}], [Point(1, 0)]),
        (Pair, [1], Pair(1, "b")),
        (Movie, {"title": "x"}, {"title": "x"}),
        (dt.datetime, MOMENT, MOMENT),
        (dt.datetime, "2024-02-29T12:30:00", dt.datetime(2024, 2, 29, 12, 30)),  # noqa: DTZ001
        (dt.date, "2024-02-29", dt.date(2024, 2, 29)),
        (uuid.UUID, str(IDENTIFIER), IDENTIFIER),
        (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
        (int | str, "x", "x"),
        (int | str | None, None, None),
        (Optional[int], None, None),  # noqa: UP045
        (Union[int, list[int]], [1], [1]),  # noqa: UP007
        (Literal["a", "b"], "b", "b"),
        (Short, "abc", "abc"),
        (dict[int, Point], {5: {"x": 1}}, {5: Point(1)}),
        (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
        (set[int], [1, 2, 1], {1, 2}),
        (frozenset[str], ["a"], frozenset("a")),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (Sequence[int], [1], [1]),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (Box[Point], {"item": {"x": 1}}, Box(Point(1))),
    ],
)
def test_plain_data_becomes_what_was_annotated(annotation: Any, value: Any, expected: Any) -> None:
    result = converted(value, annotation)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    "annotation, value, message",
    [
        (int, "5", "Expected `int`, got `str`"),
        (int, True, "Expected `int`, got `bool`"),
        (int, None, "Expected `int`, got `null`"),
        (bytes, "eA==", "Expected `bytes`, got `str`"),
        (str, b"x", "Expected `str`, got `bytes`"),
        (Color, "blue", "Invalid enum value 'blue'"),
        (Shape, {}, "missing required field `name`"),
        (Point, {"x": 1, "y": "a"}, r"Expected `int`, got `str` - at `\$.y`"),
        (list[Point], [{"x": 1}, {"x": "a"}], r"at `\$\[1\].x`"),
        (dict[int, Point], {"a": {"x": 1}}, "Expected `int`, got `str` - at `key`"),
        (Literal["a"], "b", "Invalid enum value 'b'"),
        (Short, "abcd", "length <= 3"),
        (list[Positive], [1, 0], r">= 1 - at `\$\[1\]`"),
        (dt.datetime, "yesterday", "Invalid RFC3339"),
        (Pair, [], "length [>=1 ]*"),
        (Movie, {"year": 5}, "missing required field `title`"),
        (OwnedFd, 5, "Expected a descriptor, got `int`"),
        (OwnedFd | None, "x", "Expected a descriptor, got `str`"),
        (OwnedFd | str, 5, "Expected `str`, got `int`"),
        (OwnedFd | Mixed, 5, "Expected `object`, got `int`"),
        (list[OwnedFd | str], ["a", 5], r"at `\$\[1\]`"),
        (Mixed, {"source": 5}, r"Expected `str`, got `int` - at `\$.source`"),
        (Mixed, {}, "missing required field `source`"),
        (Even, {"source": 3}, "odd"),
    ],
)
def test_what_does_not_fit_is_an_error_with_its_place(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        converted(value, annotation)


def test_a_descriptor_is_nothing_else(pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        for annotation in (int, str, list[int], Point, Literal["a"], int | None):
            with pytest.raises(msgspec.ValidationError, match=r"Expected `.*`, got `OwnedFd`"):
                converted(fd, annotation)


@pytest.mark.parametrize(
    "annotation, build",
    [
        (OwnedFd, lambda fd: fd),
        (OwnedFd | None, lambda fd: fd),
        (Any, lambda fd: fd),
        (list[OwnedFd], lambda fd: [fd]),
        (dict[str, OwnedFd], lambda fd: {"a": fd}),
        (tuple[int, OwnedFd], lambda fd: (1, fd)),
        (set[OwnedFd], lambda fd: {fd}),
        (OwnedFd | str, lambda fd: fd),
        (OwnedFd | str | None, lambda fd: fd),
        (Optional[Union[OwnedFd, int]], lambda fd: fd),  # noqa: UP007, UP045
        (OwnedFd | Mixed, lambda fd: fd),
        (Annotated[OwnedFd | int, "a note"], lambda fd: fd),
        (dict[int, OwnedFd | str], lambda fd: {1: fd, 2: "b"}),
        (tuple[OwnedFd | str, ...], lambda fd: (fd, "b")),
        (Sequence[OwnedFd | str], lambda fd: [fd]),
        (Box[OwnedFd], Box),
        (Box[OwnedFd | int], Box),
        (Holder, Holder),
        (StructHolder, lambda fd: StructHolder([fd])),
        (PairHolder, PairHolder),
        (Mixed, Mixed),
        (Mixed | None, Mixed),
        (OwnedFd | Mixed, Mixed),
        (Mixed | int | None, Mixed),
        (list[Mixed], lambda fd: [Mixed(fd, "y", ["z"])]),
        (Node, lambda fd: Node("a", Node("b", children=[Node(fd)]))),
        (Chicken, lambda fd: Chicken(Egg(Chicken(None), fd))),
    ],
)
def test_descriptors_are_found_wherever_they_are(
    annotation: Any, build: Callable[[OwnedFd], Any], pipe: tuple[int, int]
) -> None:
    planned = plan(annotation)
    assert takes_descriptors(planned)
    with OwnedFd.dup(pipe[0]) as fd:
        value = build(fd)
        assert descriptors_in(value) == [fd]
        wire = msgspec.to_builtins(value, builtin_types=(OwnedFd,))
        result = convert(wire, planned)
        assert result == value
        assert type(result) is type(value)
        assert descriptors_in(result) == [fd]


def test_a_typed_dict_holds_descriptors(pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        assert converted({"fd": fd}, DictHolder) == {"fd": fd}


def test_every_choice_of_a_union_with_a_descriptor_is_tried() -> None:
    planned = plan(OwnedFd | int | Mixed | Node | None)
    assert convert(5, planned) == 5
    assert convert(None, planned) is None
    assert convert({"source": "a", "name": "b"}, planned) == Mixed("a", "b")
    assert convert({"source": "a", "name": "b", "next": None}, planned) == Mixed("a", "b")
    with pytest.raises(msgspec.ValidationError, match="; "):
        convert("x", planned)


def test_dataclasses_around_a_descriptor_keep_their_defaults() -> None:
    planned = plan(Mixed)
    first, second = convert({"source": "a"}, planned), convert({"source": "a"}, planned)
    assert first == Mixed("a")
    assert first.tags is not second.tags


@pytest.mark.parametrize(
    "annotation",
    [
        int,
        float,
        bool,
        None,
        int | None,
        Positive,
        Annotated[int | float, "a note"],
        Color,
        Level,
        Literal["a", "b"],
        uuid.UUID,
        dt.datetime,
        dt.date,
        dt.time,
        dt.timedelta,
    ],
)
def test_small_plain_types_never_travel_with_descriptors(annotation: Any) -> None:
    assert not takes_descriptors(plan(annotation))


@pytest.mark.parametrize("annotation", [Any, list, dict, dict[str, Any], Box])
def test_types_that_say_nothing_may_hold_descriptors(annotation: Any) -> None:
    assert takes_descriptors(plan(annotation))


@pytest.mark.parametrize(
    "annotation",
    [str, bytes, list[int], dict[str, Point], Point, Shape, Pair, Movie, int | str, Short, tuple[int, ...]],
)
def test_what_may_be_large_may_travel_as_a_descriptor(annotation: Any) -> None:
    assert takes_descriptors(plan(annotation))


@pytest.mark.parametrize(
    "annotation",
    [
        object,
        socket.socket,
        list[socket.socket],
        int | socket.socket,
        IO[str],
        Callable[[], int],
        Iterator[int],
        StructHolder | Shape,
        Shape | Point,
    ],
)
def test_types_that_cannot_be_sent_are_a_type_error(annotation: Any) -> None:
    with pytest.raises(TypeError):
        plan(annotation)


def test_a_dataclass_that_cannot_be_resolved_is_an_error() -> None:
    with pytest.raises(NameError, match="NoSuchName"):
        plan(Unresolved)


def test_exact_types_need_no_conversion() -> None:
    assert [exact_type(plan(annotation)) for annotation in (int, str, bool, bytes, None)] == [
        int,
        str,
        bool,
        bytes,
        type(None),
    ]
    for annotation in (float, list[int], Point, OwnedFd, Level, bytearray, int | None, Any):
        assert exact_type(plan(annotation)) is None


def test_descriptors_are_found_in_any_value(pipe: tuple[int, int]) -> None:
    fds = [OwnedFd.dup(pipe[0]) for _ in range(7)]
    try:
        value = {
            fds[0]: [fds[1], 5, (fds[2],)],
            "b": {fds[3], "x"},
            "c": frozenset({fds[4]}),
            "d": StructHolder([fds[5]]),
            "e": Holder(fds[6]),
            "f": Point,
        }
        found = descriptors_in(value)
        assert len(found) == 7
        assert set(found) == set(fds)
    finally:
        close_all(fds)


def test_descriptors_are_found_once_in_a_value_that_holds_itself_and_at_any_depth(pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        circle: list[Any] = [fd]
        circle.append(circle)
        assert descriptors_in(circle) == [fd]
        deep: Any = fd
        for _ in range(5_000):
            deep = [deep]
        assert descriptors_in(deep) == [fd]
    assert descriptors_in(os) == []


# What is more than data: streams, services, buffers


class Vault(Service):
    @method
    async def look(self) -> int:
        return 1


class OtherVault(Service):
    @method
    async def look(self) -> int:
        return 2


@dataclasses.dataclass
class DataVault(Service):
    """A service that is a dataclass as well."""

    secret: str

    @method
    async def look(self) -> int:
        return 3


@dataclasses.dataclass
class Everything:
    vault: Vault
    stream: AsyncIterator[int]
    buffer: Buffer | None = None
    view: memoryview | None = None
    data_vaults: list[DataVault] = dataclasses.field(default_factory=list)


class StructOfStreams(msgspec.Struct):
    stream: AsyncIterator[int]
    buffer: Buffer


class StructOfServices(msgspec.Struct):
    vault: Vault


class StructOfDataServices(msgspec.Struct):
    vaults: list[DataVault]


class TypedDictOfServices(TypedDict):
    vault: Vault


@contextmanager
def living_values() -> Iterator[tuple[Stream[Any], Channel, Buffer]]:
    """Return a stream, a channel and a buffer as they come off the wire; nobody is at their other ends."""
    ends = [end for _ in range(2) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
    fds = [ValueFd(end.detach()) for end in ends]
    stream: Stream[Any] = Stream(fds[0], ItemReader(Codec(), 100_000))
    with Buffer.copy_of(b"abc") as buffer:
        try:
            yield stream, Channel(fds[2], DEFAULT_LIMITS, lambda _own: Handles()), buffer
        finally:
            close_all([*fds])


@pytest.mark.parametrize(
    "annotation, wrap",
    [
        (AsyncIterator[int], lambda value: value),
        (AsyncIterable[int], lambda value: value),
        (AsyncGenerator[int, None], lambda value: value),
        (typing.AsyncIterator[int], lambda value: value),
        (AsyncIterator, lambda value: value),
        (Stream[int], lambda value: value),
        (Stream, lambda value: value),
        (Any, lambda value: value),
        (AsyncIterator[Point | None] | None, lambda value: value),
        (AsyncIterator[Mixed] | int, lambda value: value),
        (AsyncIterator[int] | OwnedFd | str, lambda value: value),
        (Annotated[AsyncIterator[int], "a note"], lambda value: value),
        (list[AsyncIterator[int]], lambda value: [value]),
        (dict[str, AsyncIterator[int] | None], lambda value: {"a": value, "b": None}),
        (tuple[int, AsyncIterator[int]], lambda value: (1, value)),
    ],
)
def test_streams_are_found_wherever_they_are(annotation: Any, wrap: Callable[[Any], Any]) -> None:
    planned = plan(annotation)
    assert takes_descriptors(planned)
    with living_values() as (stream, _channel, _buffer):
        assert convert(wrap(stream), planned) == wrap(stream)


@pytest.mark.parametrize(
    "annotation, wrap, unwrap",
    [
        (Vault, lambda value: value, lambda got: got),
        (Vault | None, lambda value: value, lambda got: got),
        (Vault | int | None, lambda value: value, lambda got: got),
        (Vault | AsyncIterator[int] | Buffer | OwnedFd, lambda value: value, lambda got: got),
        (list[Vault], lambda value: [value], lambda got: got[0]),
        (dict[str, Vault | str], lambda value: {"a": value, "b": "c"}, lambda got: got["a"]),
        (Box[Vault], lambda value: {"item": value}, lambda got: got.item),
        (DataVault, lambda value: value, lambda got: got),
        (list[DataVault | None], lambda value: [None, value], lambda got: got[1]),
        (Annotated[Vault, "a note"], lambda value: value, lambda got: got),
    ],
)
def test_channels_become_proxies_of_the_annotated_service(
    annotation: Any, wrap: Callable[[Any], Any], unwrap: Callable[[Any], Any]
) -> None:
    planned = plan(annotation)
    assert takes_descriptors(planned)
    with living_values() as (_stream, channel, _buffer):
        proxy = unwrap(convert(wrap(channel), planned))
        assert isinstance(proxy, Proxy)
        assert proxy._connection is channel
        assert type(proxy).__name__ in ("VaultProxy", "DataVaultProxy")


@pytest.mark.parametrize(
    "annotation", [Buffer, Buffer | None, Buffer | str, Buffer | OwnedFd, Any, Vault | Buffer, Buffer | bytes]
)
def test_buffers_come_as_they_are(annotation: Any) -> None:
    with living_values() as (_stream, _channel, buffer):
        assert takes_descriptors(plan(annotation))
        assert converted(buffer, annotation) is buffer
        assert converted([buffer], list[annotation])[0] is buffer


@pytest.mark.parametrize("annotation", [memoryview, memoryview | None, memoryview | int, memoryview | OwnedFd])
def test_a_memoryview_is_of_a_buffer_or_of_bytes(annotation: Any) -> None:
    with living_values() as (_stream, _channel, buffer):
        assert takes_descriptors(plan(annotation))
        for value in (buffer, b"abc", memoryview(b"abc")):
            with converted(value, annotation) as view:
                assert type(view) is memoryview
                assert bytes(view) == b"abc"
        with pytest.raises(msgspec.ValidationError, match="Expected a buffer or bytes, got `str`"):
            converted("abc", annotation)


def test_all_of_them_are_found_in_dataclasses() -> None:
    with living_values() as (stream, channel, buffer):
        wire = {"vault": channel, "stream": stream, "buffer": buffer, "view": b"xyz", "data_vaults": [channel]}
        got = converted(wire, Everything)
        assert got.stream is stream
        assert got.buffer is buffer
        assert got.view == b"xyz"
        assert [type(proxy).__name__ for proxy in (got.vault, *got.data_vaults)] == ["VaultProxy", "DataVaultProxy"]
        assert converted({"vault": channel, "stream": stream}, Everything).buffer is None


def test_streams_and_buffers_are_found_in_structs() -> None:
    with living_values() as (stream, _channel, buffer):
        got = converted({"stream": stream, "buffer": buffer}, StructOfStreams)
        assert (got.stream, got.buffer) == (stream, buffer)
        with pytest.raises(msgspec.ValidationError, match=r"Expected a stream, got `int` - at `\$.stream`"):
            converted({"stream": 5, "buffer": buffer}, StructOfStreams)


@pytest.mark.parametrize(
    "annotation, message",
    [
        (StructOfServices, r"values of type Vault cannot be sent within a Struct \(a dataclass would do\)"),
        (list[StructOfServices], "within a Struct"),
        (StructOfDataServices, "values of type DataVault cannot be sent within a Struct"),
        (TypedDictOfServices, "values of type Vault cannot be sent"),
        (Vault | OtherVault, "a service does not say which of them it is"),
        (AsyncIterator[int] | AsyncIterator[str] | None, "a stream does not say which of them it is"),
        (AsyncIterator[socket.socket], "values of type socket cannot be sent"),
        (AsyncIterator[StructOfServices], "within a Struct"),
        (list[AsyncIterator[Callable[[], int]]], "cannot be sent|not supported"),
    ],
)
def test_what_cannot_be_among_them_is_a_type_error(annotation: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        plan(annotation)


@pytest.mark.parametrize(
    "annotation, message",
    [
        (AsyncIterator[int], "Expected a stream, got `int`"),
        (Vault, "Expected a channel, got `int`"),
        (Buffer, "Expected a buffer, got `int`"),
        (list[Vault], r"Expected a channel, got `int` - at `\$\[0\]`"),
        (Vault | str, "Expected `str`, got `int`; Expected a channel, got `int`"),
        (Vault | None, "Expected a channel, got `int`"),
    ],
)
def test_what_is_none_of_them_does_not_fit(annotation: Any, message: str) -> None:
    value = [5] if annotation == list[Vault] else 5
    with pytest.raises(msgspec.ValidationError, match=message):
        converted(value, annotation)


@dataclasses.dataclass
class Clumsy:
    word: str

    def __post_init__(self) -> None:
        self.word.no_such_method()  # type: ignore[attr-defined]


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Says which field it does not know."""


def test_a_fault_of_a_type_of_the_application_s_own_is_its_fault() -> None:
    with pytest.raises(AttributeError, match="no_such_method"):
        converted({"word": "x"}, Clumsy)


def test_one_is_not_another() -> None:
    with living_values() as (stream, channel, buffer):
        for wrong, annotation in (
            (stream, Vault), (channel, AsyncIterator[int]), (buffer, OwnedFd), (stream, Buffer), (buffer, Vault),
            (stream, int), (channel, str), (channel, DataVault | memoryview), (buffer, dict[str, int]),
            (buffer, list[int]), (buffer, Point), (buffer, Shape), (buffer, Mixed), (stream, list[int]),
        ):  # fmt: skip
            if annotation == DataVault | memoryview:
                assert isinstance(converted(wrong, annotation), Proxy)
                continue
            with pytest.raises(msgspec.ValidationError, match=r"Expected|missing"):
                converted(wrong, annotation)


@pytest.mark.parametrize("invalid", [InvalidParams, InvalidResult])
@pytest.mark.parametrize("within", [False, True])
async def test_items_of_streams_are_checked_and_the_fault_is_whose_it_is(
    invalid: type[InvalidParams | InvalidResult], within: bool
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        stream: Any = Stream(ValueFd(theirs.detach()), ItemReader(Codec(), 100_000))
        if within:
            stream = convert({"item": stream}, plan(Box[AsyncIterator[Even]]), Terms(invalid)).item
        else:
            stream = convert(stream, plan(AsyncIterator[Even]), Terms(invalid))
        ours.send(msgpack.packb([0, {"source": 2}, {"source": 4}, {"source": 5}]))
        assert [await anext(stream), await anext(stream)] == [Even(2), Even(4)]
        with pytest.raises(invalid, match="an item of a stream does not fit its annotation: odd"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize("invalid, expected", [(InvalidParams, AttributeError), (InvalidResult, InvalidResult)])
async def test_an_item_whose_class_fails_is_its_reader_s_fault(
    invalid: type[InvalidParams | InvalidResult], expected: type[Exception]
) -> None:
    """In a handler the error would else cross as InvalidParams, with a text about the inside."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        stream: Any = convert(
            Stream(ValueFd(theirs.detach()), ItemReader(Codec(), 100_000)), plan(AsyncIterator[Clumsy]), Terms(invalid)
        )
        ours.send(msgpack.packb([0, {"word": "x"}]))
        with pytest.raises(expected, match="no_such_method"):
            await anext(stream)


async def test_a_traceback_of_what_does_not_fit_quotes_nothing_as_it_came() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        stream: Any = convert(
            Stream(ValueFd(theirs.detach()), ItemReader(Codec(), 100_000)),
            plan(AsyncIterator[Strict]),
            Terms(InvalidParams),
        )
        ours.send(msgpack.packb([0, {"one\ntwo\x1b[2J" + "x" * 10_000: 1}]))
        with pytest.raises(InvalidParams, match=r"unknown field `one\\ntwo\\x1b") as caught:
            await anext(stream)
    text = "".join(traceback.format_exception(caught.value))
    assert len(text) < 5_000
    assert "\x1b" not in text


# What one conversion may cost


class Suit(enum.Enum):
    HEARTS = "hearts"


@dataclasses.dataclass
class Chain:
    """Holds itself, and may hold a stream, and so is made in Python at every level."""

    next: list[Chain]
    items: AsyncIterator[int] | None = None


def test_an_error_does_not_quote_all_of_what_came() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        converted({"a": ["x" * 1_000_000 + "y"]}, dict[str, list[Suit]])
    text = str(caught.value)
    assert text.startswith("Invalid enum value 'xxxx")
    assert text.endswith("xxxy' - at `$[...][0]`")
    assert len(text) < 1_100
    assert caught.value.__cause__ is None, "which would be logged, too"
    with pytest.raises(msgspec.ValidationError) as caught:
        converted("spades", Suit)
    assert str(caught.value) == "Invalid enum value 'spades'"


@pytest.mark.parametrize(
    "annotation, made, plain",
    [
        (list[OwnedFd | str], lambda number: ["x"] * number, True),
        (dict[str, list[list[OwnedFd | int]]], lambda number: {"a": [[1] * 10] * (number // 10)}, True),
        (Chain, lambda number: {"next": [{"next": [{"next": []}] * (number // 10 - 1)}] * 10}, False),
        (list[memoryview], lambda number: [b""] * number, False),
    ],
    ids=["union", "deeper", "dataclasses", "memory"],
)
def test_values_that_are_converted_one_by_one_are_counted_through_all_of_a_conversion(
    annotation: Any, made: Callable[[int], Any], plain: bool
) -> None:
    for _ in range(2):  # each conversion by itself
        value = made(100)
        assert converted(value, annotation) == value or not plain
    with pytest.raises(msgspec.ValidationError, match=f"More than {MAX_CONVERTED_VALUES} values"):
        converted(made(2 * MAX_CONVERTED_VALUES), annotation)


def test_as_many_values_as_may_be_are_converted() -> None:
    value = ["x"] * MAX_CONVERTED_VALUES
    assert converted(value, list[OwnedFd | str]) == value
    with pytest.raises(msgspec.ValidationError):
        converted([*value, "x"], list[OwnedFd | str])
    many = [1] * (MAX_CONVERTED_VALUES + 1)
    assert converted(many, list[int]) == many, "which is not done one by one"
