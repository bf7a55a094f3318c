"""The shape of what a server tells of itself."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

import seqrpc
from seqrpc.interface.signature import spec_of
from seqrpc.interface.stats import BOUNDS, MethodStats, Statistics


def test_the_bounds_are_from_a_microsecond_to_a_minute() -> None:
    assert BOUNDS[0] == 1.024e-6
    assert 60 < BOUNDS[-1] < 70
    assert all(after == 2 * before for before, after in itertools.pairwise(BOUNDS))


def test_it_is_a_method_under_the_reserved_name() -> None:
    method = spec_of(Statistics).methods["stats"]
    assert method.wire_name == "rpc.stats"
    assert method.counts == range(1)


async def test_it_tells_what_it_is_given() -> None:
    def look() -> None:
        raise LookupError("looked")

    with pytest.raises(LookupError, match="looked"):
        await Statistics(look).stats()  # type: ignore[arg-type] # it gives nothing


def test_what_is_told_does_not_change() -> None:
    told = MethodStats(calls=1, refused=0, errors={}, seconds=0.5, latency=[1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        told.calls = 2  # type: ignore[misc] # it is frozen


def test_no_other_service_can_have_the_name() -> None:
    with pytest.raises(ValueError, match="reserved"):
        type("Mine", (seqrpc.Service,), {}, name="rpc")
