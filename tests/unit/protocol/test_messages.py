from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.descriptors import owned
from support.properties import PROPERTY, values

from seqrpc.errors import Execution, Overloaded, RemoteProtocolError
from seqrpc.protocol.messages import (
    CANCEL,
    CLOSING,
    LAST_KIND,
    MAX_CALL_ID,
    NO_OPTIONS,
    NOTIFY,
    REQUEST,
    RESPONSE,
    SPILLED,
    Cancel,
    Closing,
    Options,
    Request,
    Response,
    error_of,
    kind_of,
    parse,
    parse_spilled,
)

NOT_IDS: list[Any] = [-1, MAX_CALL_ID + 1, 1.0, True, None, "1", b"1", [1], {}]
NOT_STRINGS: list[Any] = [None, 1, True, b"text", ["text"], {}]


def malformed(value: list[Any]) -> str:
    """Return the reason for which a message is malformed."""
    with pytest.raises(RemoteProtocolError, match=r"^malformed message: ") as caught:
        parse(value[0], value, [])
    return str(caught.value).removeprefix("malformed message: ")


def malformed_spilled(value: list[Any]) -> str:
    """Return the reason for which the packet of a spilled message is malformed."""
    with pytest.raises(RemoteProtocolError, match=r"^malformed message: ") as caught:
        parse_spilled(value)
    return str(caught.value).removeprefix("malformed message: ")


@pytest.mark.parametrize("value", [None, 1, "text", b"", {}, {0: 1}, (), 1.5])
def test_1_1_a_message_is_an_array(value: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="an array with a kind was expected"):
        kind_of(value)


def test_1_1_an_empty_array_is_no_message() -> None:
    with pytest.raises(RemoteProtocolError, match="an array with a kind was expected, got an array of 0"):
        kind_of([])


@pytest.mark.parametrize("kind", [-1, 0.0, True, False, None, "0", b"\0", [0], {}])
def test_1_1_the_kind_is_an_unsigned_integer(kind: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="a kind is an unsigned integer"):
        kind_of([kind, 1])


@pytest.mark.parametrize("kind", [0, 5, 6, 2**64 - 1])
def test_1_4_any_unsigned_integer_is_a_kind(kind: int) -> None:
    assert kind_of([kind]) == kind


def test_2_the_kinds_are_numbered_as_written() -> None:
    assert (REQUEST, RESPONSE, NOTIFY, CANCEL, SPILLED, CLOSING) == (0, 1, 2, 3, 4, 5)
    assert LAST_KIND == 5


def test_2_a_request_has_four_or_five_elements() -> None:
    with owned(1) as fds:
        request = parse(REQUEST, [0, 7, "m", [1, 2]], fds)
        assert isinstance(request, Request)
        assert (request.call_id, request.method, request.params, request.options) == (7, "m", [1, 2], NO_OPTIONS)
        assert request.fds is fds

    request = parse(REQUEST, [0, 7, "m", [], {"deadline": 5}], [])
    assert isinstance(request, Request)
    assert request.options == Options(deadline=5)

    for value in ([0], [0, 7], [0, 7, "m"], [0, 7, "m", [], {}, None]):
        assert malformed(value) == f"a message of kind 0 has 4 or 5 elements, got {len(value)}"


def test_2_a_response_has_four_elements() -> None:
    with owned(1) as fds:
        response = parse(RESPONSE, [1, 7, None, "value"], fds)
        assert isinstance(response, Response)
        assert (response.call_id, response.error, response.result) == (7, None, "value")
        assert response.fds is fds

    for value in ([1], [1, 7, None], [1, 7, None, None, None]):
        assert malformed(value) == f"a message of kind 1 has 4 elements, got {len(value)}"


def test_2_a_notify_has_three_or_four_elements() -> None:
    with owned(1) as fds:
        notify = parse(NOTIFY, [2, "m", {"a": 1}], fds)
        assert isinstance(notify, Request)
        assert (notify.call_id, notify.method, notify.params, notify.options) == (None, "m", {"a": 1}, NO_OPTIONS)
        assert notify.fds is fds

    notify = parse(NOTIFY, [2, "m", [], {"meta": {"a": "b"}}], [])
    assert isinstance(notify, Request)
    assert notify.options == Options(meta={"a": "b"})

    for value in ([2], [2, "m"], [2, "m", [], {}, None]):
        assert malformed(value) == f"a message of kind 2 has 3 or 4 elements, got {len(value)}"


def test_2_a_cancel_has_two_elements() -> None:
    cancel = parse(CANCEL, [3, 7], [])
    assert isinstance(cancel, Cancel)
    assert cancel.call_id == 7

    for value in ([3], [3, 7, None]):
        assert malformed(value) == f"a message of kind 3 has 2 elements, got {len(value)}"


def test_2_a_closing_has_two_elements() -> None:
    closing = parse(CLOSING, [5, "going"], [])
    assert isinstance(closing, Closing)
    assert closing.reason == "going"

    for value in ([5], [5, "going", None]):
        assert malformed(value) == f"a message of kind 5 has 2 elements, got {len(value)}"


def test_2_a_spilled_packet_has_two_or_three_elements() -> None:
    spilled = parse_spilled([4, 100])
    assert (spilled.length, spilled.call_id) == (100, None)
    spilled = parse_spilled([4, 2**64 - 1, MAX_CALL_ID])
    assert (spilled.length, spilled.call_id) == (2**64 - 1, MAX_CALL_ID)

    for value in ([4], [4, 100, 1, None]):
        assert malformed_spilled(value) == f"a message of kind 4 has 2 or 3 elements, got {len(value)}"


@pytest.mark.parametrize("length", [0, -1, 1.0, True, None, "100", [100]])
def test_5_1_the_length_of_a_spilled_message_is_a_positive_integer(length: Any) -> None:
    assert malformed_spilled([4, length]).startswith("the length of a message is a positive integer, got ")


@pytest.mark.parametrize("call_id", NOT_IDS)
def test_5_2_the_id_of_a_spilled_message_is_an_id(call_id: Any) -> None:
    assert malformed_spilled([4, 100, call_id]).startswith("an id is an unsigned 32-bit integer, got ")


def test_5_1_there_is_no_spilled_message_inside_a_spilled_message() -> None:
    assert malformed([SPILLED, 100]) == "a spilled message inside a spilled message"


@pytest.mark.parametrize("call_id", NOT_IDS)
def test_2_1_an_id_is_an_unsigned_32_bit_integer(call_id: Any) -> None:
    for value in ([REQUEST, call_id, "m", []], [RESPONSE, call_id, None, None], [CANCEL, call_id]):
        assert malformed(value).startswith("an id is an unsigned 32-bit integer, got ")


@pytest.mark.parametrize("call_id", [0, 1, MAX_CALL_ID])
def test_2_1_the_whole_range_of_ids_is_taken(call_id: int) -> None:
    request = parse(REQUEST, [0, call_id, "m", []], [])
    assert isinstance(request, Request)
    assert request.call_id == call_id


@pytest.mark.parametrize("method", NOT_STRINGS)
def test_2_2_a_method_is_a_string(method: Any) -> None:
    assert malformed([REQUEST, 1, method, []]).startswith("a method is a string, got ")
    assert malformed([NOTIFY, method, []]).startswith("a method is a string, got ")


@pytest.mark.parametrize("params", [None, 1, "text", b"bytes", True, 1.5])
def test_2_3_params_are_an_array_or_a_map(params: Any) -> None:
    assert malformed([REQUEST, 1, "m", params]).startswith("params are an array or a map, got ")
    assert malformed([NOTIFY, "m", params]).startswith("params are an array or a map, got ")


@pytest.mark.parametrize("key", [1, None, b"a", 1.5, (1, 2), datetime(2020, 1, 1, tzinfo=UTC)])
def test_2_3_params_by_name_have_strings_as_keys(key: Any) -> None:
    assert malformed([REQUEST, 1, "m", {"a": 1, key: 2}]).startswith("the keys of params are strings, got ")
    assert malformed([NOTIFY, "m", {key: 2}]).startswith("the keys of params are strings, got ")


def test_2_3_keys_within_a_parameter_are_free() -> None:
    request = parse(REQUEST, [0, 1, "m", {"a": {1: 2, b"b": 3}}], [])
    assert isinstance(request, Request)
    assert request.params == {"a": {1: 2, b"b": 3}}


@pytest.mark.parametrize("options", [None, 1, "text", [], ["deadline", 1]])
def test_2_4_options_are_a_map(options: Any) -> None:
    assert malformed([REQUEST, 1, "m", [], options]).startswith("options are a map, got ")
    assert malformed([NOTIFY, "m", [], options]).startswith("options are a map, got ")


def test_2_4_options_have_strings_as_keys() -> None:
    assert malformed([REQUEST, 1, "m", [], {1: 2}]) == "the keys of options are strings, got `int`"


@pytest.mark.parametrize("deadline", [None, 1.5, "1", True, [1]])
def test_2_4_a_deadline_is_an_integer(deadline: Any) -> None:
    assert malformed([REQUEST, 1, "m", [], {"deadline": deadline}]).startswith("a deadline is an integer, got ")


@pytest.mark.parametrize("deadline", [0, -1, 2**64 - 1, -(2**63)])
def test_2_4_any_integer_is_a_deadline(deadline: int) -> None:
    request = parse(REQUEST, [0, 1, "m", [], {"deadline": deadline}], [])
    assert isinstance(request, Request)
    assert request.options == Options(deadline=deadline)


@pytest.mark.parametrize("meta", [None, [], "text", 1])
def test_2_4_meta_is_a_map(meta: Any) -> None:
    assert malformed([REQUEST, 1, "m", [], {"meta": meta}]).startswith("meta is a map, got ")


def test_2_4_meta_maps_strings_to_strings() -> None:
    assert malformed([REQUEST, 1, "m", [], {"meta": {1: "b"}}]) == "the keys of meta are strings, got `int`"
    assert malformed([REQUEST, 1, "m", [], {"meta": {"a": "b", "c": None}}]) == "meta holds strings, got None"


def test_1_4_unknown_options_are_ignored() -> None:
    request = parse(REQUEST, [0, 1, "m", [], {"priority": {1: 2}, "deadline": 3}], [])
    assert isinstance(request, Request)
    assert request.options == Options(deadline=3)


@pytest.mark.parametrize("error", [1, "app.Failed", {}, [], ["a", "b"], ["a", "b", None, None], True, 0, False])
def test_2_5_an_error_has_three_parts(error: Any) -> None:
    assert malformed([RESPONSE, 1, error, None]).startswith("an error is [code, message, data], got ")


@pytest.mark.parametrize("text", NOT_STRINGS)
def test_2_5_code_and_message_of_an_error_are_strings(text: Any) -> None:
    assert malformed([RESPONSE, 1, [text, "message", None], None]).startswith("an error's code and message are strings")
    assert malformed([RESPONSE, 1, ["code", text, None], None]).startswith("an error's code and message are strings")


def test_2_5_a_response_has_a_result_or_an_error() -> None:
    response = parse(RESPONSE, [1, 1, ["code", "message", {"a": 1}], None], [])
    assert isinstance(response, Response)
    assert (response.error, response.result) == (["code", "message", {"a": 1}], None)

    assert malformed([RESPONSE, 1, ["code", "message", None], 0]) == "a RESPONSE has an error or a result, not both"


@pytest.mark.parametrize("reason", NOT_STRINGS)
def test_2_8_the_reason_of_closing_is_a_string(reason: Any) -> None:
    assert malformed([CLOSING, reason]).startswith("the reason of CLOSING is a string, got ")


def test_of_what_a_peer_made_up_only_numbers_are_quoted() -> None:
    assert malformed([RESPONSE, "hunter2", None, None]).endswith("got `str`")
    assert malformed([RESPONSE, b"hunter2", None, None]).endswith("got `bytes`")
    assert malformed([RESPONSE, -7, None, None]).endswith("got -7")
    assert malformed([RESPONSE, None, None, None]).endswith("got None")
    assert malformed([RESPONSE, [1] * 50_000, None, None]).endswith("got an array of 50000")
    assert malformed([RESPONSE, {1: 2}, None, None]).endswith("got a map of 1")
    assert malformed([NOTIFY, "m", {(1,) * 50_000: 2}]).endswith("got an array of 50000")
    assert malformed([NOTIFY, "m", 1234]).endswith("got `int`")  # it may be somebody's number


def test_a_request_shows_nothing_of_its_arguments() -> None:
    assert repr(parse(REQUEST, [0, 1, "m", ["hunter2"]], [])) == "<Request 1 of m>"


@PROPERTY
@given(st.integers(0, LAST_KIND), st.lists(values(), max_size=5))
def test_1_5_any_array_is_a_message_or_malformed(kind: int, rest: list[Any]) -> None:
    value = [kind, *rest]
    reason = ""
    try:
        message = parse(kind_of(value), value, [])
    except RemoteProtocolError as exc:
        reason = str(exc)
    assert len(reason) < 300
    assert reason or isinstance(message, Request | Response | Cancel | Closing)


def test_a_peer_is_not_told_the_numbers_of_our_descriptors() -> None:
    with owned(1) as (fd,):
        assert malformed([REQUEST, 1, "m", fd]) == "params are an array or a map, got a descriptor"


def test_an_error_is_raised_as_the_class_of_its_code() -> None:
    message = parse(RESPONSE, [RESPONSE, 1, ["rpc.Overloaded", "later", {"seconds": 1}], None], [])
    assert isinstance(message, Response)
    assert message.error is not None
    error = error_of(message.error)
    assert isinstance(error, Overloaded)
    assert (error.message, error.data, error.remote) == ("later", {"seconds": 1}, True)


def test_an_error_that_this_side_made_says_that_the_call_ran() -> None:
    assert error_of(["rpc.TooLarge", "", None]).execution is Execution.MAY_HAVE_RUN
    assert error_of(["rpc.TooLarge", "", None, Execution.RAN]).execution is Execution.RAN
