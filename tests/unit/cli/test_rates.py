"""What happened between two looks at a server."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from seqrpc import blocking
from seqrpc.cli.rates import NAME, SORTS, MethodRates, in_order, is_same, percentile, rates_of
from seqrpc.cli.readings import stats_in
from seqrpc.interface.stats import BOUNDS, MethodStats, Stats


def method(calls: int = 0, latency: list[int] | None = None, **more: object) -> MethodStats:
    told = {"calls": calls, "refused": 0, "errors": {}, "seconds": 0.0, "latency": latency or [], **more}
    return MethodStats(**told)  # type: ignore[arg-type]  # the tests' own


def stats(uptime: float, *, pid: int = 1, bounds: tuple[float, ...] = (1.0, 2.0), **methods: MethodStats) -> Stats:
    others = methods.pop("others", method())
    base = stats_in({"methods": {}, "uptime": uptime, "pid": pid, "latency_bounds": list(bounds)})
    return dataclasses.replace(base, methods=methods, others=others)


def test_without_a_look_before_it_is_all_the_time_since_the_start() -> None:
    rates = rates_of(None, stats(4.0, a=method(8, [6, 2, 0], errors={"x": 1, "y": 1}), never=method()))
    assert rates == (
        4.0,
        True,
        2.0,
        0.5,
        [MethodRates("a", 2.0, 0.5, 8, 0, 2, 1.0, 2.0)],
    )


def test_between_two_looks_it_is_what_was_added() -> None:
    before = stats(4.0, a=method(8, [6, 2, 0], errors={"x": 1}), others=method(1))
    now = stats(6.0, a=method(12, [6, 2, 4], errors={"x": 2}), b=method(1, [1, 0, 0], refused=1), others=method(3))
    rates = rates_of(before, now)
    assert (rates.seconds, rates.is_first) == (2.0, False)
    assert rates.methods == [
        MethodRates("a", 2.0, 0.5, 12, 0, 2, math.inf, math.inf),
        MethodRates("b", 0.5, 0.0, 1, 1, 0, 1.0, 1.0),
        MethodRates(None, 1.0, 0.0, 3, 0, 0, None, None),
    ]
    assert (rates.calls_per_second, rates.errors_per_second) == (3.5, 0.5)


@pytest.mark.parametrize("before", [stats(9.0), stats(1.0, pid=2), stats(3.0)])
def test_a_server_that_began_anew_is_looked_at_for_the_first_time(before: Stats) -> None:
    now = stats(3.0, a=method(3))
    assert not is_same(before, now)
    assert rates_of(before, now) == rates_of(None, now)


def test_what_is_counted_backwards_did_not_happen() -> None:
    before = stats(1.0, a=method(8, [6, 2, 0], errors={"x": 9}), others=method(9))
    now = stats(2.0, a=method(3, [3, 0, 0], errors={"x": 1}), others=method(1))
    rates = rates_of(before, now)
    assert [(row.calls_per_second, row.errors_per_second, row.p50) for row in rates.methods] == [(0, 0, None)] * 2


def test_what_happened_in_no_time_is_no_rate() -> None:
    assert rates_of(None, stats(0.0, a=method(5))).calls_per_second == 0.0
    rates = rates_of(None, stats(5e-324, a=method(2**63 - 1), b=method(2**63 - 1)))
    assert rates.calls_per_second == rates.methods[0].calls_per_second == 1e15


def test_a_histogram_that_changes_its_shape_begins_anew() -> None:
    rates = rates_of(stats(1.0, a=method(8, [6, 2])), stats(2.0, a=method(9, [6, 3, 0])))
    assert rates.methods[0].p99 == 2.0


@pytest.mark.parametrize(
    "percent, counts, found",
    [
        (50, [1, 0, 0], 1.0),
        (50, [1, 1, 0], 1.0),
        (50, [1, 2, 0], 2.0),
        (99, [99, 1, 0], 1.0),
        (99, [98, 2, 0], 2.0),
        (100, [99, 1, 0], 2.0),
        (99, [0, 0, 1], math.inf),
        (99, [0, 0, 0], None),
        (99, [1, 0], None),
        (99, [], None),
    ],
)
def test_a_percentile_is_the_end_of_a_bucket(percent: int, counts: list[int], found: float | None) -> None:
    assert percentile(percent, counts, [1.0, 2.0]) == found


def test_the_percentiles_of_a_server_are_at_most_twice_as_long_as_it_took(desk: Path) -> None:
    with blocking.connect(desk) as connection:
        before = stats_in(connection.call("rpc.stats"))
        for _ in range(3):
            connection.call("Desk.sleep", 0.01)
        connection.call("Desk.sleep", 0.1)
        now = stats_in(connection.call("rpc.stats"))
    (row,) = [row for row in rates_of(before, now).methods if row.method == "Desk.sleep"]
    assert row.p50 in BOUNDS
    assert row.p50 is not None
    assert row.p99 is not None
    assert row.p50 >= 0.01
    assert row.p99 >= 0.1
    assert row.calls_per_second == pytest.approx(4 / (now.uptime - before.uptime))


def test_rows_are_in_order() -> None:
    rows = [
        MethodRates(None, 9.0, 0.0, 1, 3, 1, None, None),
        MethodRates("b", 1.0, 0.5, 1, 0, 1, 1.0, math.inf),
        MethodRates("a", 1.0, 0.0, 7, 0, 0, 1.0, 2.0),
        MethodRates("c", 1.0, 0.0, 1, 0, 5, None, None),
    ]

    def names(sort: str) -> str:
        return "".join(row.method or "-" for row in in_order(rows, sort))

    assert {sort: names(sort) for sort in (*SORTS, NAME)} == {
        "calls": "-abc",
        "errors": "bc-a",
        "total": "abc-",
        "refused": "-abc",
        "latency": "bac-",
        "name": "abc-",
    }
