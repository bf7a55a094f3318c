"""What both kinds of clients share about making connections, and calls, again."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.scarcity import table_full

from seqrpc import errors
from seqrpc.errors import ConnectionLost, Execution, RpcError, Unavailable, not_run
from seqrpc.interface.reconnecting import (
    Attempts,
    Reconnect,
    address_to_reconnect_to,
    as_reconnect,
    may_pass,
    may_send_again,
    random_share,
    told_anew,
)
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import PathAddress
from seqrpc.limits import MAX_VALUES_SEARCHED


class Wrong(RpcError, code="reconnecting.Wrong"):
    """An application's error."""


def test_delays_grow_to_a_bound_and_are_spread() -> None:
    policy = Reconnect(first_delay=0.1, longest_delay=1.0)
    longest = list(itertools.islice(policy.delays(lambda: 1.0), 7))
    assert longest == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])
    shortest = list(itertools.islice(policy.delays(lambda: 0.0), 7))
    assert shortest == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5])
    ours = list(itertools.islice(policy.delays(), 50))
    assert len(set(ours)) == 50
    assert all(low <= delay <= high for low, delay, high in zip(shortest, ours, longest, strict=False))


def test_random_shares_are_of_one() -> None:
    shares = [random_share() for _ in range(1000)]
    assert 0 <= min(shares) < 0.1
    assert 0.9 < max(shares) < 1


@pytest.mark.parametrize(
    "given, kind, text",
    [
        ({"first_delay": 0}, ValueError, "Reconnect.first_delay is more than 0 and at most 2592000.0 seconds, got 0"),
        ({"longest_delay": -1}, ValueError, "Reconnect.longest_delay is more than 0 and at most"),
        ({"longest_delay": float("inf")}, ValueError, "Reconnect.longest_delay is more than 0 and at most"),
        ({"ready_timeout": 0}, ValueError, "got 0: None waits for ever, wait_for_ready=False not at all"),
        ({"ready_timeout": float("nan")}, ValueError, "Reconnect.ready_timeout is more than 0"),
        ({"first_delay": "1"}, TypeError, "Reconnect.first_delay is a number of seconds, got '1'"),
        ({"first_delay": None}, TypeError, "Reconnect.first_delay is a number of seconds, got None"),
        ({"ready_timeout": True}, TypeError, "Reconnect.ready_timeout is a number of seconds, got True"),
        ({"first_delay": 3}, ValueError, "Reconnect.longest_delay (2.0) is below Reconnect.first_delay (3)"),
        ({"wait_for_ready": 1}, TypeError, "Reconnect.wait_for_ready is True or False, got 1"),
        ({"on_reconnect": 1}, TypeError, "Reconnect.on_reconnect is a function, got 1"),
    ],
)
def test_a_policy_that_would_mean_nothing_is_refused_by_name(given: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        Reconnect(**given)


def test_a_hook_that_would_have_to_be_awaited_is_refused() -> None:
    async def hook(connection: object) -> None: ...

    with pytest.raises(TypeError, match="on_reconnect is a plain function: nobody awaits it"):
        Reconnect(on_reconnect=hook)


def test_a_policy_is_given_by_name_and_does_not_change() -> None:
    assert all(
        parameter.kind is parameter.KEYWORD_ONLY for parameter in inspect.signature(Reconnect).parameters.values()
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        Reconnect().first_delay = 1  # type: ignore[misc]


def test_patience() -> None:
    assert Reconnect(ready_timeout=3).patience == 3
    assert Reconnect(ready_timeout=None).patience == float("inf")
    assert Reconnect(wait_for_ready=False).patience == 0


def test_what_reconnect_takes() -> None:
    policy = Reconnect(first_delay=1)
    assert as_reconnect(policy) is policy
    assert as_reconnect(True) == Reconnect()
    assert as_reconnect(False) is None
    with pytest.raises(TypeError, match=r"got the class: write seqrpc\.Reconnect\(\)"):
        as_reconnect(Reconnect)
    for odd in (None, 1, "yes"):
        with pytest.raises(TypeError, match=r"^reconnect= takes True, False or a seqrpc\.Reconnect, got "):
            as_reconnect(odd)


def test_only_what_can_be_connected_to_again_is_reconnected_to() -> None:
    assert address_to_reconnect_to("/run/x.sock", None) == PathAddress("/run/x.sock")
    with pytest.raises(ValueError, match="reconnect= takes an address; what sock="):
        address_to_reconnect_to(None, object())
    for one in ("fd:3", "systemd:name"):
        with pytest.raises(ValueError, match=f"that can be connected to again, and {one} is one socket"):
            address_to_reconnect_to(one, None)
    with pytest.raises(errors.AddressError):
        address_to_reconnect_to("", None)


@pytest.mark.parametrize(
    "exc, passes",
    [
        (errors.NobodyListens(errno.ENOENT, ""), True),
        (errors.ServerBusy(errno.EAGAIN, ""), True),
        (errors.ConnectError(errno.EMFILE, ""), True),
        (errors.ConnectError(errno.ENOTDIR, ""), False),
        (errors.ConnectDenied(errno.EACCES, ""), False),
        (errors.WrongSocketType(errno.EPROTOTYPE, ""), False),
        (errors.UntrustedServer(errno.EACCES, ""), False),
        (errors.AddressError(""), False),
        (OSError(errno.EMFILE, ""), False),
    ],
)
def test_what_may_pass(exc: Exception, passes: bool) -> None:
    assert may_pass(exc) is passes


def test_a_full_table_of_descriptors_may_pass(tmp_path: Path) -> None:
    with table_full(), pytest.raises(errors.ConnectError) as caught:
        sockets.connect(PathAddress(str(tmp_path / "x.sock")))
    assert may_pass(caught.value)


def with_reason(error: Unavailable) -> Unavailable:
    error.reason = "going"
    return error


def is_travelling(value: object) -> bool:
    return hasattr(type(value), "__aiter__")


async def stream() -> AsyncIterator[int]:
    yield 1


def again(
    exc: BaseException, *, idempotent: bool = False, is_over: bool = True, drains: bool = True, params: Any = ()
) -> bool:
    return may_send_again(
        exc, idempotent=idempotent, is_over=is_over, drains=drains and is_over, params=params, travels=is_travelling
    )


def test_what_did_not_run_because_its_connection_ended_is_sent_again() -> None:
    assert again(not_run(ConnectionLost("")))
    assert again(with_reason(Unavailable("")))
    assert again(Unavailable("")), "the other side's session refused it"
    assert not again(Unavailable(""), is_over=False), "a handler refused it"
    assert not again(Unavailable(""), drains=False), "a handler refused it, and its daemon died then"
    assert not again(not_run(ConnectionLost("")), is_over=False), "a channel of the application's was closed"


def test_what_may_have_run_is_sent_again_only_if_it_may_run_twice() -> None:
    assert not again(ConnectionLost(""))
    assert again(ConnectionLost(""), idempotent=True)
    assert not again(ConnectionLost(""), idempotent=True, is_over=False)


def test_a_stream_that_left_is_not_sent_again() -> None:
    for params in ([stream()], {"a": [{"b": stream()}]}, [0] * (MAX_VALUES_SEARCHED + 1)):
        assert not again(ConnectionLost(""), idempotent=True, params=params)
        assert not again(Unavailable(""), params=params)
        assert again(not_run(ConnectionLost("")), params=params), "it never left"
        assert again(with_reason(Unavailable("")), params=params)
    assert again(ConnectionLost(""), idempotent=True, params=[0] * 1000)


@pytest.mark.parametrize(
    "exc",
    [
        Wrong(""),
        errors.Overloaded(""),
        not_run(errors.Overloaded("")),
        not_run(errors.DeadlineExceeded("")),
        errors.MethodNotFound(""),
        errors.PermissionDenied(""),
        errors.Internal(""),
        errors.LocalProtocolError(""),
        errors.InvalidResult(""),
        errors.WrongLoop(""),
        OSError(errno.EMFILE, ""),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_nothing_else_is_sent_again(exc: BaseException) -> None:
    assert not again(exc, idempotent=True)


def test_an_unavailable_stream_is_not_taken_for_a_call_that_did_not_run() -> None:
    met = Unavailable("the producer of the stream died")
    met.execution = Execution.MAY_HAVE_RUN
    assert not again(met, idempotent=True)


@pytest.mark.parametrize(
    "exc, text",
    [
        (errors.NobodyListens(errno.ENOENT, "nobody is there"), "nobody is there (for 3 s: ready_timeout)"),
        (with_reason(Unavailable("it goes")), "rpc.Unavailable: it goes (for 3 s: ready_timeout)"),
        (ConnectionLost("it ended"), "it ended (for 3 s: ready_timeout)"),
    ],
)
def test_each_call_that_found_nobody_has_an_error_of_its_own(exc: errors.SeqrpcError, text: str) -> None:
    try:
        raise exc
    except errors.SeqrpcError:
        pass
    plain, waited = told_anew(exc), told_anew(exc, 3.0)
    assert type(plain) is type(waited) is type(exc)
    assert plain is not exc
    assert (str(plain), str(waited)) == (str(exc), text)
    assert plain.execution is waited.execution is Execution.DID_NOT_RUN
    assert plain.__traceback__ is waited.__traceback__ is None
    assert getattr(waited, "reason", None) == getattr(exc, "reason", None)
    assert getattr(waited, "errno", None) == getattr(exc, "errno", None)


def test_a_call_that_never_left_goes_on_and_says_so_at_its_end() -> None:
    attempts = Attempts()
    assert all(attempts.note(not_run(ConnectionLost("")), was_answered=False) for _ in range(20))
    for exc in (not_run(ConnectionLost("")), OSError()):
        attempts.end_with(exc)
    ended = errors.NobodyListens(errno.ENOENT, "")
    attempts.end_with(ended)
    assert ended.execution is Execution.DID_NOT_RUN


def test_no_error_hides_that_an_attempt_before_may_have_run() -> None:
    attempts = Attempts()
    attempts.waited = 5.0
    assert attempts.note(ConnectionLost("it ended"), was_answered=True)
    assert attempts.waited == 0, "it waits anew"
    for exc in (errors.NobodyListens(errno.ENOENT, ""), errors.Internal(""), Wrong("")):
        before = exc.execution
        attempts.end_with(exc)
        assert exc.execution is (Execution.MAY_HAVE_RUN if before is Execution.DID_NOT_RUN else before)
    with pytest.raises(ConnectionLost, match="it ended") as caught:
        attempts.end_with(OSError(errno.EMFILE, "no room"))
    assert caught.value.execution is Execution.MAY_HAVE_RUN
    assert isinstance(caught.value.__cause__, OSError)


def test_a_call_that_ends_each_connection_comes_to_an_end() -> None:
    attempts = Attempts()
    lost = [attempts.note(ConnectionLost(""), was_answered=answered) for answered in [False] * 4 + [True] + [False] * 5]
    assert lost == [True] * 9 + [False]
