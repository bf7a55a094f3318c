"""The time of day of what a server tells, whichever its clock."""

from __future__ import annotations

import time

import pytest

from seqrpc.cli.clock import now, time_of


def test_it_is_the_time_of_day() -> None:
    assert time.time() - 60 < now() < time.time() + 60


@pytest.mark.parametrize("ago, duration", [(0.0, 0.0), (5.0, 1.0), (4_000.0, 3_990.0)])
def test_what_has_just_ended_began_when_it_says(ago: float, duration: float) -> None:
    assert now() - time_of(time.monotonic() - ago, duration) == pytest.approx(ago, abs=5)


@pytest.mark.parametrize("ago", [-1e6, -61.0, 81.0, 1e6, -(2.0**80), 2.0**80])
def test_of_another_machine_s_clock_only_the_duration_tells(ago: float) -> None:
    assert now() - time_of(time.monotonic() - ago, 20.0) == pytest.approx(20, abs=5)
