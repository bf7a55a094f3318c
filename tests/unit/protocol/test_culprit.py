"""Where the value is that cannot be sent."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pytest

from seqrpc.errors import LocalProtocolError
from seqrpc.kernel.buffers import Buffer
from seqrpc.limits import MAX_VALUES_SEARCHED
from seqrpc.protocol.culprit import NotFound, Search, label
from seqrpc.protocol.encoder import Encoder

FAR = 2**64
LONE = "\udcff"


class Unknown:
    """Of a type that nobody knows."""


@dataclass
class Page:
    text: Any
    more: Any = field(default=None)


@dataclass(slots=True)
class Slotted:
    text: Any
    never_set: int = field(init=False)


class Book(msgspec.Struct):
    pages: Any
    title: Any = ""


class Point(NamedTuple):
    x: Any
    y: Any


class Color(enum.Enum):
    RED = FAR


def culprit(value: Any) -> str:
    """Return what is told of a result that cannot be sent."""
    with pytest.raises(LocalProtocolError) as caught:
        Encoder().encode((1, 0, None, value), ("kind", "id", "error", "result"))
    return str(caught.value).removeprefix("cannot send ")


BAD = {
    "far": (FAR, "integers have at most 64 bits, this one has 65"),
    "lone": (LONE, "'utf-8' codec can't encode character"),
    "unknown": (Unknown(), "a value of type Unknown cannot be sent"),
}

PLACES: dict[str, Any] = {
    "result": lambda bad: bad,
    "result['a']": lambda bad: {"fine": 1, "a": bad, "b": bad},
    "result[1]": lambda bad: ["fine", bad],
    "result[0][2]": lambda bad: ((1, 2, bad),),
    "result.text": Page,
    "result.more['k'][0]": lambda bad: Page("fine", {"k": [bad]}),
    "result[0].text": lambda bad: [Slotted(bad)],
    "result.pages[1].text": lambda bad: Book([Page("fine"), Page(bad)]),
    "result.title": lambda bad: Book([], bad),
    "result.pages.pages": lambda bad: Book(Book(bad)),
    "result.y": lambda bad: Point(1, bad),
    "result['p'].x.more": lambda bad: {"p": Point(Page(1, bad), 2)},
    "result[(1, 2)].text": lambda bad: {(1, 2): Page(bad)},
    "result[b'k']": lambda bad: {b"k": bad},
    "result[7]": lambda bad: {7: bad},
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", PLACES)
def test_the_path_leads_to_it(place: str, bad: str) -> None:
    value, reason = BAD[bad]
    assert culprit(PLACES[place](value)).startswith(f"{place}: {reason}")


@pytest.mark.parametrize(
    "value, told",
    [
        ({FAR: 1}, f"result's key {FAR}: integers"),
        ({LONE: 1}, r"result's key '\udcff': 'utf-8' codec"),
        ({1, FAR}, f"result's member {FAR}: integers"),
        ([{Point(1, LONE): 1}], r"result[0]'s key (1, '\udcff').y: 'utf-8' codec"),
        (Color.RED, "result: "),
        ({"x" * 10_000: {"y" * 10_000: FAR}}, f"result['{'x' * 192}…: integers"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_keys_and_members_are_named(value: Any, told: str) -> None:
    assert culprit(value).startswith(told)


def test_what_travels_as_a_descriptor_is_no_culprit() -> None:
    with Buffer.allocate(10) as buffer:
        assert culprit([buffer, open, 1]).startswith("result[1]: a value of type builtin_function_or_method")


@pytest.mark.parametrize(
    "key, told",
    [
        (1, "1"),
        (10**5000, "<16610 bits>"),
        ((1, "a"), "(1, 'a')"),
        ((1,), "(1,)"),
        ((), "()"),
        ((1, (2, 3)), "<tuple of 2>"),
        (tuple(range(10_000)), "<tuple of 10000>"),
        (frozenset([1]), "<frozenset of 1>"),
        ("x" * 1_000_000, repr("x" * 200)),
        (Page(range(10)), "<Page>"),
        (None, "None"),
        (1.5, "1.5"),
        (datetime(2020, 1, 1, tzinfo=UTC), "datetime.datetime(2020, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)"),
    ],
    ids=itertools.count(),
)
def test_a_key_is_named_however_large_it_is(key: Any, told: str) -> None:
    assert label(key) == told


def counting(looked: list[Any]) -> Search:
    return Search(lambda value: False, looked.append, 100)


def test_only_so_many_values_are_looked_at() -> None:
    looked: list[Any] = []
    search = counting(looked)
    with pytest.raises(NotFound, match=f"not among the first {MAX_VALUES_SEARCHED} values"):
        search.find([[{"k": number} for number in range(1_000_000)], 1], "result")
    assert len(looked) < MAX_VALUES_SEARCHED


def test_the_bound_is_for_all_parts_of_a_message_together() -> None:
    search = counting([])
    search.find(list(range(MAX_VALUES_SEARCHED - 2)), "params")
    search.find(1, "options")
    with pytest.raises(NotFound):
        search.find(1, "more")


def test_it_goes_only_so_deep() -> None:
    deep: Any = Page(1)
    deep.text = deep
    path, reason = Search(lambda value: False, bool, 5).find(deep, "result") or ("", "")
    assert (path, reason) == ("result" + 5 * ".text", "it is nested too deeply, or holds itself")


def test_nothing_is_wrong_with_what_can_be_packed() -> None:
    assert counting([]).find({"a": [1, Point(1, 2), {3}]}, "result") is None


NAMES = ("kind", "params")


def test_a_message_is_explained_by_the_path_to_the_culprit() -> None:
    def pack(value: Any) -> None:
        if value == FAR:
            raise OverflowError("too big")

    search = Search(lambda value: False, pack, 100)
    told = search.explain((FAR, [1, {"a": FAR}]), NAMES, OverflowError("too big"))
    assert told == "cannot send kind: integers have at most 64 bits, this one has 65"
    told = search.explain((0, [1, {"a": FAR}], FAR), NAMES, OverflowError("too big"))
    assert told == "cannot send params[1]['a']: integers have at most 64 bits, this one has 65"


@pytest.mark.parametrize("error, told", [(OverflowError("too big"), "too big"), (OverflowError(), "OverflowError")])
def test_where_no_culprit_is_found_the_reason_is_told_alone(error: Exception, told: str) -> None:
    assert counting([]).explain((0, [1]), NAMES, error) == f"cannot send: {told}"
    assert counting([]).explain((0, [1] * 100_000), NAMES, error) == (
        f"cannot send: {told} (it is not among the first {MAX_VALUES_SEARCHED} values)"
    )


@pytest.mark.parametrize("error, told", [(RuntimeError("no items today"), "no items today"), (KeyError(), "KeyError")])
def test_what_is_raised_while_the_culprit_is_looked_for_is_told(error: Exception, told: str) -> None:
    class Unhelpful(dict[str, Any]):
        def items(self) -> Any:
            raise error

    assert counting([]).explain((0, Unhelpful()), NAMES, OverflowError("too big")) == f"cannot send: {told}"
