"""What the other side is told of an exception."""

from __future__ import annotations

import errno
import logging

import pytest
from support.incidents import AN_INCIDENT

from seqrpc import LocalProtocolError, Overloaded, PermissionDenied, RpcError, TooLarge, Unavailable
from seqrpc.calls.failures import answer_for, error_for, log_unsent_data, refusal_of, untold_error
from seqrpc.protocol.items import producer_gone
from seqrpc.protocol.spilled import NoMemoryFile


class Overdrawn(RpcError, code="failures.Overdrawn"):
    """An error of an application's own."""


class Bare(RpcError, code="failures.Bare"):
    """Calls no ``__init__`` of its base."""

    def __init__(self) -> None:
        pass


class Computed(RpcError, code="failures.Computed"):
    """Cannot say what it holds."""

    def __init__(self) -> None:
        self.message = "secret"

    def __getattribute__(self, name: str) -> object:
        if name == "data":
            raise KeyError(name)
        return super().__getattribute__(name)


def crossed(error: RpcError) -> RpcError:
    """Return an error as a call of this side meets it."""
    return RpcError.from_wire(error.code, error.message, error.data)


def test_an_error_that_was_meant_to_cross_is_told_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    assert error_for(Overdrawn("by seven", {"held": 7}), "m") == ("failures.Overdrawn", "by seven", {"held": 7})
    assert error_for(Unavailable("not now"), "m") == ("rpc.Unavailable", "not now", None)
    assert error_for(crossed(Overdrawn("by seven", 7)), "m") == ("failures.Overdrawn", "by seven", 7)
    assert caplog.records == []


def test_an_answer_does_not_say_that_nothing_ran_because_of_what_its_handler_met(
    caplog: pytest.LogCaptureFixture,
) -> None:
    met = producer_gone("the producer of the stream died")
    assert answer_for(met, "m") == ("rpc.Internal", AN_INCIDENT, None)
    assert "the producer of the stream died" in caplog.text
    caplog.clear()
    assert error_for(met, "m") == ("rpc.Unavailable", "the producer of the stream died", None), "in a stream it may"
    assert answer_for(Unavailable("not now"), "m") == ("rpc.Unavailable", "not now", None)
    assert answer_for(Overdrawn("by seven"), "m") == ("failures.Overdrawn", "by seven", None)
    assert caplog.records == []


def test_an_error_that_holds_odd_things_is_told_all_the_same() -> None:
    assert error_for(Bare(), "m") == ("failures.Bare", "", None)
    assert error_for(Overdrawn(7), "m") == ("failures.Overdrawn", "7", None)  # type: ignore[arg-type]


def test_an_error_whose_parts_cannot_be_had_is_internal_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert error_for(Computed(), "m") == ("rpc.Internal", AN_INCIDENT, None)
    assert "its error cannot be told" in caplog.text


class Evil(Exception):
    """Has nothing that can be asked for."""

    def __getattribute__(self, name: str) -> object:
        raise ValueError(name)


def test_what_was_raised_while_an_error_was_looked_at_is_internal_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert untold_error(LookupError("of its name"), "m") == ("rpc.Internal", AN_INCIDENT)
    assert "its error cannot be told" in caplog.text
    assert "LookupError: of its name" in caplog.text


@pytest.mark.parametrize("withheld", [False, True])
def test_so_is_what_can_be_logged_only_without_a_traceback(caplog: pytest.LogCaptureFixture, withheld: bool) -> None:
    code, message = untold_error(Evil(), "m", withheld=withheld)
    assert (code, message) == ("rpc.Internal", AN_INCIDENT)
    assert f"its error can be neither told nor logged (incident {message.split()[1].rstrip(';')})" in caplog.text


@pytest.mark.parametrize(
    "error",
    [LookupError("secret"), crossed(Unavailable("secret")), LocalProtocolError("secret"), SystemExit("secret")],
    ids=lambda error: type(error).__name__,
)
def test_anything_else_is_internal_and_logged_here(caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    code, message, data = error_for(error, "Bank.pay")
    assert (code, message, data) == ("rpc.Internal", AN_INCIDENT, None)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("seqrpc.failures", logging.ERROR)
    assert record.getMessage() == f"! 'Bank.pay' failed (incident {message.split()[1].rstrip(';')})"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize(
    "numbers, kind",
    [
        ((errno.EMSGSIZE, errno.ENOBUFS), TooLarge),
        ((errno.EPERM,), PermissionDenied),
        ((errno.ETOOMANYREFS, errno.ENOMEM), Overloaded),
        ((errno.EIO, errno.EMFILE, errno.EBADF), type(None)),
    ],
)
def test_what_the_kernel_does_not_take_has_a_name(numbers: tuple[int, ...], kind: type) -> None:
    assert [type(refusal_of(OSError(number, "why"))) for number in numbers] == [kind] * len(numbers)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EIO])
def test_where_no_memory_file_can_be_made_it_may_work_later(number: int) -> None:
    refusal = refusal_of(NoMemoryFile(number, "why"))
    assert type(refusal) is Overloaded
    assert "why" in refusal.message


def test_what_no_memory_file_may_hold_is_too_large() -> None:
    assert type(refusal_of(NoMemoryFile(errno.EFBIG, "why"))) is TooLarge


def test_what_a_sensitive_call_fails_with_is_logged_without_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    def failed(exc: BaseException) -> tuple[str, str, object]:
        try:
            raise exc
        except type(exc) as caught:
            return answer_for(caught, "S.login", withheld=True)

    with caplog.at_level(logging.DEBUG):
        code, message, _data = failed(ValueError("hunter2"))
        assert code == "rpc.Internal"
        assert failed(Overdrawn("hunter2")) == ("failures.Overdrawn", "hunter2", None)
        assert failed(Computed())[0] == "rpc.Internal"
        log_unsent_data(ValueError("hunter2"), "S.login", withheld=True)
        log_unsent_data(ValueError("to be seen"), "S.login", withheld=False)
    assert message.split()[1].strip(";") in caplog.text
    assert "ValueError: (withheld)" in caplog.text
    assert "ValueError: to be seen" in caplog.text
    assert "hunter2" not in caplog.text
    assert all(record.exc_info is None or "seen" in str(record.exc_info[1]) for record in caplog.records)
