"""The time of day, for people and for logs: nothing waits by it, or is measured by it."""

from __future__ import annotations

import time
from typing import Final

_LATEST: Final = 60.0
"""Seconds in which what a server tells as it happens is here; what seems older, or to come, is of another clock."""


def now() -> float:
    """Return Unix time, in seconds."""
    return time.time()


def time_of(began: float, duration: float) -> float:
    """Return the Unix time at which something began that has just ended.

    Args:
        began: seconds of ``CLOCK_MONOTONIC``; that of another machine, as behind ``ssh://``, tells nothing here.
        duration: seconds that it took.
    """
    ago = time.monotonic() - began
    return now() - (ago if 0.0 <= ago - duration < _LATEST else duration)
