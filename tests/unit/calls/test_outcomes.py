"""What is raised in calls that are not answered."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from support.descriptors import owned

from seqrpc.calls import outcomes
from seqrpc.errors import (
    ConnectionLost,
    DeadlineExceeded,
    Execution,
    LocalProtocolError,
    Overloaded,
    TooLarge,
    Unavailable,
)


def test_options_are_those_that_are_given() -> None:
    assert outcomes.options_of(None, None) is outcomes.options_of(None, {}) is None
    assert outcomes.options_of(5, {"a": "b"}) == {"deadline": 5, "meta": {"a": "b"}}
    assert outcomes.options_of(None, {"a": "b"}) == {"meta": {"a": "b"}}
    assert outcomes.options_of(5, None) == {"deadline": 5}


@pytest.mark.parametrize(
    "error, kind, text",
    [
        (outcomes.explain_refusal(OSError(errno.EMSGSIZE, "too long")), TooLarge, "takes no message of this size"),
        (outcomes.unavailable("going"), Unavailable, "takes no new requests: going"),
        (outcomes.stalled(3, 0.5), Overloaded, r"3 calls .* no answer came for 0\.5 s"),
        (outcomes.no_connection_in_time(ConnectionLost("it ended")), DeadlineExceeded, "a connection: it ended"),
        (outcomes.too_many_wait(3, 0.5), Overloaded, r"3 calls wait .* for 0\.5 s"),
    ],
)
def test_what_is_raised_for_calls_that_were_not_sent_says_so(error: Any, kind: type[Exception], text: str) -> None:
    assert (type(error), error.remote, error.execution) == (kind, True, Execution.DID_NOT_RUN)
    with pytest.raises(kind, match=text):
        raise error


def test_what_the_kernel_refuses_for_reasons_of_this_process_is_told_as_it_is() -> None:
    exc = OSError(errno.EMFILE, "")
    assert outcomes.explain_refusal(exc) is exc


def test_a_full_backlog_is_told_with_how_long_it_was() -> None:
    waited, at_once = outcomes.server_busy("/x", 0.25), outcomes.server_busy("/x", 0)
    assert waited.errno == at_once.errno == errno.EAGAIN
    assert "cannot connect to /x: its backlog was full for 0.25 s: the daemon is overloaded" in str(waited)
    assert "cannot connect to /x: its backlog is full: the daemon is overloaded" in str(at_once)


def test_a_connection_that_ended_is_told_anew_each_time() -> None:
    first = ConnectionLost("it ended so")
    told = outcomes.lost(first, "going")
    assert told is not first
    assert (told.args, told.reason, told.execution) == (first.args, "going", Execution.MAY_HAVE_RUN)
    cause = OSError(errno.ECONNRESET, "reset")
    told = outcomes.lost(cause, "going")
    assert told.__cause__ is cause
    assert str(told).startswith("the connection ended; the other side had said: going (")
    assert str(outcomes.lost(None, None)) == "the connection ended"
    assert "within its 'with'" in str(outcomes.closed_here("with"))


def test_what_cannot_be_packed_is_told_by_what_is_closed_in_it() -> None:
    large = TooLarge("")
    outcomes.note_unsent(large, "m", ())
    assert (large.remote, large.execution) == (True, Execution.DID_NOT_RUN)
    wrong = LocalProtocolError("")
    outcomes.note_unsent(wrong, "m", ())
    wrong.__cause__ = ValueError()
    with owned(1) as fds:
        outcomes.note_unsent(wrong, "m", fds)
        os.fstat(fds[0].fileno())
        fds[0].close()
        with pytest.raises(ValueError, match=r"m: cannot send .*lend it open, until m returns"):
            outcomes.note_unsent(wrong, "m", fds)
