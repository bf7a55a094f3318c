"""What happened between two looks at a server: calls a second, and how long they took."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from seqrpc.interface.stats import MethodStats, Stats

_NOTHING: Final = MethodStats(calls=0, refused=0, errors={}, seconds=0.0, latency=[])

_FASTEST: Final = 1e15
"""Calls a second that are told at most, whatever was counted in no time at all."""


class MethodRates(NamedTuple):
    """What happened to one method."""

    method: str | None
    """Its name on the wire; None is all those that do not exist."""

    calls_per_second: float
    errors_per_second: float

    calls: int
    """Since the server began, as are ``refused`` and ``errors``."""

    refused: int
    errors: int

    p50: float | None
    """Seconds that half of the handlers took at most; None if none ran. It is the end of a bucket, so at most twice as
    long as it was; infinity behind the last one."""

    p99: float | None
    """Seconds that 99 of 100 took at most."""


class Rates(NamedTuple):
    """What happened in an interval."""

    seconds: float
    """How long it was, by the server's clock."""

    is_first: bool
    """Whether it is all the time since the server began."""

    calls_per_second: float
    errors_per_second: float
    methods: list[MethodRates]
    """Those that were ever called."""


def is_same(before: Stats, now: Stats) -> bool:
    """Return whether two looks were at the same server, and it did not begin anew in between."""
    return before.pid == now.pid and before.uptime < now.uptime


def rates_of(before: Stats | None, now: Stats) -> Rates:
    """Return what happened between two looks; None before is the time at which the server began.

    What was counted backwards, as by a server that began anew, is nothing.
    """
    if before is not None and not is_same(before, now):
        before = None
    seconds = now.uptime - (0.0 if before is None else before.uptime)
    earlier = {} if before is None else before.methods
    rows = [
        _rates(name, earlier.get(name, _NOTHING), method, now.latency_bounds, seconds)
        for name, method in now.methods.items()
        if method.calls
    ]
    if now.others.calls:
        others = _NOTHING if before is None else before.others
        rows.append(_rates(None, others, now.others, now.latency_bounds, seconds))
    return Rates(
        seconds=seconds,
        is_first=before is None,
        calls_per_second=_bounded(sum(row.calls_per_second for row in rows)),
        errors_per_second=_bounded(sum(row.errors_per_second for row in rows)),
        methods=rows,
    )


def _rates(name: str | None, before: MethodStats, now: MethodStats, bounds: list[float], seconds: float) -> MethodRates:
    errors = sum(now.errors.values())
    latency = _differences(before.latency, now.latency)
    return MethodRates(
        method=name,
        calls_per_second=_per_second(now.calls - before.calls, seconds),
        errors_per_second=_per_second(errors - sum(before.errors.values()), seconds),
        calls=now.calls,
        refused=now.refused,
        errors=errors,
        p50=percentile(50, latency, bounds),
        p99=percentile(99, latency, bounds),
    )


def _differences(before: Sequence[int], now: Sequence[int]) -> list[int]:
    earlier = before if len(before) == len(now) else [0] * len(now)
    return [max(0, after - count) for count, after in zip(earlier, now, strict=True)]


def _per_second(count: int, seconds: float) -> float:
    return _bounded(count / seconds) if count > 0 and seconds > 0 else 0.0


def _bounded(rate: float) -> float:
    return min(rate, _FASTEST)


def percentile(percent: int, counts: Sequence[int], bounds: Sequence[float]) -> float | None:
    """Return what so many of a hundred took at most: the end of a bucket.

    Args:
        percent: 1 to 100.
        counts: of each bucket.
        bounds: the ends of the buckets but for the last, which has none.

    Returns:
        The bound; infinity, if it is the last bucket; None, if nothing was counted or the two do not fit.
    """
    total = sum(counts)
    if not total or len(counts) != len(bounds) + 1:
        return None
    wanted = -(-total * percent // 100)
    for count, bound in zip(counts, bounds, strict=False):
        wanted -= count
        if wanted <= 0:
            return bound
    return math.inf


# What stands first

_Key = Callable[[MethodRates], Any]

SORTS: Final[dict[str, _Key]] = {
    "calls": lambda row: (row.calls_per_second, row.calls),
    "errors": lambda row: (row.errors_per_second, row.errors),
    "total": lambda row: row.calls,
    "refused": lambda row: row.refused,
    "latency": lambda row: (row.p99 or 0.0, row.p50 or 0.0),
}
"""What methods can be sorted by, besides ``name``: the most of it is first."""

NAME: Final = "name"


def in_order(rows: Iterable[MethodRates], sort: str) -> list[MethodRates]:
    """Return rows by ``sort``; those that are alike by name."""
    by_name = sorted(rows, key=_by_name)
    return by_name if sort == NAME else sorted(by_name, key=SORTS[sort], reverse=True)


def _by_name(row: MethodRates) -> tuple[bool, str]:
    return row.method is None, row.method or ""
