"""What Python expects of something native, and what that has."""

from __future__ import annotations

import inspect

import pytest

import seqrpc
from seqrpc.aio.lane import Lane
from seqrpc.twin import native

NAMES = sorted(name for name, value in vars(Lane).items() if inspect.isfunction(value) and not name.startswith("_"))


def test_a_lane_is_told_little() -> None:
    assert NAMES == ["call", "let_go", "read", "ready"]


@pytest.mark.skipif(seqrpc.__twin__ != "native", reason="nothing is native here")
@pytest.mark.parametrize("name", NAMES)
def test_the_native_lane_has_the_methods_that_are_expected(name: str) -> None:
    assert native is not None
    expected = [parameter.name for parameter in inspect.signature(getattr(Lane, name)).parameters.values()]
    found = [parameter.name for parameter in inspect.signature(getattr(native.Lane, name)).parameters.values()]
    assert found == expected[1:]  # without self
