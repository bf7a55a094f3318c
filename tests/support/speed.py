"""How long something may take at the speed that processors have here and now, tracing for coverage included."""

from __future__ import annotations

import time
import uuid

_NORMAL = 0.009
"""Seconds that the work below takes on the machine for which bounds are said."""

_ONE, _OTHER = uuid.UUID(int=1), uuid.UUID(int=1 + (2**61 - 1))
_LONG = [(*range(800), last) for last in range(2)]


def _work() -> float:
    """Return the seconds of processor time that it takes to compare what has one hash: in Python and in C."""
    began = time.process_time()
    for _ in range(40):
        for _ in range(1_000):
            _ = _ONE == _OTHER
        for _ in range(20):
            _ = _LONG[0] == _LONG[1]
    return time.process_time() - began


def is_within(seconds: float, bound: float) -> bool:
    """Return whether some processor time is below a bound, which grows with what known work takes at this moment."""
    return seconds < bound or seconds < bound * min(_work() for _ in range(3)) / _NORMAL
