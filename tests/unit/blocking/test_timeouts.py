from __future__ import annotations

import pytest
from support.sync import raw_peer

import seqrpc
from seqrpc import blocking
from seqrpc.errors import DeadlineExceeded
from seqrpc.interface.scope import scope


async def test_it_is_entered_by_with_also_where_a_loop_runs() -> None:
    with raw_peer() as (connection, _raw):
        with pytest.raises(DeadlineExceeded, match="the time given by"), blocking.timeout(0.01):
            connection.call("S.m")
        with pytest.raises(TypeError, match="is entered by 'async with'"), seqrpc.timeout(0.01):
            pass


def test_none_adds_no_bound() -> None:
    with blocking.timeout(None):
        assert scope.get().deadline_ns is None
    assert repr(blocking.timeout(3)) == "seqrpc.blocking.timeout(3)"
