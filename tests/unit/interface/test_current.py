from __future__ import annotations

import gc

import pytest

from seqrpc.interface.current import AnsweredCall, HandledView, answered_call, current_call, view_of
from seqrpc.interface.scope import Scope, metadata, scope
from seqrpc.kernel.credentials import Credentials
from seqrpc.protocol.messages import NO_OPTIONS, Options, Request

CALLER = Credentials(pid=7, uid=1000, gid=1000, groups=())


def new_call(options: Options = NO_OPTIONS) -> AnsweredCall:
    request = Request(1, "S.m", [], options, [])
    return AnsweredCall(request=request, caller=CALLER, connection=None, entry=None)


def test_a_call_is_seen_inside_of_it() -> None:
    call = new_call(Options(deadline=3_000_000_000, meta={"by": "me"}))
    token = scope.set(call)
    try:
        assert answered_call() is call
        with metadata(more="of it"):
            assert answered_call() is call
            view = current_call()
        assert isinstance(view, HandledView)
        assert (view.method, view.caller, dict(view.meta), view.deadline) == ("S.m", CALLER, {"by": "me"}, 3.0)
        assert repr(view) == f"<CurrentCall S.m caller={CALLER}>"
    finally:
        scope.reset(token)


def test_there_is_none_outside() -> None:
    assert answered_call() is None
    token = scope.set(Scope())
    try:
        with pytest.raises(LookupError, match="works inside a handler only"):
            current_call()
    finally:
        scope.reset(token)


def test_what_was_not_said_is_empty() -> None:
    view = view_of(new_call())
    assert view.deadline is None
    assert dict(view.meta) == {}


def test_the_view_is_made_once_as_long_as_somebody_has_it() -> None:
    call = new_call()
    view = view_of(call)
    assert view_of(call) is view
    del view
    gc.collect()
    assert call.view is not None
    assert call.view() is None
    assert view_of(call).method == "S.m"
