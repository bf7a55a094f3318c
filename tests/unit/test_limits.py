from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest

from seqrpc.limits import (
    DEFAULT_LIMITS,
    MAX_DESCRIPTORS,
    MAX_PACKET,
    RESERVED_DESCRIPTORS,
    Limits,
    check_limits,
    free_descriptors,
)

NAMES = [field.name for field in dataclasses.fields(Limits)]


def test_the_protocol_s_numbers() -> None:
    assert MAX_PACKET == 65_536
    assert MAX_DESCRIPTORS == 253


def test_some_descriptors_are_left_where_connections_use_up_what_is_usual() -> None:
    assert 0 < RESERVED_DESCRIPTORS < 1024


def test_the_defaults_are_a_limits_without_arguments() -> None:
    assert Limits() == DEFAULT_LIMITS


def test_one_can_be_changed_alone() -> None:
    changed = Limits(max_depth=7)
    assert changed.max_depth == 7
    assert dataclasses.replace(changed, max_depth=DEFAULT_LIMITS.max_depth) == DEFAULT_LIMITS


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_bound_that_would_mean_nothing_is_refused_by_name(value: float) -> None:
    for name in set(NAMES) - {"busy_poll_timeout"}:
        with pytest.raises(ValueError, match=f"limits.{name} must be positive, got {value!r}"):
            Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["5", None, [5]])
def test_a_bound_that_is_no_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"limits.max_depth is a number, got {value!r}")):
        Limits(max_depth=value)


def test_a_bound_that_there_is_not_is_told_with_the_nearest_that_there_is() -> None:
    name: Any = "max_calls_in_fligth"
    with pytest.raises(TypeError, match=rf"^Limits has no bound '{name}'; did you mean 'max_calls_in_flight'\?$"):
        Limits(**{name: 5})
    with pytest.raises(TypeError, match=r"Limits\.__init__\(\) takes 1 positional argument but 2 were given"):
        Limits(5)  # type: ignore[call-arg]
    assert list(inspect.signature(Limits).parameters) == NAMES


@pytest.mark.parametrize("given", [5, None, Limits, {"max_depth": 5}], ids=str)
def test_what_is_given_as_limits_is_some(given: Any) -> None:
    check_limits(Limits())
    with pytest.raises(
        TypeError, match=r"^limits= takes a seqrpc\.Limits, got .*: write seqrpc\.Limits\(max_threads=8\)$"
    ):
        check_limits(given)


@pytest.mark.parametrize("value", [-0.001, 1.001, float("inf"), float("nan")])
def test_a_loop_is_not_kept_awake_for_ever(value: float) -> None:
    with pytest.raises(ValueError, match=f"limits.busy_poll_timeout is 0 to 1 second, got {value!r}"):
        Limits(busy_poll_timeout=value)
    assert Limits(busy_poll_timeout=1).busy_poll_timeout == 1
    assert DEFAULT_LIMITS.busy_poll_timeout == 0


def test_the_low_mark_is_not_above_the_high_one() -> None:
    assert Limits(low_water_bytes=5, high_water_bytes=5).low_water_bytes == 5
    with pytest.raises(ValueError, match=r"low_water_bytes \(6\) is above limits.high_water_bytes \(5\)"):
        Limits(low_water_bytes=6, high_water_bytes=5)


def test_a_message_is_as_long_as_a_packet_may_be() -> None:
    assert Limits(max_message_bytes=MAX_PACKET).max_message_bytes == MAX_PACKET
    with pytest.raises(ValueError, match=r"limits.max_message_bytes is at least 65536, got 65535"):
        Limits(max_message_bytes=MAX_PACKET - 1)


def test_they_do_not_change_and_take_no_positions() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_LIMITS.max_depth = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(64)  # type: ignore[call-arg]


def test_times_may_be_endless() -> None:
    assert Limits(drain_timeout=float("inf")).drain_timeout == float("inf")


@pytest.mark.parametrize("soft, free", [(1, 1), (2, 1), (64, 32), (127, 64), (128, 64), (129, 65), (1024, 960)])
def test_some_descriptors_are_left_free_and_never_more_than_half(soft: int, free: int) -> None:
    assert free_descriptors(soft) == free
