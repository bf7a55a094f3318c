"""Durations in buckets, and percentiles of them."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrpc.cli.histogram import LONGEST, PRECISION, Bucket, Histogram

DURATIONS = st.lists(
    st.one_of(st.integers(0, 300), st.integers(0, 10**10), st.integers(0, LONGEST)), min_size=1, max_size=200
)

PERCENTS = st.one_of(st.sampled_from([0, 50, 90, 99, 99.9, 100]), st.floats(0, 100))


def counted(durations: list[int]) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


@given(DURATIONS, PERCENTS)
def test_a_percentile_is_as_near_as_is_said_to_the_exact_one(durations: list[int], percent: float) -> None:
    rank = max(1, math.ceil(len(durations) * percent / 100))
    exact = sorted(durations)[rank - 1]
    found = counted(durations).percentile(percent)
    assert abs(found - exact) <= exact * PRECISION
    if exact < 128:
        assert found == exact


@given(DURATIONS)
def test_what_is_no_percentile_is_exact(durations: list[int]) -> None:
    histogram = counted(durations)
    assert (histogram.count, histogram.shortest, histogram.longest) == (len(durations), min(durations), max(durations))
    assert histogram.mean == pytest.approx(sum(durations) / len(durations))


@given(DURATIONS)
def test_each_duration_lies_in_one_bucket(durations: list[int]) -> None:
    buckets = [*counted(durations).buckets()]
    assert buckets == sorted(buckets)
    assert all(low < high <= following.low for (low, high, _), following in pairwise(buckets))
    for low, high, count in buckets:
        assert count == sum(low <= duration < high for duration in durations)
    assert sum(bucket.number for bucket in buckets) == len(durations)


@given(st.integers(0, LONGEST), st.integers(1, 1_000_000))
def test_many_at_once_are_as_many_one_by_one(duration: int, count: int) -> None:
    histogram = Histogram()
    histogram.add(duration, count)
    assert histogram.count == count
    assert histogram.mean == pytest.approx(duration)
    assert [bucket.number for bucket in histogram.buckets()] == [count]


def test_what_has_no_place_has_the_nearest() -> None:
    histogram = counted([-5, 1 << 100])
    assert (histogram.shortest, histogram.longest) == (0, LONGEST)
    assert histogram.percentile(100) == pytest.approx(LONGEST, rel=PRECISION)


def test_of_nothing_all_is_nothing() -> None:
    histogram = Histogram()
    assert (histogram.count, histogram.shortest, histogram.longest, histogram.mean) == (0, 0, 0, 0.0)
    assert histogram.percentile(99) == 0
    assert [*histogram.buckets()] == []


def test_its_memory_does_not_grow() -> None:
    histogram = Histogram()
    size = sys.getsizeof(histogram._counts)
    for bits in range(64):
        histogram.add(1 << bits, 10**15)
    assert sys.getsizeof(histogram._counts) == size < 40_000


def test_the_bounds_meet() -> None:
    histogram = counted([127, 128, 255, 256])
    bounds = [(127, 128), (128, 130), (254, 256), (256, 260)]
    assert [*histogram.buckets()] == [Bucket(low, high, 1) for low, high in bounds]
