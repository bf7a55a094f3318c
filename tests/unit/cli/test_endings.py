"""How commands end."""

from __future__ import annotations

import os
import signal

import pytest
from support.processes import fork

from seqrpc import errors
from seqrpc.cli import endings
from seqrpc.cli.endings import ABSENT, MISUSED, Ending, after_a_call, die_of, misused, status_of, told


def died() -> errors.Unavailable:
    error = errors.Unavailable("died")
    error.execution = errors.Execution.MAY_HAVE_RUN  # as where a stream is read whose producer dies
    return error


@pytest.mark.parametrize(
    "error, status, text",
    [
        (errors.PermissionDenied("no"), endings.REFUSED, "rpc.PermissionDenied: no"),
        (errors.ConnectDenied(13, "cannot"), endings.REFUSED, "ConnectDenied: cannot"),
        (errors.DeadlineExceeded("late"), endings.LATE, "rpc.DeadlineExceeded: late"),
        (errors.ServerBusy(11, "busy"), endings.LATE, "ServerBusy: busy"),
        (errors.InvalidParams("what"), endings.MISUSED, "rpc.InvalidParams: what"),
        (errors.AddressError("what"), endings.MISUSED, "AddressError: what"),
        (errors.MethodNotFound("what"), endings.ABSENT, "rpc.MethodNotFound: what"),
        (errors.NobodyListens(2, "nobody"), endings.ABSENT, "NobodyListens: nobody"),
        (errors.Unavailable("gone"), endings.ABSENT, "rpc.Unavailable: gone"),
        (died(), endings.FAILED, "rpc.Unavailable: died"),
        (errors.Internal("incident"), endings.FAILED, "rpc.Internal: incident"),
        (errors.ConnectionLost("lost"), endings.FAILED, "ConnectionLost: lost"),
        (errors.RpcError("m", code="bank.Empty"), endings.FAILED, "bank.Empty: m"),
        (FileNotFoundError(2, "No such file", "x\x1b"), endings.ABSENT, "ENOENT: No such file: x\\x1b"),
        (PermissionError(13, "No"), endings.REFUSED, "EACCES: No"),
        (OSError("odd"), endings.FAILED, "OSError: odd"),
        (TimeoutError("late"), endings.LATE, "TimeoutError: late"),
        (ValueError("bad\n"), endings.MISUSED, "bad\\n"),
        (MemoryError("much"), endings.FAILED, "MemoryError: much"),
        (KeyError("x"), endings.FAILED, "KeyError: 'x'"),
        (misused("so"), endings.MISUSED, "so"),
        (Ending(77), 77, ""),
    ],
)
def test_the_status_tells_the_kind_and_the_line_has_the_code(error: Exception, status: int, text: str) -> None:
    assert (status_of(error), told(error)) == (status, text)


def test_every_status_is_in_the_help() -> None:
    for status in (endings.OK, endings.FAILED, endings.MISUSED, endings.ABSENT, endings.REFUSED, endings.LATE):
        assert f"{status} " in endings.HELP


@pytest.mark.parametrize("is_blocked", [False, True])
def test_a_process_dies_of_a_signal_as_if_nothing_handled_it(is_blocked: bool) -> None:
    pid = fork()
    if pid == 0:
        if is_blocked:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        die_of(signal.SIGINT)
    status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == (128 + signal.SIGINT if is_blocked else -signal.SIGINT)


@pytest.mark.parametrize(
    "error, status, text",
    [
        (FileNotFoundError(2, "No such file", "/x"), 1, "ENOENT: No such file: /x"),
        (PermissionError(13, "No", "/x"), 1, "EACCES: No: /x"),
        (ValueError("odd"), 1, "odd"),
        (Ending(ABSENT, "gone"), 1, "gone"),
        (Ending(MISUSED, "wrong"), 2, "wrong"),
    ],
)
def test_after_a_call_nothing_is_absent(error: Exception, status: int, text: str) -> None:
    with pytest.raises(Ending) as failed, after_a_call():
        raise error
    assert (failed.value.status, str(failed.value)) == (status, text)


@pytest.mark.parametrize(
    "error", [errors.PermissionDenied("no"), errors.DeadlineExceeded("late"), BrokenPipeError(), KeyboardInterrupt()]
)
def test_what_has_an_end_of_its_own_keeps_it_after_a_call(error: BaseException) -> None:
    with pytest.raises(type(error)) as failed, after_a_call():
        raise error
    assert failed.value is error
