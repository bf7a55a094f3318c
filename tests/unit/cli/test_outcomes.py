"""What is counted of the calls that are measured."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from seqrpc.cli.outcomes import Outcomes
from seqrpc.errors import ConnectionLost, DeadlineExceeded, MethodNotFound, Overloaded, PermissionDenied, RpcError


def test_calls_are_counted_and_those_that_succeed_have_latencies() -> None:
    outcomes = Outcomes(1_000)
    outcomes.succeed(2_001_000_000, 7)
    outcomes.succeed(3_001_000_000, 9)
    outcomes.fail(4_000_001_000, 1, RpcError("no", code="x.Y"))
    assert (outcomes.calls, outcomes.succeeded, outcomes.failed, outcomes.errors) == (3, 2, 1, {"x.Y": 1})
    assert (outcomes.seconds, outcomes.rate) == (4.0, 0.75)
    assert [bucket.low for bucket in outcomes.latencies.buckets()] == [7, 9]
    assert outcomes.verdict == (0, "")


def test_of_none_there_is_nothing_to_tell() -> None:
    outcomes = Outcomes(5)
    assert (outcomes.calls, outcomes.seconds, outcomes.rate, outcomes.verdict) == (0, 0.0, 0.0, (0, ""))


def test_who_waited_in_vain_waited_at_least_so_long() -> None:
    outcomes = Outcomes(0)
    outcomes.fail(10, 50, DeadlineExceeded("late"))
    outcomes.give_up(20, 60)
    outcomes.leave_out(100, range(3, 6), lambda number: number)
    assert [bucket.low for bucket in outcomes.latencies.buckets()] == [50, 60, 95, 96, 97]
    assert (outcomes.calls, outcomes.unanswered, outcomes.unsent, outcomes.latencies.count) == (1, 1, 3, 5)


def test_millions_that_were_never_sent_are_counted_in_groups() -> None:
    outcomes = Outcomes(0)
    asked: list[int] = []

    def due(number: int) -> int:
        asked.append(number)
        return number

    outcomes.leave_out(10**7, range(10**7), due)
    assert (outcomes.unsent, outcomes.latencies.count) == (10**7, 10**7)
    assert len(asked) <= 1_001
    assert outcomes.latencies.percentile(50) == pytest.approx(5 * 10**6, rel=0.02)


@pytest.mark.parametrize(
    "error, status, told",
    [
        (PermissionDenied("no"), 4, "rpc.PermissionDenied: no"),
        (MethodNotFound("no"), 3, "rpc.MethodNotFound: no"),
        (DeadlineExceeded("no"), 5, "rpc.DeadlineExceeded: no"),
        (Overloaded("no"), 1, "rpc.Overloaded: no"),
        (ConnectionLost("no"), 1, "ConnectionLost: no"),
        (RpcError.from_wire("evil\x1b[2J", "no\x1b[2J", None), 1, r"evil\x1b[2J: no\x1b[2J"),
    ],
)
def test_if_all_fail_the_status_is_of_the_most_frequent_error(error: Exception, status: int, told: str) -> None:
    outcomes = Outcomes(0)
    outcomes.fail(1, 1, RpcError("seldom", code="x.Y"))
    for _ in range(2):
        outcomes.fail(1, 1, error)
    assert outcomes.verdict == (status, f"no call succeeded: {told}")
    outcomes.succeed(1, 1)
    assert outcomes.verdict == (0, "")


@pytest.mark.parametrize("count", [lambda one: one.give_up(1, 1), lambda one: one.leave_out(1, [0], lambda _n: 0)])
def test_if_nothing_was_answered_it_is_late(count: Callable[[Outcomes], None]) -> None:
    outcomes = Outcomes(0)
    count(outcomes)
    assert outcomes.verdict == (5, "no call was answered")


def test_codes_that_the_other_side_makes_up_do_not_make_it_grow() -> None:
    outcomes = Outcomes(0)
    sizes = set()
    for number in range(20_000):
        outcomes.fail(1, 1, RpcError.from_wire(f"{number}\x1b" + "x" * 300, "y" * 10_000, None))
        if number >= 100:
            sizes.add((sys.getsizeof(outcomes.errors), sys.getsizeof(outcomes._kinds)))
    assert len(outcomes.errors) == 65
    assert (outcomes.failed, len(sizes)) == (20_000, 1)
    assert all(code.isprintable() and len(code) < 200 for code in outcomes.errors)
    status, text = outcomes.verdict
    assert status == 1
    assert text.isprintable()
    assert len(text) < 1_000
