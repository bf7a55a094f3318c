"""Numbers as people read them: three digits and a unit. A number of any size has few characters."""

from __future__ import annotations

import functools
import math
import pwd
from typing import Final

_PREFIXES: Final = ("", "k", "M", "G", "T", "P", "E")
_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_WHOLE: Final = 100_000
"""Counts below that are written as they are."""

_UNITS: Final = ((1e-6, "ns", 1e9), (1e-3, "µs", 1e6), (1.0, "ms", 1e3), (60.0, "s", 1.0))
"""Durations below the first have the unit, of which a second has so many."""

_LONG_UNITS: Final = ((3_600.0, "min", 60.0), (86_400.0, "h", 3_600.0), (100 * 31_557_600.0, "d", 86_400.0))


def count(number: int) -> str:
    """Return a number of things, as ``1234`` or ``1.23M``."""
    return str(number) if abs(number) < _WHOLE else _scaled(number, 1_000, _PREFIXES)


def size(number: int) -> str:
    """Return a number of bytes, as ``1.5 KiB``."""
    return f"{number} B" if abs(number) < 1_024 else _scaled(number, 1_024, _BINARY, " ")


def rate(number: float) -> str:
    """Return how often something happens in a second, as ``12.5`` or ``1.23k``."""
    if not 0 < number < math.inf:
        return "0" if number <= 0 else "?"
    if number < 0.01:
        return "<0.01"
    return three(number) if number < 1_000 else _scaled(number, 1_000, _PREFIXES)


def duration(seconds: float) -> str:
    """Return a time, as ``12.3 ms`` or ``5 h``; ``-`` for what is no time."""
    if not math.isfinite(seconds):
        return "-"
    if seconds <= 0:
        return "0 s"
    for end, unit, in_second in _UNITS:
        if seconds < end * 0.9995:  # three digits of it are not rounded up to the next unit
            return f"{three(seconds * in_second)} {unit}"
    for end, unit, one in _LONG_UNITS:
        if seconds < end:
            return f"{three(seconds / one)} {unit}"
    return "ages"


@functools.lru_cache(maxsize=4_096)
def user(uid: int) -> str:
    """Return the name of a user of this machine, or the number of one who has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def three(number: float) -> str:
    """Return a number of 0 to 999 with three digits."""
    return f"{number:.2f}" if number < 9.995 else f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


def _scaled(number: float, base: int, units: tuple[str, ...], space: str = "") -> str:
    power = 0
    scaled = float(number)
    while abs(scaled) >= base * 0.9995 and power < len(units) - 1:
        scaled /= base
        power += 1
    return f"{three(scaled) if abs(scaled) < 10_000 else f'{scaled:.3g}'}{space}{units[power]}"
