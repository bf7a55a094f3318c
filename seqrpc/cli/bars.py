"""A histogram in the terminal: a row for each of some durations, evenly spaced on a logarithmic scale."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from seqrpc.cli.histogram import Histogram

MOST_ROWS: Final = 16
"""Of durations up to the one that a thousandth exceeds, which have a row together."""

WIDTH: Final = 40
"""Characters of the longest bar."""

_PER_DECADE: Final = (40, 20, 10, 5, 3, 2, 1)

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"

_UNITS: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1, "ns"))


class Row(NamedTuple):
    """How many durations are at least so long, and shorter than those of the next row."""

    low: float
    """Nanoseconds."""

    number: int


def rows(histogram: Histogram) -> list[Row]:
    """Return the rows of a histogram, the shortest durations first; the last has no end."""
    if not histogram.count:
        return []
    first, last = max(1, histogram.shortest), max(1, histogram.percentile(99.9))
    for per_decade in _PER_DECADE:
        begin, end = _place(first, per_decade), _place(last, per_decade)
        if end - begin < MOST_ROWS:
            break
    counts = [0] * (end - begin + 2)
    for low, high, count in histogram.buckets():
        at = _place(min(max(1, (low + high - 1) // 2, first), histogram.longest), per_decade) - begin
        counts[min(at, len(counts) - 1)] += count
    if not counts[-1]:
        counts.pop()
    return [Row(10 ** ((begin + at) / per_decade), count) for at, count in enumerate(counts)]


def _place(duration: int, per_decade: int) -> int:
    return math.floor(math.log10(max(1, duration)) * per_decade + 1e-9)


def bar(count: int, most: int) -> str:
    """Return a bar, as much of :data:`WIDTH` as a number is of the greatest one; of something it is never nothing."""
    eighths = round(count / most * WIDTH * 8) if most else 0
    if count and not eighths:
        eighths = 1
    whole, part = divmod(eighths, 8)
    return _EIGHTHS[8] * whole + (_EIGHTHS[part] if part else "")


def spelled_duration(nanoseconds: float) -> str:
    """Return a duration as people read it, with three digits that count: ``25.1 µs``."""
    rounded = float(f"{nanoseconds:.3g}")
    for size, unit in _UNITS:
        if rounded >= size:
            value = rounded / size
            digits = 0 if value >= 100 or size == 1 else 1 if value >= 10 else 2
            return f"{value:,.{digits}f} {unit}"
    return "0 ns"
