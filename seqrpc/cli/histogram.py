"""Durations, counted in memory that does not grow with their number, and percentiles of them.

The buckets are those of HdrHistogram: a duration in nanoseconds is put by its highest seven bits, so that buckets are
as wide as a nanosecond below 128 ns, and 1/64 of their lower bound above.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

_SUB_BITS: Final = 6

_EXACT: Final = 2 << _SUB_BITS
"""Nanoseconds below which each has a bucket of its own."""

_MOST_BITS: Final = 63
"""Of a duration: three hundred years."""

LONGEST: Final = (1 << _MOST_BITS) - 1
"""Nanoseconds; what is longer is counted as this long."""

PRECISION: Final = 1 / 128
"""How far, at most, a percentile is from what is true, as a part of it: half a bucket. Below 128 ns it is exact."""


class Bucket(NamedTuple):
    """How many durations lay in ``[low, high)`` nanoseconds."""

    low: int
    high: int
    number: int


class Histogram:
    """Counts durations."""

    __slots__ = ("_counts", "_total", "count", "longest", "shortest")

    def __init__(self) -> None:
        """Begin with none."""
        self._counts = [0] * ((_MOST_BITS - _SUB_BITS + 1) << _SUB_BITS)
        self._total = 0
        self.count = 0
        """How many there are."""
        self.longest = 0
        """Nanoseconds, exactly; 0 if there is none."""
        self.shortest = 0
        """Nanoseconds, exactly; 0 if there is none."""

    def add(self, duration: int, count: int = 1) -> None:
        """Count a duration.

        Args:
            duration: nanoseconds; less than none are none.
            count: how often.
        """
        if not 0 <= duration <= LONGEST:
            duration = 0 if duration < 0 else LONGEST
        shift = duration.bit_length() - _SUB_BITS - 1
        self._counts[duration if shift <= 0 else (shift << _SUB_BITS) + (duration >> shift)] += count
        if duration > self.longest:  # noqa: PLR1730 - a call of max would count in the next duration
            self.longest = duration
        if duration < self.shortest or not self.count:
            self.shortest = duration
        self.count += count
        self._total += duration * count

    @property
    def mean(self) -> float:
        """Nanoseconds, exactly; 0 if there is none."""
        return self._total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """Return the duration, in nanoseconds, that so many percent of all do not exceed; 0 if there is none.

        Of a bucket it is the middle: :data:`PRECISION` says how far that may be off.
        """
        rank = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for low, high, count in self.buckets():
            seen += count
            if seen >= rank:
                return min(max((low + high - 1) // 2, self.shortest), self.longest)
        return self.longest

    def buckets(self) -> Iterator[Bucket]:
        """Yield the buckets that are not empty, the shortest durations first."""
        for index, count in enumerate(self._counts):
            if count:
                low, width = _bounds(index)
                yield Bucket(low, low + width, count)


def _bounds(index: int) -> tuple[int, int]:
    """Return where a bucket begins, and how wide it is."""
    if index < _EXACT:
        return index, 1
    shift = (index >> _SUB_BITS) - 1
    return (index - (shift << _SUB_BITS)) << shift, 1 << shift
