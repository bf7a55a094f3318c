"""What ``rpc.stats`` answered, read without trust."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from seqrpc import blocking
from seqrpc.cli.endings import FAILED, Ending
from seqrpc.cli.readings import MOST_METHODS, MOST_NUMBER, stats_in
from seqrpc.interface.stats import MOST_LISTED, Stats


def test_what_a_server_tells_is_read_as_it_is(desk: Path) -> None:
    with blocking.connect(desk) as connection:
        connection.call("Desk.add", 1)
        answer = connection.call("rpc.stats")
    stats = stats_in(answer)
    assert dataclasses.asdict(stats) == answer
    assert stats.methods["Desk.add"].calls == 1
    assert stats.connections[0].calls[0].method == "rpc.stats"


@pytest.mark.parametrize("answer", [None, 7, [], {}, {"methods": None}, {"methods": []}])
def test_what_is_no_such_answer_is_told(answer: Any) -> None:
    with pytest.raises(Ending, match=r"what rpc\.stats answered is none") as caught:
        stats_in(answer)
    assert caught.value.status == FAILED


WRONG: list[Any] = [None, "x", b"x", [], {}, [[]], {"a": []}, -1, True, 2**200, -(2**200), 1.5, math.nan, math.inf]

NAMES = [field.name for field in dataclasses.fields(Stats)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_whatever_stands_in_a_place_is_made_to_fit(name: str, value: Any) -> None:
    if name == "methods" and not isinstance(value, dict):
        return
    check(stats_in({"methods": {}, name: value}))


def test_whatever_stands_in_lists_is_made_to_fit() -> None:
    wrong: dict[Any, Any] = dict(enumerate(WRONG))
    parts: dict[Any, Any] = {
        key: value for value in WRONG for key in ("pid", "uid", "age", "calls", "method", "errors", "latency")
    }
    answer: dict[str, Any] = {
        "methods": {**wrong, "x": {"latency": WRONG, "errors": wrong, "calls": 3}, "\x1b[2J": parts},
        "connections": [*WRONG, {"calls": [*WRONG, {"method": "\x1b", "age": math.nan}]}, parts],
        "object_calls": [*WRONG, {"method": 7}],
        "accounts": {**wrong, "0": wrong},
        "connections_refused": wrong,
        "latency_bounds": WRONG,
    }
    stats = stats_in(answer)
    check(stats)
    assert stats.methods["x"].calls == 3
    assert "\\x1b[2J" in stats.methods
    assert stats.latency_bounds == []


def test_there_is_never_more_than_is_listed() -> None:
    long: list[Any] = [{"calls": [{}] * 10_000}] * 10_000
    answer = {
        "methods": {str(number): {"errors": dict.fromkeys(map(str, range(300)), 1)} for number in range(20_000)},
        "connections": long,
        "object_calls": [{}] * 10_000,
        "accounts": {str(number): {} for number in range(10_000)},
        "latency_bounds": [float(number + 1) for number in range(1_000)],
        "version": "x" * 1_000_000,
    }
    stats = stats_in(answer)
    assert len(stats.methods) == MOST_METHODS
    assert len(stats.methods["0"].errors) == 100
    assert len(stats.connections) == len(stats.object_calls) == MOST_LISTED
    assert len(stats.connections[0].calls) == 20
    assert len(stats.accounts) == 1_000
    assert stats.latency_bounds[-1] == 64.0
    assert len(stats.version) < 200


def check(stats: Stats) -> None:
    """Look at every number and text."""
    json.dumps(dataclasses.asdict(stats), allow_nan=False)
    todo: list[Any] = [dataclasses.asdict(stats)]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, str):
            assert value.isprintable()
        else:
            assert value is None or 0 <= value <= MOST_NUMBER
