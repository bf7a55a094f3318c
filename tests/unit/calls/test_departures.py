from __future__ import annotations

from typing import Any

import pytest
from support.descriptors import owned

from seqrpc.calls.departures import MovedEnd, Source
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.values import EXT_CHANNEL, EXT_STREAM


def test_a_source_has_descriptors_of_its_own() -> None:
    one, other = Source(iter(()), "one"), Source(iter(()), "other")
    assert one.fds == other.fds == []
    assert one.fds is not other.fds
    with owned(1) as fds:
        assert Source([1], "with", fds).fds is fds


@pytest.mark.parametrize("ext_type", [EXT_STREAM, EXT_CHANNEL])
@pytest.mark.parametrize("end", ["sent", "given_up", "unsent"])
def test_an_end_that_moves_on_is_closed_or_given_back(ext_type: int, end: str) -> None:
    back: list[OwnedFd] = []
    with owned(1) as fds:
        moved = MovedEnd(ext_type, fds[0], back.append)
        assert moved.ext_type == ext_type
        assert moved.fileno() == fds[0].fileno()
        told: Any = getattr(moved, end)
        told()
        assert back == (fds if end == "unsent" else [])
        assert fds[0].closed == (end != "unsent")
