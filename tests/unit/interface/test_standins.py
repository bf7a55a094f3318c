"""What stands in for types that msgspec cannot have says of what, and makes it."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from support.annotations import DictHolder, Mixed, Movie, Node, PairHolder, Vault, living_values

from seqrpc.aio.proxy import Proxy
from seqrpc.errors import InvalidResult
from seqrpc.interface.annotations import shape_of
from seqrpc.interface.conversion import convert
from seqrpc.interface.planning import plan, plan_shape
from seqrpc.interface.results import ResultCheck
from seqrpc.interface.service import RemoteService
from seqrpc.interface.shapes import Alias
from seqrpc.interface.standins import (
    UNMADE,
    Apart,
    MemoryStandIn,
    ObjectStandIn,
    Planned,
    ServiceStandIn,
    SetStandIn,
    StandIn,
    StreamStandIn,
    UnionStandIn,
    expected,
)
from seqrpc.interface.streams import ReceivedStream
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd


class Items(ReceivedStream[Any]):
    """The reading end of a stream: what came is here already."""

    def __init__(self, *came: Any) -> None:
        self.items = list(came)

    def _checked(self, check: Any) -> None:
        self.items = check(self.items)

    def __aiter__(self) -> Any:
        raise NotImplementedError


class Conversion:
    """Remembers what it is asked to convert, and finds that all fits."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def convert(self, value: Any, wanted: Planned) -> Any:
        self.asked.append(value)
        return UNMADE

    def item_check(self, wanted: Planned) -> Any:
        raise NotImplementedError


def test_a_stream_s_says_what_its_items_are() -> None:
    planned = plan(AsyncIterator[OwnedFd | str])
    assert isinstance(planned.kind, StreamStandIn)
    assert isinstance(planned.kind.parts[0].kind, UnionStandIn)
    assert convert(Items("a"), planned).items == ["a"]
    with pytest.raises(InvalidResult, match=r"Expected `OwnedFd \| str`, got `int`"):
        convert(Items(1), planned)
    with pytest.raises(msgspec.ValidationError, match="Expected a stream, got `list`"):
        convert(["a"], planned)
    assert plan(AsyncIterator).kind.parts[0].kind is Any
    assert convert(Items(1, "a"), plan(AsyncIterator)).items == [1, "a"]


def test_a_service_s_says_which() -> None:
    planned = plan(Vault)
    assert isinstance(planned.kind, ServiceStandIn)
    assert (planned.kind.service, planned.kind.parts) == (Vault, ())
    with living_values() as (_stream, channel, _buffer):
        assert isinstance(convert(channel, planned), Proxy)
    with pytest.raises(msgspec.ValidationError, match="Expected a channel, got `int`"):
        convert(5, planned)


class Left(msgspec.Struct, tag="left"):
    number: int
    view: memoryview = memoryview(b"")


class Right(msgspec.Struct, tag="right"):
    number: int


class First(msgspec.Struct, tag=1, array_like=True):
    number: int
    view: memoryview = memoryview(b"")


class Second(msgspec.Struct, tag=2, array_like=True):
    number: int


def test_a_union_s_tries_what_may_be_meant() -> None:
    planned = plan(Vault | int | OwnedFd | None | AsyncIterator[str])
    assert isinstance(planned.kind, UnionStandIn)
    assert len(planned.kind.parts) == len(planned.kind.choices) == 5
    assert [convert(value, planned) for value in (5, None)] == [5, None]
    with pytest.raises(msgspec.ValidationError, match=r"^Expected `Vault \| int \| OwnedFd \| None .*`, got `str`$"):
        convert("x", planned)
    with Buffer.copy_of(b"abc") as buffer:
        assert convert(buffer, plan(OwnedFd | Buffer)) is buffer
        with pytest.raises(msgspec.ValidationError, match=r"got `Buffer`$"):
            convert(buffer, planned)
    with pytest.raises(msgspec.ValidationError, match=r"^Expected `OwnedFd \| Buffer`, got `int`$"):
        convert(5, plan(OwnedFd | Buffer))


@pytest.mark.parametrize(
    "annotation, value, message",
    [
        (Left | Right, {"type": "left", "number": "a"}, r"^Expected `int`, got `str` - at `\$\.number`$"),
        (Left | Right | int, {"type": "right", "number": "a"}, r"^Expected `int`, got `str` - at `\$\.number`$"),
        (Left | Right, {"type": "middle", "number": 1}, r"^Expected `Left \| Right`, got `dict`$"),
        (Left | Right, {"number": 1}, r"^Expected `Left \| Right`, got `dict`$"),
        (Left | Right, {"type": True, "number": 1}, r"^Expected `Left \| Right`, got `dict`$"),
        (Left | Right, [], r"^Expected `Left \| Right`, got `list`$"),
        (First | Second, [1, "a"], r"^Expected `int`, got `str` - at `\$\[1\]`$"),
        (First | Second, [2, "a"], r"^Expected `int`, got `str` - at `\$\[1\]`$"),
        (First | Second, [True, 1], r"^Expected `First \| Second`, got `list`$"),
        (First | Second, [], r"^Expected `First \| Second`, got `list`$"),
        (list[Left | Right], [{"type": "left", "number": "a"}], r"at `\$\[0\]\.number`$"),
    ],
)
def test_of_tagged_structs_it_tries_the_one_that_is_meant(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        convert(value, plan(annotation))


def test_tagged_structs_around_a_view_are_told_apart() -> None:
    assert convert({"type": "left", "number": 1, "view": b"x"}, plan(Left | Right)) == Left(1, memoryview(b"x"))
    assert convert({"number": 1, "type": "right"}, plan(Left | Right)) == Right(1)
    assert convert([2, 1], plan(First | Second | int)) == Second(1)
    assert convert([1, 1, b"x"], plan(First | Second | int)) == First(1, memoryview(b"x"))


@attrs.define
class Attrs:
    _hidden: int
    given: int = attrs.field(alias="other", default=1)
    made: int = attrs.field(init=False, default=2)


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
    made: int = dataclasses.field(init=False, default=2)
    view: memoryview | None = None


@pytest.mark.parametrize(
    "annotation, value, made",
    [
        (Mixed, {"source": "a"}, Mixed("a")),
        (Attrs, {"_hidden": 5}, Attrs(5)),
        (Attrs, {"_hidden": 5, "given": 6, "made": 2}, Attrs(5, 6)),
        (Frozen, {"x": 1, "made": 2}, Frozen(1)),
        (PairHolder | int, 5, 5),
        (DictHolder | int, 5, 5),
    ],
)
def test_an_object_s_makes_it_of_its_fields(annotation: Any, value: Any, made: Any) -> None:
    assert convert(value, plan(annotation)) == made


def test_an_object_s_has_a_struct_with_its_fields() -> None:
    kind = plan(Mixed).kind
    assert isinstance(kind, ObjectStandIn)
    assert kind.original is Mixed
    (mirror,) = kind.parts
    assert mirror.kind.__name__ == "Mixed"
    assert [field.encode_name for field in msgspec.structs.fields(mirror.kind)] == ["source", "name", "tags", "length"]
    assert plan(Node).kind.parts[0].kind.__struct_fields__ == ("field0", "field1", "field2")
    assert convert({"source": "a", "length": 9}, plan(Mixed)).length == 9


def test_memory_s_makes_views() -> None:
    planned = plan(memoryview)
    assert isinstance(planned.kind, MemoryStandIn)
    assert convert(b"abc", planned) == memoryview(b"abc")
    with pytest.raises(msgspec.ValidationError, match="Expected a buffer or bytes, got `str`"):
        convert("abc", planned)


@dataclasses.dataclass
class Far(Mixed):
    """Is a Mixed, too."""


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@pytest.mark.parametrize(
    "annotation, made, other",
    [
        (AsyncIterator[int], Items(), [1]),
        (Vault, RemoteService(), Vault()),
        (memoryview, memoryview(b""), b""),
        (Mixed, Far("a"), {"source": "a"}),
        (DictHolder, {}, []),
        (Access, Access.READ, 1),
    ],
    ids=["stream", "service", "memory", "dataclass", "typed dict", "flags"],
)
def test_values_are_instances_of_a_stand_in_that_makes_such(annotation: Any, made: Any, other: Any) -> None:
    kind = plan_shape(shape_of(annotation)).kind
    if annotation is DictHolder:
        kind = ObjectStandIn(shape_of(DictHolder))  # type: ignore[arg-type]
    assert isinstance(made, kind)
    assert isinstance(UNMADE, kind)
    assert not isinstance(other, kind)


def test_a_union_s_may_make_anything_and_one_of_no_kind_makes_nothing() -> None:
    assert isinstance(object(), plan(OwnedFd | Any).kind)
    nothing = StandIn()
    assert not isinstance(object(), nothing)
    with pytest.raises(NotImplementedError):
        convert(1, Planned(nothing))
    with pytest.raises(NotImplementedError):
        nothing.look(1, Conversion())


# What is on its way out


def looked(annotation: Any, value: Any) -> list[Any]:
    conversion = Conversion()
    plan_shape(shape_of(annotation), looking=True).kind.look(value, conversion)
    return conversion.asked


def test_what_is_whole_is_looked_at_as_it_is() -> None:
    for annotation, value in (
        (AsyncIterator[int], Apart(Items())),
        (Vault, Apart(Vault())),
        (Vault, Apart(RemoteService())),
        (memoryview, b"x"),
        (Path, Path("/x")),
    ):
        assert looked(annotation, value) == []


def test_what_has_parts_has_them_looked_at() -> None:
    assert looked(Mixed, {"source": "a"}) == [{"source": "a"}]
    assert looked(Path, "a") == ["a"]
    assert looked(OwnedFd | str, "a") == ["a"]


@pytest.mark.parametrize(
    "annotation, value, message",
    [
        (AsyncIterator[int], [1], "Expected a stream, got `list`"),
        (Vault, Apart(Items()), "Expected a service, got `Items`"),
        (memoryview, "x", "Expected a buffer or bytes, got `str`"),
    ],
)
def test_what_is_something_else_does_not_fit(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        looked(annotation, value)


def test_of_a_file_in_a_union_it_is_said_how_it_becomes_a_descriptor() -> None:
    class Unfit(Conversion):
        def convert(self, value: Any, wanted: Planned) -> Any:
            raise msgspec.ValidationError("no")

    with open(os.devnull, "rb") as file, pytest.raises(msgspec.ValidationError, match=r"seqrpc\.OwnedFd\.dup"):
        plan(OwnedFd | str).kind.look(Apart(file), Unfit())


def test_a_map_s_makes_keys_and_values() -> None:
    annotation = dict[Path, OwnedFd | int]
    assert convert({"a": 1, b"b": 2}, plan(annotation)) == {Path("a"): 1, Path("b"): 2}
    assert looked(annotation, {"a": 1}) == [["a"], [1]]
    for value, message in (
        ([1], "Expected `object`, got `array`"),
        ({5: 1}, r"Expected `str \| bytes`, got `int` - at `\$\[\.\.\.\]`"),
        ({"a": "b"}, r"got `str` - at `\$\[\.\.\.\]`"),
    ):
        with pytest.raises(msgspec.ValidationError, match=message):
            convert(value, plan(annotation))
    with pytest.raises(msgspec.ValidationError, match="Expected `object`, got `list`"):
        looked(annotation, [1])


def test_an_alias_s_is_what_it_stands_for() -> None:
    alias = Alias("name")
    alias.target = shape_of(int | list[str])
    kind = plan_shape(alias).kind
    assert convert(["a"], Planned(kind)) == ["a"]
    conversion = Conversion()
    kind.look(5, conversion)
    assert conversion.asked == [5]
    with pytest.raises(msgspec.ValidationError):
        convert("a", Planned(kind))


def test_what_is_something_else_is_named_by_its_type() -> None:
    assert expected("a stream", 5) == "Expected a stream, got `int`"
    assert expected("a stream", Apart("x")) == "Expected a stream, got `str`"


def test_a_typed_dict_has_the_keys_that_came() -> None:
    assert convert([{"title": "a"}, 1], plan(tuple[Movie, OwnedFd | int])) == ({"title": "a"}, 1)


def test_a_set_of_anything_s_has_tuples_for_arrays() -> None:
    planned = plan(set[Any])
    assert isinstance(planned.kind, SetStandIn)
    assert convert([[1, {"a": [2]}["a"]], "x"], planned) == {(1, (2,)), "x"}
    for came in (5, {"a": 1}, [{"a": [1]}]):
        with pytest.raises(msgspec.ValidationError):
            convert(came, planned)
    ResultCheck("S.m", planned).check({(1, (2,)), "x"})
    with pytest.raises(InvalidResult):
        ResultCheck("S.m", planned).check(5)
