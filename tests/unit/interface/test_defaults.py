"""Defaults as JSON has them, and as people read them where JSON has nothing."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import pathlib
import uuid
from decimal import Decimal
from typing import Any, NamedTuple

import attrs
import msgspec
import pytest

from seqrpc.interface.defaults import NoForm, form_of, forms_of, json_form, text, told_default, words_for
from seqrpc.interface.methods import method
from seqrpc.interface.registering import register_type
from seqrpc.interface.service import Service

NOTHING = msgspec.NODEFAULT


class Colour(enum.Enum):
    RED = "red"


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    tags: tuple[str, ...] = ("a",)


class Circle(msgspec.Struct, tag=True):
    radius: float


@attrs.define
class Secret:
    _x: int


class Pair(NamedTuple):
    a: int
    b: str


class Token(Service):
    @method
    async def look(self) -> None: ...


class Name(str):
    __slots__ = ()


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


def encode(money: Money) -> int:
    if money.cents < 0:
        raise RuntimeError("debts are not told")
    return money.cents


register_type(Money, wire_type=int, encode=encode, decode=Money)


@pytest.mark.parametrize(
    "value, form",
    [
        (None, None),
        (True, True),
        (5, 5),
        (1.5, 1.5),
        ("ä", "ä"),
        (Name("ann"), "ann"),
        ([1, (2, None)], [1, [2, None]]),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({1, "a"}), [1, "a"]),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        (Colour.RED, "red"),
        ({Colour.RED: 1}, {"red": 1}),
        (Mode.READ | Mode.WRITE, 3),
        (Point(1), {"x": 1, "tags": ["a"]}),
        (Circle(1.5), {"type": "Circle", "radius": 1.5}),
        (Secret(5), {"_x": 5}),
        (Pair(1, "b"), [1, "b"]),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.timedelta(days=1), "P1D"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("1.50"), "1.50"),
        (pathlib.PurePosixPath("/a"), "/a"),
        (Money(5), 5),
    ],
)
def test_what_json_has_is_written_as_it_is_on_the_wire(value: Any, form: Any) -> None:
    assert json_form(value) == form
    assert type(json_form(value)) is type(form)
    assert told_default(value, NOTHING, sensitive=False) == ({"default": form}, {})


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


class Odd:
    pass


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    "value, words",
    [
        (b"x", "b'x'"),
        ([b"x"], "[b'x']"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (2**64, "18446744073709551616"),
        ("\udc80", "'\\udc80'"),
        ({1: 2}, "{1: 2}"),
        (msgspec.UNSET, "UNSET"),
        (..., "..."),
        (pathlib.PurePosixPath("\udc80"), "PurePosixPath('\\udc80')"),
        (Token, "<class 'support.x.Token'>"),
        (Unprintable(), "<Unprintable>"),
    ],
)
def test_what_json_has_not_is_written_for_people(value: Any, words: str) -> None:
    with pytest.raises(NoForm):
        json_form(value)
    assert words_for(value) == words.replace("support.x", __name__)
    assert told_default(value, NOTHING, sensitive=False) == ({}, {"default": words_for(value)})
    assert form_of(value) == words_for(value)


@pytest.mark.parametrize("value", [Token(), Odd(), Money(-1), [Odd()]])
def test_no_address_in_memory_is_told(value: Any) -> None:
    with pytest.raises(NoForm):
        json_form(value)
    assert " at 0x" in repr(value)
    assert "0x" not in words_for(value)


def test_what_holds_itself_or_is_very_deep_has_no_form() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for value in (circle, nested(100)):
        with pytest.raises(NoForm):
            json_form(value)
    assert json_form(nested(5)) == [[[[[[]]]]]]


def test_long_words_are_cut() -> None:
    assert len(words_for(b"x" * 10_000)) < 400
    assert words_for("a\nb\x1b") == "'a\\nb\\x1b'"


@pytest.mark.parametrize(
    "factory, told",
    [
        (list[int], ({"default": []}, {"factory": True})),
        (list, ({"default": []}, {"factory": True})),
        (tuple, ({"default": []}, {"factory": True})),
        (set, ({"default": []}, {"factory": True})),
        (frozenset, ({"default": []}, {"factory": True})),
        (dict, ({"default": {}}, {"factory": True})),
        (Point, ({}, {"default": "Point()"})),
        (bytes, ({}, {"default": "bytes()"})),
        (lambda: 5, ({}, {"default": "..."})),
    ],
)
def test_what_makes_a_default_is_named(factory: Any, told: Any) -> None:
    assert told_default(NOTHING, factory, sensitive=False) == told


def test_what_makes_a_default_need_not_be_a_function() -> None:
    class Factory:
        __hash__ = None  # type: ignore[assignment] # an object without a hash

        def __call__(self) -> int:
            return 5

        def __repr__(self) -> str:
            return "Factory at 0x7f"

    assert told_default(NOTHING, Factory(), sensitive=False) == ({}, {"default": "Factory()"})


def test_what_has_no_default_is_told_as_such() -> None:
    assert told_default(NOTHING, NOTHING, sensitive=False) == ({}, {})


def test_secrets_are_not_told() -> None:
    assert told_default("hunter2", NOTHING, sensitive=True) == ({}, {"default": "..."})
    assert told_default(NOTHING, lambda: "hunter2", sensitive=True) == ({}, {"default": "..."})
    assert told_default(None, NOTHING, sensitive=True) == ({"default": None}, {})
    assert told_default(NOTHING, list, sensitive=True) == ({"default": []}, {"factory": True})


def test_those_that_json_has_are_taken_from_several() -> None:
    assert forms_of([1, b"x", "a"]) == [1, "a"]


def test_texts_that_are_no_utf_8_are_escaped() -> None:
    assert text("ä") == "ä"
    assert text("a\udc80") == "a\\udc80"
