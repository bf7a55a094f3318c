from __future__ import annotations

import inspect

import pytest

from seqrpc import errors
from seqrpc.errors import RpcError, SeqrpcError

# protocol 2.9
RESERVED = {
    "rpc.MethodNotFound": errors.MethodNotFound,
    "rpc.InvalidParams": errors.InvalidParams,
    "rpc.PermissionDenied": errors.PermissionDenied,
    "rpc.DeadlineExceeded": errors.DeadlineExceeded,
    "rpc.Cancelled": errors.Cancelled,
    "rpc.Overloaded": errors.Overloaded,
    "rpc.TooLarge": errors.TooLarge,
    "rpc.DescriptorsLost": errors.DescriptorsLost,
    "rpc.Unavailable": errors.Unavailable,
    "rpc.Internal": errors.Internal,
}


class InsufficientFunds(RpcError, code="test_errors.InsufficientFunds"):
    """An application's error with a signature of its own."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing} is missing", {"missing": missing})


def test_every_exception_has_one_root() -> None:
    classes = [found for _name, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, Exception)]
    assert len(classes) >= 20
    assert [found for found in classes if not issubclass(found, SeqrpcError)] == []


@pytest.mark.parametrize(
    "cls, base",
    [
        (errors.AddressError, ValueError),
        (errors.AddressInUse, OSError),
        (errors.ConnectError, OSError),
        (errors.UntrustedServer, errors.ConnectError),
        (errors.ConnectionLost, ConnectionError),
        (errors.LocalProtocolError, errors.ProtocolError),
        (errors.RemoteProtocolError, errors.ProtocolError),
        (errors.DeadlineExceeded, TimeoutError),
    ],
)
def test_they_are_what_their_readers_catch(cls: type[Exception], base: type[Exception]) -> None:
    assert issubclass(cls, base)


@pytest.mark.parametrize("cls", [errors.AddressInUse, errors.ConnectError, errors.UntrustedServer])
def test_those_of_the_kernel_carry_its_number(cls: type[OSError]) -> None:
    error = cls(111, "nobody listens there")
    assert type(error) is cls
    assert error.errno == 111
    assert "nobody listens there" in str(error)


def test_the_reserved_codes_have_a_class_each() -> None:
    assert {code: cls for code, cls in RpcError._classes.items() if code.startswith("rpc.")} == RESERVED


@pytest.mark.parametrize("code, cls", RESERVED.items())
def test_a_reserved_code_comes_back_as_its_class(code: str, cls: type[RpcError]) -> None:
    error = RpcError.from_wire(code, "why", [1])
    assert type(error) is cls
    assert (error.code, error.message, error.data, error.remote) == (code, "why", [1], True)
    assert str(error) == f"{code}: why"


@pytest.mark.parametrize("cls", RESERVED.values())
def test_a_reserved_error_can_be_raised_by_hand(cls: type[RpcError]) -> None:
    error = cls("why", {"a": 1})
    assert (error.code, error.message, error.data, error.remote) == (cls.code, "why", {"a": 1}, False)
    assert error.args == ("why",)


def test_an_application_s_error_comes_back_without_its_init() -> None:
    sent = InsufficientFunds(5)
    assert (sent.code, sent.message, sent.data) == ("test_errors.InsufficientFunds", "5 is missing", {"missing": 5})
    received = RpcError.from_wire(sent.code, sent.message, sent.data)
    assert type(received) is InsufficientFunds
    assert (received.message, received.data, received.remote) == ("5 is missing", {"missing": 5}, True)


def test_an_unknown_code_comes_back_as_the_plain_class_with_the_code() -> None:
    error = RpcError.from_wire("somebody.ElsesError", "", None)
    assert type(error) is RpcError
    assert error.code == "somebody.ElsesError"
    assert RpcError.code == ""


def test_a_plain_error_needs_a_code() -> None:
    error = RpcError("why", code="test_errors.Plain")
    assert (error.code, str(error)) == ("test_errors.Plain", "test_errors.Plain: why")
    with pytest.raises(TypeError, match="RpcError has no code"):
        RpcError("why")


def test_without_a_message_the_code_says_it() -> None:
    assert str(errors.Unavailable()) == "rpc.Unavailable"


def test_a_subclass_without_a_code_crosses_by_its_parent_s() -> None:
    class Overdrawn(InsufficientFunds):
        pass

    assert Overdrawn.code == InsufficientFunds.code
    assert type(RpcError.from_wire(Overdrawn.code, "", None)) is InsufficientFunds


def test_a_code_is_not_empty() -> None:
    with pytest.raises(TypeError, match="non-empty"):

        class Nameless(RpcError, code=""):
            pass


def test_reserved_codes_cannot_be_claimed() -> None:
    with pytest.raises(TypeError, match=r"reserved, got 'rpc\.Mine'"):

        class Mine(RpcError, code="rpc.Mine"):
            pass


def test_a_code_belongs_to_one_class() -> None:
    with pytest.raises(TypeError, match=r"belongs to .*test_errors\.InsufficientFunds"):

        class Other(RpcError, code="test_errors.InsufficientFunds"):
            pass

    assert type(RpcError.from_wire("test_errors.InsufficientFunds", "", None)) is InsufficientFunds


def test_a_class_may_be_defined_again_under_its_own_name() -> None:
    """As when its module is reloaded: the newer one counts."""

    def define() -> type[RpcError]:
        class Again(RpcError, code="test_errors.Again"):
            pass

        return Again

    older, newer = define(), define()
    assert older is not newer
    assert type(RpcError.from_wire("test_errors.Again", "", None)) is newer
