"""What is counted where time would tell little: bytes, and steps of Python."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def peak_bytes(function: Callable[[], object]) -> int:
    """Return how many bytes a call had allocated when it had allocated most."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def steps_of_python() -> Iterator[list[int]]:
    """Count calls, of functions of either kind, and resumptions: what looks at values one by one makes one for each."""
    count = [0]

    def step(_frame: Any, _event: str, _argument: Any) -> None:
        count[0] += 1

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        yield count
    finally:
        sys.setprofile(before)
