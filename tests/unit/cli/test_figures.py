"""Numbers as people read them."""

from __future__ import annotations

import math
import os
import pwd

import pytest

from seqrpc.cli import figures


@pytest.mark.parametrize(
    "number, text",
    [
        (0, "0"),
        (-7, "-7"),
        (99_999, "99999"),
        (100_000, "100k"),
        (999_499, "999k"),
        (999_999, "1.00M"),
        (1_234_567, "1.23M"),
        (2**63 - 1, "9.22E"),
        (10**22, "1e+04E"),
    ],
)
def test_counts(number: int, text: str) -> None:
    assert figures.count(number) == text


@pytest.mark.parametrize(
    "number, text",
    [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.00 KiB"),
        (1_536, "1.50 KiB"),
        (1_023 * 1_024, "1023 KiB"),
        (5 << 20, "5.00 MiB"),
        (2**63, "8.00 EiB"),
    ],
)
def test_sizes(number: int, text: str) -> None:
    assert figures.size(number) == text


@pytest.mark.parametrize(
    "number, text",
    [
        (0.0, "0"),
        (-1.0, "0"),
        (0.001, "<0.01"),
        (0.5, "0.50"),
        (9.999, "10.0"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1_234.0, "1.23k"),
        (1e15, "1.00P"),
        (math.inf, "?"),
        (math.nan, "?"),
    ],
)
def test_rates(number: float, text: str) -> None:
    assert figures.rate(number) == text


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.0, "0 s"),
        (-1.0, "0 s"),
        (math.nan, "-"),
        (math.inf, "-"),
        (1.024e-6, "1.02 µs"),
        (5e-9, "5.00 ns"),
        (0.000_999_9, "1.00 ms"),
        (0.000_999, "999 µs"),
        (0.0123, "12.3 ms"),
        (1.5, "1.50 s"),
        (59.99, "1.00 min"),
        (90.0, "1.50 min"),
        (5_400.0, "1.50 h"),
        (172_800.0, "2.00 d"),
        (86_400.0 * 1_000, "1000 d"),
        (1e18, "ages"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


def test_nothing_is_long() -> None:
    for power in range(-330, 309):
        assert len(figures.duration(10.0**power)) < 10
        assert len(figures.rate(10.0**power)) < 10
    for power in range(63):
        assert len(figures.count(2**power)) < 9
        assert len(figures.size(2**power)) < 9


def test_users_have_names() -> None:
    assert figures.user(os.getuid()) == pwd.getpwuid(os.getuid()).pw_name
    assert figures.user(4_000_000_000) == "4000000000"
    assert figures.user(2**63 - 1) == str(2**63 - 1)
