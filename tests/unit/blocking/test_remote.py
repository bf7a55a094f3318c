from __future__ import annotations

import time

import pytest
from support.sync import raw_peer

import seqrpc


def test_calls_take_what_surrounds_them() -> None:
    with raw_peer() as (connection, raw):
        raw.send(1, 0, None, {"a": [1, None]})
        with seqrpc.timeout(100), seqrpc.metadata(by="me"):
            assert connection.call("S.m", 1, "two") == {"a": [1, None]}
        kind, call_id, method, params, options = raw.receive()
        assert (kind, call_id, method, params) == (0, 0, "S.m", [1, "two"])
        assert options["meta"] == {"by": "me"}
        assert 0 < options["deadline"] - time.monotonic_ns() < 100e9


def test_arguments_go_by_position_or_by_name() -> None:
    with raw_peer() as (connection, raw):
        raw.send(1, 0, None, None)
        connection.call("S.m", a=1)
        assert raw.receive() == [0, 0, "S.m", {"a": 1}]
        with pytest.raises(TypeError):
            connection.call("S.m", 1, a=1)
        with pytest.raises(TypeError):
            connection.call(3)  # type: ignore[arg-type]


def test_one_way_calls_take_what_surrounds_them() -> None:
    with raw_peer() as (connection, raw):
        with seqrpc.metadata(by="me"):
            connection.notify("S.m", a=1)
        assert raw.receive() == [2, "S.m", {"a": 1}, {"meta": {"by": "me"}}]


def test_a_proxy_has_the_methods_of_a_class_and_calls_them_over_the_connection() -> None:
    class S:
        def m(self, a: int) -> list[int]:
            raise NotImplementedError

    with raw_peer() as (connection, raw):
        raw.send(1, 0, None, [1, 2])
        assert connection.proxy(S).m(1) == [1, 2]
        assert raw.receive() == [0, 0, "S.m", [1]]
