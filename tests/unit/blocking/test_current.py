from __future__ import annotations

from typing import Any

import pytest
from support.sync import Notes, raw_peer

import seqrpc
from seqrpc import blocking
from seqrpc.blocking.current import CurrentCall, current_call


class Looking(seqrpc.Service, name="S"):
    def __init__(self) -> None:
        self.notes = Notes()

    @seqrpc.method
    def look(self) -> None:
        call = current_call()
        assert isinstance(call, CurrentCall)
        assert call is current_call()
        self.notes.note([call.method, call.caller.pid, dict(call.meta), call.deadline, call.connection, repr(call)])


def look(raw: Any, connection: blocking.Connection, *options: Any) -> None:
    raw.send(0, 5, "S.look", [], *options)
    connection.process()
    assert raw.receive() == [1, 5, None, None]


def test_a_handler_sees_its_call() -> None:
    service = Looking()
    with raw_peer(services=service) as (connection, raw):
        look(raw, connection, {"deadline": 2**62, "meta": {"by": "me"}})
        look(raw, connection)
        (method, pid, meta, deadline, seen, shown), plain = service.notes.what
        assert method == "S.look"
        assert pid > 0
        assert meta == {"by": "me"}
        assert deadline == 2**62 / 1e9
        assert seen is connection
        assert shown.startswith("<CurrentCall S.look caller=")
        assert plain[2:4] == [{}, None]


def test_there_is_no_call_outside_of_handlers() -> None:
    with pytest.raises(LookupError, match="inside a handler only"):
        blocking.current_call()
