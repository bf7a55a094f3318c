from __future__ import annotations

import dataclasses

import pytest

from seqrpc.calls.records import CallRecord, OutgoingCall


def test_records_are_made_by_name_and_nobody_changes_them() -> None:
    record = CallRecord(method="A.b", caller=None, code=None, duration=0.5, oneway=False, meta={"k": "v"})
    call = OutgoingCall(method="A.b", oneway=True, deadline=None, meta={})
    assert repr(call) == "OutgoingCall(method='A.b', oneway=True, deadline=None, meta={})"
    assert record.meta == {"k": "v"}
    for made in (record, call):
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.method = "other"  # type: ignore[misc]
        assert not hasattr(made, "__dict__")
