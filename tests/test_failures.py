"""What the other side is told of an exception."""

from __future__ import annotations

import logging

import pytest

from seqrpc import LocalProtocolError, RpcError, Unavailable
from seqrpc.carriers.failures import told


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
    assert told(Overdrawn("by seven", {"held": 7}), "m") == ("failures.Overdrawn", "by seven", {"held": 7})
    assert told(Unavailable("not now"), "m") == ("rpc.Unavailable", "not now", None)
    assert told(crossed(Overdrawn("by seven", 7)), "m") == ("failures.Overdrawn", "by seven", 7)
    assert caplog.records == []


def test_an_error_that_holds_odd_things_is_told_all_the_same() -> None:
    assert told(Bare(), "m") == ("failures.Bare", "", None)
    assert told(Overdrawn(7), "m") == ("failures.Overdrawn", "7", None)  # type: ignore[arg-type]


def test_an_error_whose_parts_cannot_be_had_is_internal_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert told(Computed(), "m") == ("rpc.Internal", "", None)
    assert "its error cannot be told" in caplog.text


@pytest.mark.parametrize(
    "error",
    [LookupError("secret"), crossed(Unavailable("secret")), LocalProtocolError("secret"), SystemExit("secret")],
    ids=lambda error: type(error).__name__,
)
def test_anything_else_is_internal_and_logged_here(caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    assert told(error, "Bank.pay") == ("rpc.Internal", "", None)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("seqrpc.failures", logging.ERROR)
    assert record.getMessage() == "! 'Bank.pay' failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
