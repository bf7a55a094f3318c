"""Section 3 of the protocol: descriptors in their places, descriptors that get lost, and what nobody refers to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.admission import new_session, refuse
from support.descriptors import Lender, owned
from support.measures import peak_bytes
from support.properties import PROPERTY, values
from support.session import Nobody, is_malformed, packet, receive, request_in_flight
from support.sessions import SessionPair

from seqrpc.errors import DescriptorsLost, Execution, LocalProtocolError, RemoteProtocolError
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.admission import Refused
from seqrpc.protocol.messages import Cancel, Closing, Request, Response, error_of


def test_3_1_descriptors_arrive_in_their_places_and_belong_to_the_message() -> None:
    pair = SessionPair()
    reader, writer = os.pipe()
    with OwnedFd(reader), OwnedFd(writer):
        _, call = pair.sessions[0].send_request("waiter", "m", {"w": Lender(writer), "r": [Lender(reader)]})
        request = pair.send_and_deliver(0, call)
        assert isinstance(request, Request)
        assert isinstance(request.params, dict)
        assert request.fds == [request.params["w"], request.params["r"][0]]
        os.write(request.params["w"].fileno(), b"through")

        answer = pair.send_and_deliver(1, pair.sessions[1].send_result(0, request.params["r"]))
        assert isinstance(answer, Response)
        assert answer.result == answer.fds
        assert os.read(answer.result[0].fileno(), 100) == b"through"
        for fd in (*request.fds, *answer.fds):
            fd.close()


def test_3_1_254_descriptors_are_refused_before_anything_is_sent() -> None:
    session = new_session()
    for send in (
        lambda: session.send_request(0, "m", [Lender()] * 254),
        lambda: session.send_notify("m", [Lender()] * 254),
        lambda: session.send_result(0, [Lender()] * 254),
    ):
        with pytest.raises(LocalProtocolError, match="at most 253 descriptors"):
            send()
    assert not session.calls
    assert len(session.send_request(0, "m", [Lender()] * 253)[1][1]) == 253


def test_3_1_an_index_out_of_range_is_malformed() -> None:
    assert "descriptor 1 is referred to, but 1 came" in is_malformed(
        new_session(), packet(0, 1, "m", [Lender(), Lender()]), descriptors=1
    )


def test_3_1_descriptor_referred_to_twice_is_malformed() -> None:
    data = b"\x94\x00\x01\xa1m\x92\xd4\x01\x00\xd4\x01\x00"
    assert "descriptor 0 is referred to twice" in is_malformed(new_session(), data, descriptors=1)


def test_3_1_a_descriptor_that_is_not_referred_to_is_malformed() -> None:
    messages: list[tuple[Any, ...]] = [(0, 1, "m", []), (1, 1, None, None), (2, "m", []), (3, 1), (5, "going")]
    for message in messages:
        assert "1 descriptors came, 0 of them" in is_malformed(new_session(), packet(*message), descriptors=1)


def test_1_4_an_unknown_kind_is_ignored_with_its_descriptors() -> None:
    with owned(1) as fds:
        every = list(fds)
        assert receive(new_session(), 9, "from a later protocol", fds=fds) is None
        assert every[0].closed


@pytest.mark.parametrize(
    "data, reason",
    [
        (packet(0, 7, "S.m", []), "2 descriptors came, 0 of them are referred to"),
        (packet(0, 7, "S.m", [Lender()]), "2 descriptors came, 1 of them are referred to"),
        (packet(0, 7, "S.m", [Lender(), Lender()]) + b"\x00", "extra data"),
        (packet(0, 7, "S.m", [msgpack.ExtType(9, b"x")]), "unknown extension type 9"),
        (packet(0, 7, "S.m", [msgpack.ExtType(4, b"\x00")]), "a reference to a buffer has 17 bytes, this one 1"),
        (packet(2, "S.m", [msgpack.ExtType(2, b"\x05")]), "descriptor 5 is referred to, but 2 came"),
    ],
)
def test_1_5_what_is_short_and_malformed_is_so_also_if_nobody_wants_it(data: bytes, reason: str) -> None:
    session = new_session(living=Nobody(), refusal=refuse)
    with owned(2) as fds:
        every = list(fds)
        with pytest.raises(RemoteProtocolError, match=reason):
            session.receive_packet(data, fds)
        assert all(fd.closed for fd in every)


def test_maps_of_what_nobody_wants_need_not_be_made() -> None:
    session = new_session(refusal=refuse)
    event = session.receive_packet(packet(0, 7, "S.m", [{1: 2}], {}), [])
    assert isinstance(event, Refused)
    for data, reason in (
        (packet(0, 8, "S.m", 5), "params"),
        (packet(1, 7, ["a.b", "", None], 1), "an error or a result"),
    ):
        with pytest.raises(RemoteProtocolError, match=reason):
            session.receive_packet(data, [])


def test_3_1_an_unreferenced_descriptor_of_a_response_does_not_cost_its_call() -> None:
    session = new_session()
    session.send_request("waiter", "m", ())
    is_malformed(session, packet(1, 0, None, None))
    assert session.lose() == ["waiter"]


def test_4_an_unknown_extension_is_malformed() -> None:
    assert "unknown extension type 5" in is_malformed(
        new_session(), b"\x94\x00\x01\xa1m\x91\xd4\x05\x00", descriptors=0
    )


def test_3_3_a_request_that_lost_descriptors_is_answered_with_that() -> None:
    session = new_session()
    refused = receive(session, 0, 7, "m", [Lender()], lost=True)
    assert isinstance(refused, Refused)
    assert (refused.call_id, refused.method, refused.code) == (7, "m", "rpc.DescriptorsLost")
    assert set(session.requests) == {7}, "it is to be answered"
    session.send_error(7, refused.code, refused.message)
    assert request_in_flight(session, 7).call_id == 7, "the connection lives on"


def test_3_3_loss_is_told_before_closing_and_overload() -> None:
    session = new_session(Limits(max_calls_in_flight=1))
    request_in_flight(session, 1)
    session.send_closing("going")
    refused = receive(session, 0, 2, "m", [Lender()], lost=True)
    assert isinstance(refused, Refused)
    assert refused.code == "rpc.DescriptorsLost"


@pytest.mark.parametrize("error", [None, ["a.B", "text", [Lender()]]])
def test_3_3_a_response_that_lost_descriptors_fails_its_call_with_that(error: Any) -> None:
    session = new_session()
    session.send_request("waiter", "m", ())
    answer = receive(session, 1, 0, error, None if error else Lender(), lost=True)
    assert isinstance(answer, Response)
    assert answer.waiter == "waiter"
    assert answer.error is not None
    error = error_of(answer.error)
    assert (type(error), error.execution) == (DescriptorsLost, Execution.RAN)
    assert (answer.result, answer.fds) == (None, [])


def test_3_3_a_notify_that_lost_descriptors_is_dropped() -> None:
    session = new_session()
    refused = receive(session, 2, "m", [Lender()], lost=True)
    assert isinstance(refused, Refused)
    assert (refused.call_id, refused.code, session.requests) == (None, "rpc.DescriptorsLost", {})


def test_3_3_what_never_had_descriptors_is_taken_as_it_is() -> None:
    session = new_session()
    request_in_flight(session, 1)
    assert isinstance(receive(session, 3, 1, lost=True), Cancel)
    assert isinstance(receive(session, 5, "going", lost=True), Closing)
    assert receive(session, 9, lost=True) is None
    assert receive(session, 1, 5, None, Lender(), lost=True) is None


def test_3_3_a_packet_that_lost_descriptors_may_still_be_malformed() -> None:
    with pytest.raises(RemoteProtocolError):
        new_session().receive_packet(b"\x94\x00\x01\x05\x90", [], lost=True)


def test_a_call_that_cannot_be_sent_changes_nothing() -> None:
    session = new_session()
    with pytest.raises(LocalProtocolError, match=r"cannot send params\[0\]: a value of type object cannot be sent"):
        session.send_request(0, "m", (object(),))
    with pytest.raises(LocalProtocolError, match="nested"):
        session.send_notify("m", [deep()])
    with pytest.raises(LocalProtocolError, match=r"cannot send options\['meta'\]\['a'\]"):
        session.send_request(0, "m", (), {"meta": {"a": "\udcff"}})
    assert not session.calls
    assert session.send_request(0, "m", ())[0] == 0


def deep() -> Any:
    value: Any = 1
    for _ in range(100):
        value = [value]
    return value


def test_descriptors_are_closed_also_when_something_else_fails() -> None:
    class Interrupted(BaseException):
        pass

    class Interrupting(dict[int, str]):
        def pop(self, *_args: Any) -> Any:
            raise Interrupted

    session = new_session()
    session.calls = Interrupting({0: "waiter"})
    with owned(1) as fds:
        every = list(fds)
        with pytest.raises(Interrupted):
            receive(session, 1, 0, None, Lender(), fds=fds)
        assert every[0].closed


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"\x91" * MAX_PACKET,
        lambda: (b"\x94\x00\x01\xa1m" + b"\xdd\x00\x00\xff\x00" * 62).ljust(MAX_PACKET, b"\xc0"),
        lambda: (b"\xdd\xff\xff\xff\xff").ljust(MAX_PACKET, b"\xc0"),
        lambda: (b"\x94\x00\x01\xa1m" + b"\x81" * 60).ljust(MAX_PACKET, b"\xc0"),
    ],
    ids=["deep", "lies", "long", "keys"],
)
def test_the_nastiest_packets_are_refused_without_much_memory(make: Callable[[], bytes]) -> None:
    session = new_session()
    data = make()
    assert peak_bytes(lambda: is_malformed(session, data, 0)) < 4 * MAX_PACKET


@PROPERTY
@given(values(), st.sampled_from(["request", "result", "error", "notify"]))
def test_values_pass_through_every_kind_of_message(value: Any, kind: str) -> None:
    pair = SessionPair()
    caller, callee = pair.sessions
    if kind == "notify":
        event = pair.send_and_deliver(0, caller.send_notify("m", [value]))
        assert isinstance(event, Request)
        assert event.params == [value]
        return
    call_id, call = caller.send_request("waiter", "m", {"value": value})
    event = pair.send_and_deliver(0, call)
    assert isinstance(event, Request)
    assert event.params == {"value": value}
    if kind == "request":
        return
    sent = callee.send_result(call_id, value) if kind == "result" else callee.send_error(call_id, "a.B", "", value)
    answer = pair.send_and_deliver(1, sent)
    assert isinstance(answer, Response)
    assert (answer.result if kind == "result" else (answer.error or [])[2]) == value
