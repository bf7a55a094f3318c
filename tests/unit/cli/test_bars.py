"""A histogram in the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrpc.cli.bars import MOST_ROWS, WIDTH, Row, bar, rows, spelled_duration
from seqrpc.cli.histogram import LONGEST, Histogram


def counted(durations: list[int]) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


@given(st.lists(st.one_of(st.integers(0, 10**6), st.integers(0, LONGEST)), min_size=1))
def test_all_are_in_the_rows_and_these_are_few(durations: list[int]) -> None:
    found = rows(counted(durations))
    assert sum(row.number for row in found) == len(durations)
    assert len(found) <= MOST_ROWS + 1 or max(durations) > 10**MOST_ROWS
    assert len(found) <= 20
    assert found == sorted(found)
    assert found[0].low <= max(1, min(durations)) * 1.000001


@given(st.lists(st.integers(1_000, 10**9), min_size=1))
def test_a_row_has_what_lies_in_it(durations: list[int]) -> None:
    found = rows(counted(durations))
    for row, following in zip(found, [*found[1:], Row(float("inf"), 0)], strict=True):
        inside = [each for each in durations if row.low * 1.02 <= each < following.low / 1.02]
        around = [each for each in durations if row.low / 1.02 <= each < following.low * 1.02]
        assert len(inside) <= row.number <= len(around)


def test_few_that_took_long_do_not_squeeze_the_others() -> None:
    histogram = counted([20_000, 22_000, 25_000, 30_000, 35_000])
    for duration in (20_000, 22_000, 25_000, 30_000, 35_000):
        histogram.add(duration, 1_000)
    histogram.add(10**10)
    found = rows(histogram)
    assert sum(row.number > 0 for row in found) == 6
    assert found[-1].number == 1


def test_of_nothing_there_are_no_rows() -> None:
    assert rows(Histogram()) == []


def test_a_bar_is_as_long_as_its_part() -> None:
    assert bar(10, 10) == "█" * WIDTH
    assert bar(5, 10) == "█" * (WIDTH // 2)
    assert bar(1, WIDTH * 8) == "▏"
    assert bar(1, 10**9) == "▏"
    assert bar(11, WIDTH * 8) == "█▍"
    assert bar(0, 10) == bar(0, 0) == ""


@pytest.mark.parametrize(
    "nanoseconds, told",
    [
        (0, "0 ns"),
        (1, "1 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (25_149, "25.1 µs"),
        (251_490, "251 µs"),
        (999_600, "1.00 ms"),
        (12_345_678, "12.3 ms"),
        (1.5e9, "1.50 s"),
        (4e12, "4,000 s"),
    ],
)
def test_durations_are_told_with_three_digits(nanoseconds: float, told: str) -> None:
    assert spelled_duration(nanoseconds) == told
