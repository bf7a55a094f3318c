from __future__ import annotations

import dataclasses

import pytest

from seqrpc.calls.records import CallRecord, OutgoingCall, outgoing_call, tell_ended
from seqrpc.interface.scope import within
from seqrpc.kernel.credentials import Credentials
from seqrpc.protocol.messages import Options


def test_records_are_made_by_name_and_nobody_changes_them() -> None:
    record = CallRecord(method="A.b", caller=None, code=None, duration=0.5, oneway=False, meta={"k": "v"})
    call = OutgoingCall(method="A.b", oneway=True, deadline=None, meta={})
    assert repr(call) == "OutgoingCall(method='A.b', oneway=True, deadline=None, meta={})"
    assert record.meta == {"k": "v"}
    for made in (record, call):
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.method = "other"  # type: ignore[misc]
        assert not hasattr(made, "__dict__")


def test_an_outgoing_call_says_what_is_said_around_it() -> None:
    assert outgoing_call("A.b", oneway=True) == OutgoingCall(method="A.b", oneway=True, deadline=None, meta={})
    with within(1_500_000_000, {"k": "v"}):
        call = outgoing_call("A.b", oneway=False)
    assert call == OutgoingCall(method="A.b", oneway=False, deadline=1.5, meta={"k": "v"})


class Hears:
    def __init__(self, trouble: Exception | None = None) -> None:
        self.heard: list[CallRecord] = []
        self.trouble = trouble

    def ended(self, call: CallRecord) -> None:
        self.heard.append(call)
        if self.trouble is not None:
            raise self.trouble


def test_all_hear_of_what_has_ended_also_after_one_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    first, second = Hears(ValueError("no")), Hears()
    caller = Credentials(pid=1, uid=2, gid=3)
    tell_ended([first, second], "A.b", caller, "app.No", oneway=True, duration=0.5, options=Options(meta={"k": "v"}))
    tell_ended([second], None, None, None, oneway=False)
    record = CallRecord(method="A.b", caller=caller, code="app.No", duration=0.5, oneway=True, meta={"k": "v"})
    assert first.heard == [record]
    assert second.heard == [
        record,
        CallRecord(method=None, caller=None, code=None, duration=0.0, oneway=False, meta={}),
    ]
    assert [line.getMessage() for line in caplog.records] == ["! Hears.ended failed"]


def test_a_name_that_a_caller_made_up_is_told_in_part() -> None:
    hears = Hears()
    tell_ended([hears], "x" * 5000, None, "rpc.MethodNotFound", oneway=False)
    assert len(hears.heard[0].method or "") < 500


def test_what_was_being_answered_is_no_part_of_what_an_interceptor_fails_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing:
        def ended(self, _record: CallRecord) -> None:
            try:
                raise LookupError("of its own")
            except LookupError:
                raise RuntimeError("it fails")  # noqa: B904 - as it often is

    try:
        raise ValueError("hunter2")
    except ValueError:
        tell_ended([Failing()], "S.login", None, "rpc.Internal", oneway=False)
    assert "of its own" in caplog.text
    assert "it fails" in caplog.text
    assert "hunter2" not in caplog.text


def test_what_an_interceptor_fails_with_from_another_time_is_told_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    before = RuntimeError("before")

    class Failing:
        def ended(self, _record: CallRecord) -> None:
            raise before from LookupError("long ago")

    tell_ended([Failing()], "S.login", None, None, oneway=False)
    assert "long ago" in caplog.text
