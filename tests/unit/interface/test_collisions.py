"""What elements of sets may cost that were chosen to collide."""

from __future__ import annotations

import decimal
import functools
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Network
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from support.daemons import on_a_pair
from support.speed import is_within

import seqrpc
from seqrpc.errors import InvalidParams
from seqrpc.interface.annotations import shape_of
from seqrpc.interface.collisions import Allowance, Elements
from seqrpc.interface.conversion import Terms, _check_items, convert
from seqrpc.interface.exhaustion import Exhausted
from seqrpc.interface.planning import listed, plan
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.received import ReceivedItems

PRIME = 2**61 - 1
"""Integers that are equal modulo it have one hash, and so has what is hashed as they are."""

ALIKE = [7 + number * PRIME for number in range(8)]

TERMS = Terms(InvalidParams)


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0
    z: int = 0


class Corner(msgspec.Struct, frozen=True):
    x: int
    y: int
    z: int


def ids(number: int) -> list[str]:
    return [str(uuid.UUID(int=7 + each * PRIME)) for each in range(number)]


def networks(number: int) -> list[str]:
    return [str(IPv6Network(((7 + each * PRIME) ^ (2**128 - 1), 128))) for each in range(number)]


def numbers(number: int) -> list[str]:
    return [str(7 + each * PRIME) for each in range(number)]


def corners(number: int) -> list[dict[str, int]]:
    return [dict(zip("xyz", each, strict=True)) for each in itertools.product(ALIKE, repeat=3)][:number]


def lists(number: int) -> list[list[int]]:
    return [[*[1] * 200, *each] for each in itertools.product(ALIKE, repeat=3)][:number]


def sets(number: int) -> list[list[int]]:
    """Sets of which each has elements that collide, and a hash that may be that of all others."""
    return [[each << 44 for each in range(number, number + 60)]] * number


def takes(action: Callable[[], object]) -> float:
    """Return the seconds of processor time that something takes, the least of some times: others are busy, too."""

    def once() -> float:
        began = time.process_time()
        action()
        return time.process_time() - began

    return min(once() for _ in range(5))


@pytest.mark.parametrize(
    "annotation, made, at_most",
    [
        (uuid.UUID, ids, 1_024),
        (IPv6Network, networks, 450),
        (decimal.Decimal, numbers, 1_000),
        (Point, corners, 400),
        (Corner, corners, 500),
        (tuple[int, ...], lists, 60),
        (frozenset[int], sets, 40),
        (Annotated[uuid.UUID, msgspec.Meta(description="an id")] | int, ids, 1_024),
    ],
    ids=str,
)
def test_all_sets_of_a_message_together_cost_some_ten_milliseconds(annotation: Any, made: Any, at_most: int) -> None:
    planned = plan(list[set[annotation]])
    passing = [made(at_most)]
    assert is_within(takes(lambda: convert(passing, planned, TERMS)), 0.25), "several times as long as it takes"

    def refuse() -> None:
        with pytest.raises(
            msgspec.ValidationError, match=r"too large together for one message .max_other_keys is 1024"
        ):
            convert(passing * 200, planned, TERMS)

    assert takes(refuse) < 0.25


@pytest.mark.parametrize(
    "annotation, value",
    [
        (list[set[int]], [[1, 2, 3]] * 300_000),
        (list[set[int]], [list(range(64))] * 5_000),
        (list[set[int]], [list(range(1_000))] * 6),
        (list[set[uuid.UUID]], [ids(8)] * 5_000),
        (list[dict[uuid.UUID, int]], [dict.fromkeys(ids(3), 1)] * 20_000),
        (list[set[Point]], [corners(8)] * 5_000),
        (list[set[IPv4Interface]], [["10.0.0.1", "10.0.0.2"]] * 5_000),
        (set[Path], [str(number) for number in range(10_000)]),
        (list[set[str | int]], [[*"abcdefg" * 100, *range(20)]] * 1_000),
        (list[OwnedFd | set[int]], [list(range(1_024))] * 6),
    ],
    ids=lambda given: str(given)[:60],
)
def test_many_small_sets_are_made_and_each_is_counted_once(annotation: Any, value: Any) -> None:
    assert len(convert(value, plan(annotation), TERMS)) == len(value)


def test_what_is_converted_by_itself_is_counted_with_the_rest_and_no_other_type_is_tried() -> None:
    value = [list(range(1_024))] * 7
    for annotation in (list[OwnedFd | set[int]], list[OwnedFd | set[int] | Any], list[set[int] | Any]):
        with pytest.raises(msgspec.ValidationError, match="too large together"):
            convert(value, plan(annotation), TERMS)
    with pytest.raises(msgspec.ValidationError, match="at most 1024 elements"):
        convert(list(range(1_025)), plan(set[int] | OwnedFd | Any), TERMS)


def test_parts_are_counted_no_longer_than_there_is_something_left() -> None:
    elements = Elements(shape_of(tuple[int, ...]), strings_count=True)
    value = [[0] * 100_000] * 65
    allowance = Allowance(1_024)
    began = time.process_time()
    with pytest.raises(Exhausted):
        elements.take(value, allowance)
    assert time.process_time() - began < 0.5, "6.5 million parts take longer"


def test_items_of_a_stream_are_counted_a_turn_at_a_time() -> None:
    items = ReceivedItems()
    items.check = functools.partial(_check_items, listed(plan(set[uuid.UUID])), TERMS)
    items.add([ids(900)] * 3, [])
    turns = 0
    while items.has_more:
        items.look()
        turns += 1
    assert [len(items.take()) for _ in range(3)] == [900] * 3
    assert turns == 3
    items.add([ids(2), ids(1_025)], [])
    while items.has_more:
        items.look()
    assert "an item of a stream: a set" in str(items.failure)


class Sets(seqrpc.Service):
    @seqrpc.method
    async def count(self, sets: list[set[uuid.UUID]]) -> int:
        return len(sets)

    @seqrpc.method
    async def make(self, number: int) -> list[set[uuid.UUID]]:
        raise NotImplementedError

    @seqrpc.method
    async def stream(self, sets: AsyncIterator[set[uuid.UUID]]) -> int:
        return sum([1 async for _ in sets])


class Others(Sets, name="Sets"):
    @seqrpc.method
    async def make(self, number: int) -> Any:
        return [ids(900)] * number


async def test_a_message_of_many_sets_does_not_hold_the_loop() -> None:
    colliding = ids(1_000)

    async def items() -> AsyncIterator[Any]:
        for _ in range(3):
            yield colliding

    async with on_a_pair(Others()) as connection:
        began = time.process_time()
        with pytest.raises(seqrpc.InvalidParams, match="too large together for one message"):
            await connection.call("Sets.count", [colliding] * 60)
        with pytest.raises(seqrpc.InvalidResult, match="too large together for one message"):
            await connection.proxy(Sets).make(60)
        assert time.process_time() - began < 1.0, "making such sets takes two seconds, twice"
        assert await connection.call("Sets.count", [colliding]) == 1
        assert await connection.call("Sets.stream", items()) == 3, "each is one message, or is looked at by itself"
