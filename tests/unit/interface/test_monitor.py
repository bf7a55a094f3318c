"""What is told of a call that is watched, and that arguments are told in short."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import pytest

import seqrpc
from seqrpc.interface.monitor import MOST_OF_ARGUMENTS, CallEvent, Monitor, told_arguments
from seqrpc.interface.signature import spec_of

EVENT = CallEvent(
    method="Logs.read",
    uid=1,
    gid=2,
    pid=3,
    began=4.0,
    duration=0.5,
    code=None,
    refused=False,
    oneway=False,
    arguments=None,
    missed=0,
)


class Vault(seqrpc.Service):
    @seqrpc.method
    async def open(
        self, user: str, password: Annotated[str, seqrpc.SENSITIVE], options: dict[str, Any] | None = None
    ) -> None:
        """Take something secret."""

    @seqrpc.method
    async def take(self, value: Any) -> None:
        """Take anything."""


OPEN = spec_of(Vault).methods["open"].description
TAKE = spec_of(Vault).methods["take"].description


def test_what_is_sensitive_is_left_out_by_position_and_by_name() -> None:
    assert told_arguments(OPEN, ["anna", "hunter2"]) == "user='anna', password=..."
    assert told_arguments(OPEN, {"password": "hunter2", "user": "anna"}) == "user='anna', password=..."
    assert told_arguments(OPEN, ["anna", "hunter2", {"a": 1}, "more"]) == "user='anna', password=..., options={'a': 1}"
    assert told_arguments(OPEN, {"user": "anna", "pasword": "hunter2"}) == "user='anna'"
    assert told_arguments(OPEN, []) == ""


@pytest.mark.parametrize(
    "value, told",
    [
        (None, "None"),
        (True, "True"),
        (-5, "-5"),
        (1.5, "1.5"),
        ("a\x1b[1m", r"'a\x1b[1m'"),
        ("x" * 81, f"'{'x' * 80}'..."),
        (b"abc", "<3 bytes>"),
        (bytearray(4), "<4 bytes>"),
        (memoryview(b"12"), "<2 bytes>"),
        ([1, "a", [2]], "[1, 'a', [2]]"),
        ((1,), "[1]"),
        ([*range(9)], "[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        ([[[[1]]]], "[[[[...]]]]"),
        ([[[{}]]], "[[[{...}]]]"),
        ({"a": {1: b""}}, "{'a': {1: <0 bytes>}}"),
        (dict.fromkeys(range(9)), "{0: None, 1: None, 2: None, 3: None, 4: None, 5: None, 6: None, 7: None, ...}"),
        (dataclasses.make_dataclass("Odd", [])(), "<Odd>"),
    ],
)
def test_values_are_told_in_short(value: Any, told: str) -> None:
    assert told_arguments(TAKE, [value]) == f"value={told}"


def test_what_holds_itself_has_an_end() -> None:
    value: list[Any] = []
    value.append(value)
    assert told_arguments(TAKE, [value]) == "value=[[[[...]]]]"


def test_what_handlers_leave_of_arguments_is_told_somehow() -> None:
    released = memoryview(b"12")
    released.release()
    assert told_arguments(TAKE, [released]) == "value=<memoryview>"
    assert told_arguments(TAKE, [[1, 10**5_000]]) == "value=<list>"


def test_large_arguments_take_no_longer_than_small_ones() -> None:
    huge = ["x" * 50_000_000, [b"y" * 1_000_000] * 1_000_000, dict.fromkeys(map(str, range(1_000_000)), "z" * 100)]
    before = time.process_time()
    for _ in range(100):
        told = told_arguments(TAKE, [huge])
        assert len(told) < MOST_OF_ARGUMENTS + 30
    assert time.process_time() - before < 1.0  # to write them all takes more than that for each


class Ended:
    """A watch that has a few calls to tell."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.closed = 0

    async def next(self) -> CallEvent | None:
        if not self.left:
            return None
        self.left -= 1
        return EVENT

    def close(self) -> None:
        self.closed += 1


async def test_the_service_tells_what_is_watched_until_there_is_no_more_and_then_watches_no_more() -> None:
    asked: list[tuple[Sequence[str], int | None]] = []
    watch = Ended(2)

    def begin(methods: Sequence[str], uid: int | None) -> Ended:
        asked.append((methods, uid))
        return watch

    monitor = Monitor(begin)
    assert [event async for event in monitor.monitor(["Logs"], 7)] == [EVENT, EVENT]
    assert (asked, watch.closed) == ([(["Logs"], 7)], 1)
    watch.left = 5
    events: AsyncIterator[CallEvent] = monitor.monitor()
    assert await anext(events) == EVENT
    await events.aclose()  # type: ignore[attr-defined] # it is a generator
    assert (asked[1], watch.closed) == (((), None), 2)


def test_it_is_a_service_of_the_protocol_whose_method_says_nothing_of_callers_so_the_default_holds() -> None:
    method = spec_of(Monitor).methods["monitor"]
    assert method.wire_name == "rpc.monitor"
    assert method.description.allow is None
