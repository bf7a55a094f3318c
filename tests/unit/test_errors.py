from __future__ import annotations

import copy
import inspect
import traceback
from typing import Any

import pytest

from seqrpc import errors
from seqrpc.errors import Execution, RpcError, SeqrpcError

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
        (errors.AddressInUse, errors.ListenError),
        (errors.ListenError, OSError),
        (errors.ConnectError, OSError),
        (errors.UntrustedServer, errors.ConnectError),
        (errors.NobodyListens, errors.ConnectError),
        (errors.ConnectDenied, errors.ConnectError),
        (errors.WrongSocketType, errors.ConnectError),
        (errors.ServerBusy, errors.ConnectError),
        (errors.ServerBusy, TimeoutError),
        (errors.ConnectionLost, ConnectionError),
        (errors.LocalProtocolError, errors.ProtocolError),
        (errors.RemoteProtocolError, errors.ProtocolError),
        (errors.DeadlineExceeded, TimeoutError),
    ],
)
def test_they_are_what_their_readers_catch(cls: type[Exception], base: type[Exception]) -> None:
    assert issubclass(cls, base)


@pytest.mark.parametrize("cls", [errors.AddressInUse, errors.ConnectError, errors.UntrustedServer, errors.ServerBusy])
def test_those_of_the_kernel_carry_its_number_and_print_a_sentence(cls: type[OSError]) -> None:
    error = cls(111, "nobody listens there")
    assert type(error) is cls
    assert error.errno == 111
    assert str(error) == "nobody listens there"
    assert str(cls("made by somebody else")) == "made by somebody else"


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


class Broke(RpcError, code="test_errors.Broke"):
    """Of an application."""

    left = 5


def test_what_is_raised_for_a_shared_code_is_of_all_its_classes_whichever_came_first() -> None:
    own = Broke

    class Stub(RpcError, code="test_errors.Broke", shared=True):
        pass

    class OtherStub(RpcError, code="test_errors.Broke", shared=True):
        left = 6

    for cls in (own, Stub, OtherStub):
        with pytest.raises(cls, match="no money") as caught:
            raise RpcError.from_wire("test_errors.Broke", "no money", 3)
        raised: Any = caught.value
        assert (raised.code, raised.data, raised.left) == ("test_errors.Broke", 3, 5)
        assert repr(caught.value) == "Broke('no money')"

    class First(RpcError, code="test_errors.SharedFirst", shared=True):
        left = 1

    assert type(RpcError.from_wire("test_errors.SharedFirst", "", None)) is First

    class Own(RpcError, code="test_errors.SharedFirst"):
        left = 2

    made: Any = type(RpcError.from_wire("test_errors.SharedFirst", "", None))
    assert (made.__bases__, made.left, made.__qualname__) == ((Own, First), 2, Own.__qualname__)


def test_two_classes_of_applications_cannot_have_one_code_beside_a_shared_one_either() -> None:
    class Stub(RpcError, code="test_errors.Taken", shared=True):
        pass

    class Own(RpcError, code="test_errors.Taken"):
        pass

    with pytest.raises(TypeError, match=r"Second: the code 'test_errors.Taken' belongs to .*Own$"):

        class Second(RpcError, code="test_errors.Taken"):
            pass

    assert issubclass(type(RpcError.from_wire("test_errors.Taken", "", None)), Own)


def test_a_class_that_shares_the_code_of_its_own_base_is_raised_for_both() -> None:
    class Base(RpcError, code="test_errors.Derived"):
        pass

    class Derived(Base, code="test_errors.Derived", shared=True):
        pass

    assert type(RpcError.from_wire("test_errors.Derived", "", None)) is Derived


def test_where_nothing_can_be_of_all_classes_of_a_code_the_application_s_own_is_raised() -> None:
    class Own(RpcError, OSError, code="test_errors.Layout"):
        pass

    class Stub(RpcError, ImportError, code="test_errors.Layout", shared=True):
        pass

    assert type(RpcError.from_wire("test_errors.Layout", "", None)) is Own


def test_a_class_may_be_defined_again_under_its_own_name() -> None:
    """As when its module is reloaded: the newer one counts."""

    def define() -> type[RpcError]:
        class Again(RpcError, code="test_errors.Again"):
            pass

        return Again

    older, newer = define(), define()
    assert older is not newer
    assert type(RpcError.from_wire("test_errors.Again", "", None)) is newer


FORGED = "gone\n2038-01-19 03:14:07 CRITICAL all is lost\x1b[2J\udc80"
"""What somebody else might say, for the log of whoever hears it."""

LONG = FORGED + "x" * 10_000_000


def printed(error: BaseException) -> list[str]:
    """Return all that is printed of an exception: where it is logged, in a traceback, as a part of something else."""
    try:
        raise error
    except BaseException:
        return [str(error), repr(error), traceback.format_exc(), repr(error.args), f"{error}", f"{[error]}"]


def check_bounded(error: BaseException) -> None:
    for text in printed(error):
        assert len(text) < 2_000
        assert "\x1b" not in text
        assert "\udc80" not in text
        assert not any(line.startswith("2038") for line in text.splitlines())


@pytest.mark.parametrize("code", ["rpc.Unavailable", "test_errors.InsufficientFunds", "somebody.Else's", LONG])
def test_an_error_from_the_other_side_prints_one_short_line_and_has_the_whole(code: str) -> None:
    error = RpcError.from_wire(code, LONG, LONG)
    check_bounded(error)
    assert r"gone\n2038" in str(error)
    assert f"({len(LONG)} characters)" in str(error)
    assert (error.code, error.message, error.data) == (code, LONG, LONG)


def test_so_does_a_copy_of_it() -> None:
    error = copy.copy(RpcError.from_wire("rpc.Unavailable", LONG, None))
    check_bounded(error)
    assert error.message == LONG


def test_an_error_that_is_raised_here_prints_one_short_line_too() -> None:
    """Its author may have put into it what the caller sent."""
    error = RpcError(LONG, code="test_errors.Plain")
    assert len(str(error)) < 500
    assert len(repr(error)) < 500
    assert "\n" not in "".join(traceback.format_exception_only(error)).removesuffix("\n")
    assert error.message == LONG


@pytest.mark.parametrize("cls", [errors.InvalidResult, errors.RemoteProtocolError, errors.LocalProtocolError])
def test_what_quotes_the_other_side_prints_one_short_line(cls: type[SeqrpcError]) -> None:
    check_bounded(cls(LONG))
    assert str(cls("short")) == "short"


def test_an_answer_that_does_not_fit_is_quoted_whole_in_an_attribute() -> None:
    assert errors.InvalidResult(LONG).message == LONG


def test_a_representation_names_the_code_where_the_class_does_not() -> None:
    assert repr(errors.Unavailable("why")) == "Unavailable('why')"
    assert repr(RpcError("why", code="a.B")) == "RpcError('why', code='a.B')"


def test_each_error_says_whether_its_call_ran_as_far_as_its_class_knows() -> None:
    classes = {
        name: found.execution
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, SeqrpcError)
    }
    unrun = {name for name, execution in classes.items() if execution is Execution.DID_NOT_RUN}
    connecting = {"ConnectError", "NobodyListens", "ConnectDenied", "WrongSocketType", "ServerBusy", "UntrustedServer"}
    misuse = {"AddressError", "ListenError", "AddressInUse", "LocalProtocolError", "WrongProcess", "WrongLoop"}
    assert unrun == connecting | misuse | {"MethodNotFound", "PermissionDenied", "Unavailable"}
    ran = {name for name, execution in classes.items() if execution is Execution.RAN}
    assert ran == {"InvalidResult", "RpcError"}


def test_an_error_of_an_application_is_of_a_call_that_ran_unless_its_class_says_otherwise() -> None:
    class Refused(errors.Unavailable, code="test_errors.Refused"):
        pass

    class Unbegun(RpcError, code="test_errors.Unbegun"):
        execution = Execution.DID_NOT_RUN

    assert RpcError.from_wire("test_errors.Refused", "", None).execution is Execution.RAN
    assert RpcError.from_wire("test_errors.Unbegun", "", None).execution is Execution.DID_NOT_RUN
    assert RpcError.from_wire("somebody.Elses", "", None).execution is Execution.RAN


def test_a_reserved_code_of_a_later_version_says_nothing() -> None:
    assert RpcError.from_wire("rpc.Later", "", None).execution is Execution.MAY_HAVE_RUN


def test_an_error_of_which_more_is_known_says_so_and_its_class_does_not() -> None:
    error = errors.not_run(errors.ConnectionLost("never sent"))
    assert error.execution is Execution.DID_NOT_RUN
    assert copy.copy(error).execution is Execution.DID_NOT_RUN
    assert errors.ConnectionLost.execution is Execution.MAY_HAVE_RUN
