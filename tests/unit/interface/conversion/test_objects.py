"""Objects of all kinds are made of what came, with what is in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Generic, NamedTuple, NotRequired, Required, Self, TypedDict, TypeVar

import attr
import attrs
import msgspec
import pytest
from support.annotations import Vault, living_values
from support.sources import module_of

from seqrpc.aio.proxy import Proxy
from seqrpc.errors import InvalidParams
from seqrpc.interface.conversion import Terms, convert
from seqrpc.interface.planning import plan
from seqrpc.kernel.descriptors import OwnedFd

T = TypeVar("T")


@dataclasses.dataclass
class Data(Generic[T]):
    item: T
    view: memoryview | None = None


class Struct(msgspec.Struct, Generic[T]):
    item: T
    view: memoryview | None = None


@attrs.define
class Attrs(Generic[T]):
    item: T
    view: memoryview | None = None


class Tuple(NamedTuple, Generic[T]):
    item: T
    view: memoryview | None = None


class Typed(TypedDict, Generic[T]):
    item: T
    view: NotRequired[memoryview]


KINDS: list[Any] = [Data, Struct, Attrs, Tuple, Typed]


def wire(kind: Any, item: Any, **more: Any) -> Any:
    return [item, *more.values()] if issubclass(kind, tuple) else {"item": item, **more}


def item_of(made: Any) -> Any:
    return made["item"] if isinstance(made, dict) else made.item


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_a_generic_object_is_of_the_bound_type(kind: Any) -> None:
    assert item_of(convert(wire(kind, {"x": 1}), plan(kind[Plain]))) == Plain(1)
    assert item_of(convert(wire(kind, wire(kind, 5)), plan(kind[kind[int]]))) is not None
    assert item_of(convert(wire(kind, "a"), plan(kind[OwnedFd | str]))) == "a"
    assert item_of(convert(wire(kind, "a"), plan(kind))) == "a"
    with pytest.raises(msgspec.ValidationError, match=r"Expected `object`, got `int` - at `\$(\.item|\[0\])`"):
        convert(wire(kind, 5), plan(kind[Plain]))
    with pytest.raises(msgspec.ValidationError, match=r"got `str` - at `\$\[0\](\.item|\[0\])(\.item|\[0\])\.x`"):
        convert([wire(kind, wire(kind, {"x": "a"}))], plan(list[kind[kind[Plain]]]))


@pytest.mark.parametrize("kind", KINDS)
def test_services_and_views_are_found_in_objects_of_all_kinds(kind: Any) -> None:
    with living_values() as (_stream, channel, buffer):
        made = convert(wire(kind, channel, view=buffer), plan(kind[Vault]))
        assert isinstance(item_of(made), Proxy)
        view = made["view"] if isinstance(made, dict) else made.view
        assert bytes(view) == b"abc"
        view.release()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "around, put",
    [
        (lambda kind: kind, lambda value: value),
        (lambda kind: list[kind], lambda value: [value]),  # type: ignore[valid-type]
        (lambda kind: dict[str, kind], lambda value: {"a": value}),  # type: ignore[valid-type]
        (lambda kind: tuple[int, kind], lambda value: [1, value]),  # type: ignore[valid-type]
        (lambda kind: kind | None, lambda value: value),
        (lambda kind: kind | int, lambda value: value),
        (lambda kind: Annotated[kind, "a note"], lambda value: value),
        (lambda kind: Data[kind], lambda value: {"item": value}),  # type: ignore[valid-type]
        (lambda kind: Typed[list[kind]], lambda value: {"item": [value]}),  # type: ignore[valid-type]
    ],
)
def test_sets_are_bounded_wherever_they_are(kind: Any, around: Callable[[Any], Any], put: Callable[[Any], Any]) -> None:
    planned = plan(around(kind[set[int]]))
    convert(put(wire(kind, [1, 2, 3])), planned, Terms(InvalidParams, 3))
    with pytest.raises(msgspec.ValidationError, match=r"at most 3 elements .max_other_keys., got 4"):
        convert(put(wire(kind, [1, 2, 3, 4])), planned, Terms(InvalidParams, 3))


@dataclasses.dataclass
class Plain:
    x: int


@dataclasses.dataclass
class Linked:
    next: Self | None = None
    view: memoryview | None = None


@dataclasses.dataclass
class Longer(Linked):
    more: int = 1


def test_self_in_a_field_is_the_class_that_is_made() -> None:
    made = convert({"next": {"more": 5, "next": None}}, plan(Longer))
    assert (type(made), type(made.next), made.next.more) == (Longer, Longer, 5)
    assert type(convert({"next": {}}, plan(Linked)).next) is Linked


def _valid(_instance: Any, _attribute: Any, value: Any) -> None:
    if value == "bad":
        raise ValueError("a bad word")


def _upper(word: str) -> str:
    return word.upper()


def _own(strange: Strange) -> int:
    return strange._private + 1


@attrs.define
class Strange:
    _private: int
    word: str = attrs.field(converter=_upper, default="x")
    checked: str = attrs.field(validator=_valid, default="y")
    made: int = attrs.field(init=False, default=3)
    several: list[int] = attrs.Factory(list)
    own: int = attrs.field(default=attrs.Factory(_own, takes_self=True))
    called: int = attrs.field(alias="other", default=0)


@attr.s
class Older:
    typed = attr.ib(type=int)
    untyped: Any = attr.ib(default=None)


def test_classes_of_attrs_are_made_as_they_want_to_be() -> None:
    planned = plan(Strange)
    made = convert({"_private": 1}, planned)
    assert made == Strange(1)
    assert (made.own, made.made, made.several) == (2, 3, [])
    assert made.several is not convert({"_private": 1}, planned).several
    made = convert({"_private": 1, "word": "a", "made": 9, "several": [1], "own": 5, "called": 7}, planned)
    assert (made.word, made.made, made.several, made.own, made.called) == ("A", 9, [1], 5, 7)
    assert convert({"typed": 1, "untyped": "a"}, plan(Older)) == Older(1, "a")
    for value, annotation, message in (
        ({"_private": 1, "checked": "bad"}, Strange, "a bad word"),
        ({"_private": "a"}, Strange, r"Expected `int`, got `str` - at `\$\._private`"),
        ({"typed": "a"}, Older, r"Expected `int`, got `str` - at `\$\.typed`"),
        ({}, Strange, "missing required field `_private`"),
    ):
        with pytest.raises(msgspec.ValidationError, match=message):
            convert(value, plan(annotation))


class Listed(msgspec.Struct, array_like=True, tag="l"):
    number: int
    view: memoryview
    more: int = 3


class Renamed(msgspec.Struct, rename="camel", forbid_unknown_fields=True, tag_field="kind", tag=3, frozen=True):
    first_name: str
    the_view: memoryview | None = None
    several: list[int] = []


def test_structs_keep_how_they_are_written() -> None:
    made = convert(["l", 1, b"x"], plan(Listed))
    assert made == Listed(1, memoryview(b"x"), 3)
    first = convert({"firstName": "a", "theView": b"x", "kind": 3}, plan(Renamed))
    assert first == Renamed("a", memoryview(b"x"))
    assert first.several is not convert({"firstName": "a"}, plan(Renamed)).several
    for value, annotation, message in (
        (["m", 1, b"x"], Listed, r"Invalid value 'm' - at `\$\[0\]`"),
        (["l", 1], Listed, "Expected `array` of at least length 3"),
        (["l", 1, b"x", "a"], Listed, r"Expected `int`, got `str` - at `\$\[3\]`"),
        ({"firstName": "a", "other": 1}, Renamed, "unknown field `other`"),
        ({"first_name": "a"}, Renamed, "missing required field `firstName`|unknown field `first_name`"),
        ({"firstName": "a", "kind": 4}, Renamed, r"Invalid value 4 - at `\$\.kind`"),
    ):
        with pytest.raises(msgspec.ValidationError, match=message):
            convert(value, plan(annotation))


Written = TypedDict("Written", {"a-b": memoryview, "class": NotRequired[int], "it": Required[list[int]]}, total=False)


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
@pytest.mark.parametrize("view", ["memoryview", "bytes"])
def test_keys_of_a_typed_dict_may_be_left_out_where_it_says_so(future: str, view: str) -> None:
    module = module_of(f"""
        {future}
        from typing import Annotated, NotRequired, Required, TypedDict
        class Part(TypedDict, total=False):
            a: Required[{view}]
            b: int
        class Whole(Part):
            c: int
            d: NotRequired[{view}]
            e: Annotated[NotRequired[int], "a note"]
    """)
    planned = plan(module.Whole)
    assert convert({"a": b"x", "c": 1}, planned) == {"a": b"x", "c": 1}
    assert convert({"a": b"x", "b": 2, "c": 1, "d": b"y", "e": 3}, planned)["d"] == b"y"
    for value, missing in (({"c": 1}, "a"), ({"a": b"x"}, "c")):
        with pytest.raises(msgspec.ValidationError, match=f"missing required field `{missing}`"):
            convert(value, planned)


def test_keys_of_a_typed_dict_need_be_no_identifiers() -> None:
    planned = plan(Written)
    assert convert({"a-b": b"x", "class": 1, "it": [1]}, planned) == {"a-b": b"x", "class": 1, "it": [1]}
    assert convert({"it": [], "unknown": 1}, planned) == {"it": []}
    with pytest.raises(msgspec.ValidationError, match=r"Expected a buffer or bytes, got `str` - at `\$\.a-b`"):
        convert({"a-b": "x", "it": []}, planned)
    with pytest.raises(msgspec.ValidationError, match="missing required field `it`"):
        convert({"a-b": b"x"}, planned)


class SubTyped(Typed[list[T]], Generic[T]):
    more: T


class Fixed(Typed[Plain]):
    pass


def test_a_typed_dict_s_bases_are_bound() -> None:
    assert convert({"item": {"x": 1}}, plan(Fixed)) == {"item": Plain(1)}
    assert convert({"item": [1], "more": 1}, plan(SubTyped[int])) == {"item": [1], "more": 1}
    for value, annotation in (
        ({"item": 5}, Fixed),
        ({"item": [1], "more": "a"}, SubTyped[int]),
        ({"item": 1, "more": 1}, SubTyped[int]),
    ):
        with pytest.raises(msgspec.ValidationError, match=r"Expected `(object|int|array)`, got"):
            convert(value, plan(annotation))


def test_an_error_s_path_leads_through_all_that_stands_in() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        convert(
            [{"a": {"item": {"item": ["x", {"item": "bad"}]}}}],
            plan(list[dict[str, Data[Attrs[tuple[str, Struct[memoryview]]]]]]),
        )
    assert str(caught.value) == "Expected a buffer or bytes, got `str` - at `$[0][...].item.item[1].item`"


def test_an_error_s_text_is_bounded_through_stand_ins_too() -> None:
    for value, annotation in (
        ({"item": "x" * 100_000}, Data[OwnedFd]),
        ({"kind": "x" * 100_000, "firstName": "a"}, Renamed),
        ({"x" * 100_000: 1, "firstName": "a"}, Renamed),
        ({"item": [{"item": {"y" * 100_000: "x"}}]}, Attrs[list[Typed[dict[str, memoryview | int]]]]),
    ):
        with pytest.raises(msgspec.ValidationError) as caught:
            convert(value, plan(annotation))
        assert len(str(caught.value)) < 1_200
