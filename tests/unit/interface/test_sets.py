"""Sets of what can be chosen to collide."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from support.annotations import Mixed, Vault
from support.daemons import on_a_pair
from support.waiting import PATIENCE

import seqrpc
from seqrpc.errors import InvalidParams
from seqrpc.interface.annotations import shape_of
from seqrpc.interface.collisions import Allowance
from seqrpc.interface.conversion import Terms, convert
from seqrpc.interface.exhaustion import Exhausted
from seqrpc.interface.planning import plan
from seqrpc.interface.sets import SetBounds
from seqrpc.kernel.descriptors import OwnedFd

COLLIDING = [number << 44 for number in range(6_000)]
"""Their hashes are different, and begin to look for a place at the same spot."""

TERMS = Terms(InvalidParams, 3)


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int


class Written(msgspec.Struct, tag="w", array_like=True):
    name: str
    numbers: frozenset[float]


class Node(msgspec.Struct):
    numbers: set[int] = set()
    inner: list["Node"] = []  # noqa: UP037


class Pair(NamedTuple):
    name: str
    numbers: set[int]


class Typed(TypedDict):
    numbers: set[int]


FOUR: list[Any] = [1, 2, 3, 4]
MOMENTS = [dt.datetime(2020, 1, day, tzinfo=dt.UTC) for day in range(1, 5)]
UUIDS = [str(uuid.UUID(int=number)) for number in range(4)]


@pytest.mark.parametrize(
    "annotation, value",
    [
        (set[int], FOUR),
        (frozenset[float], FOUR),
        (set, FOUR),
        (set[Any], FOUR),
        (set[int | str], FOUR),
        (Annotated[set[int], msgspec.Meta(description="some")], FOUR),
        (set[Annotated[int, msgspec.Meta(ge=0)]], FOUR),
        (set[tuple[int, int]], [[n, n] for n in FOUR]),
        (set[frozenset[int]], [FOUR]),
        (set[dt.datetime], MOMENTS),
        (set[uuid.UUID], UUIDS),
        (set[decimal.Decimal], ["1", "2", "3", "4"]),
        (set[Point], [{"x": n} for n in FOUR]),
        (dict[uuid.UUID, int], dict.fromkeys(UUIDS, 1)),
        (dict[decimal.Decimal, int], dict.fromkeys("1234", 1)),
        (dict[str, set[int]], {"a": FOUR}),
        (list[set[int]], [[1], FOUR]),
        (tuple[int, set[int]], [1, FOUR]),
        (tuple[set[int], ...], [[1], FOUR]),
        (set[int] | None, FOUR),
        (Node, {"inner": [{"inner": [{"numbers": FOUR}]}]}),
        (Written, ["w", "a", FOUR]),
        (Pair, ["a", FOUR]),
        (Typed, {"numbers": FOUR}),
    ],
    ids=str,
)
def test_a_set_of_more_elements_than_may_be_chosen_is_not_made(annotation: Any, value: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"at most 3 elements .max_other_keys., got 4"):
        convert(value, plan(annotation), TERMS)
    convert(value, plan(annotation), Terms(InvalidParams, 4))


@pytest.mark.parametrize(
    "annotation, value",
    [
        (set[str], list("abcd")),
        (set[bytes], [b"a", b"b", b"c", b"d"]),
        (set[Colour], ["red"] * 4),
        (set[Literal[1, 2, 3, 4]], FOUR),
        (set[bool], [True, False] * 2),
        (set[Any], [*"abcd", 1, 2, 3]),
        (dict[str, int], dict.fromkeys("abcd", 1)),
        (dict[Any, int], dict.fromkeys("abcd", 1)),
        (dict, dict.fromkeys("abcd", 1)),
        (dict[int, int], {1: 1, 2: 2, 3: 3, 4: 4}),  # counted as it came
        (list[int], FOUR),
        (Any, FOUR),
        (set[int] | str, "abcd"),
        (Node, {"inner": [{"numbers": [1, 2, 3]}] * 5}),
    ],
    ids=str,
)
def test_other_sets_and_maps_may_have_as_many_as_there_is_room_for(annotation: Any, value: Any) -> None:
    convert(value, plan(annotation), TERMS)


def test_what_does_not_fit_at_all_is_left_to_msgspec() -> None:
    for annotation, value in (
        (Node, 5),
        (Node, ["a"]),
        (dict[str, set[int]], [1]),
        (tuple[int, set[int]], [1]),
        (list[set[int]], {"a": 1}),
    ):
        with pytest.raises(msgspec.ValidationError, match="Expected"):
            convert(value, plan(annotation), TERMS)


@pytest.mark.parametrize(
    "annotation",
    [
        list[dict[str, Mixed] | set[int]],
        list[dict[str, OwnedFd | int] | set[int] | None],
        dict[str, list[Vault] | dict[int, set[int]]],
        list[Annotated[Mixed, msgspec.Meta(description="one")] | set[int]],
        list[Mixed | set[int]],
        list[Vault | set[int] | str],
    ],
)
def test_a_set_beside_what_is_converted_by_itself_is_looked_at_too(annotation: Any) -> None:
    value: Any = {"a": {1: FOUR}} if "dict[int" in str(annotation) else [FOUR]
    convert(value, plan(annotation), Terms(InvalidParams, 4))
    with pytest.raises(msgspec.ValidationError, match=r"at most 3 elements .max_other_keys., got 4"):
        convert(value, plan(annotation), TERMS)


def test_most_types_have_nothing_to_look_for() -> None:
    for annotation in (int, list[int], dict[str, list[str]], Point, set[str], dict[Any, Any]):
        assert not SetBounds(shape_of(annotation))
    assert SetBounds(shape_of(Node))


class Sets(seqrpc.Service):
    @seqrpc.method
    async def count(self, numbers: set[int]) -> int:
        return len(numbers)

    @seqrpc.method
    async def make(self, size: int) -> set[int]:
        return set(range(size))

    @seqrpc.method
    async def stream(self, sets: AsyncIterator[set[int]]) -> int:
        return sum([len(numbers) async for numbers in sets])


async def test_chosen_elements_do_not_hold_the_loop(socket_path: Path) -> None:
    async def items() -> AsyncIterator[Any]:
        yield COLLIDING

    async with seqrpc.serve(Sets(), socket_path), seqrpc.connect(socket_path) as connection:
        began = time.process_time()
        with pytest.raises(seqrpc.InvalidParams, match=r"at most 1024 elements .max_other_keys., got 6000"):
            await connection.call("Sets.count", COLLIDING)
        with pytest.raises(seqrpc.InvalidParams, match="max_other_keys"):
            await connection.call("Sets.stream", items())
        assert time.process_time() - began < 0.09, "making such a set takes a tenth of a second"
        assert await asyncio.wait_for(connection.call("Sets.count", COLLIDING[:1_024]), PATIENCE) == 1_024


async def test_who_expects_more_says_so() -> None:
    limits = seqrpc.Limits(max_other_keys=10_000)
    async with on_a_pair(Sets(), limits=limits) as connection:
        assert await connection.call("Sets.count", COLLIDING) == 6_000
        with pytest.raises(seqrpc.InvalidResult, match="max_other_keys"):
            await connection.proxy(Sets).make(2_000)
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Sets(), sock=theirs), seqrpc.connect(sock=ours, limits=limits) as connection:
        assert len(await connection.proxy(Sets).make(2_000)) == 2_000


class OfNumbers(msgspec.Struct, tag="set"):
    numbers: set[int]


class InOrder(msgspec.Struct, tag="list"):
    numbers: list[int]


class Listed(msgspec.Struct, tag="l", array_like=True):
    name: str
    numbers: list[float]


def test_of_a_union_only_what_the_tag_says_is_looked_at() -> None:
    numbers = [1, 2, 3, 4]
    bounds = SetBounds(shape_of(OfNumbers | InOrder))
    bounds.check({"type": "list", "numbers": numbers}, Allowance(3))
    with pytest.raises(Exhausted, match="at most 3 elements"):
        bounds.check({"type": "set", "numbers": numbers}, Allowance(3))
    arrays = SetBounds(shape_of(Written | Listed))
    arrays.check(["l", "name", numbers], Allowance(3))
    arrays.check([], Allowance(3))
    with pytest.raises(Exhausted, match="at most 3 elements"):
        arrays.check(["w", "name", numbers], Allowance(3))
