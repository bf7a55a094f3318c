"""Sections 1 to 3 of the protocol as a session keeps them.

The socket's own rules (``MSG_TRUNC``, ``MSG_EOR``, the end of the connection, close-on-exec) are the kernel floor's and
the transport's, and tested there.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import pytest
from helpers import (
    PROPERTY,
    Lender,
    SessionPair,
    address_space_used_up,
    memory_file,
    on_the_way,
    owned,
    peak_bytes,
    values,
    write_only,
)
from hypothesis import given
from hypothesis import strategies as st

from seqrpc.errors import DescriptorsLost, LocalProtocolError, RemoteProtocolError, RpcError, TooLarge
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.memfd import Pieces
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.codec import Codec
from seqrpc.protocol.messages import MAX_CALL_ID, Cancel, Closing, Options, Request, Response
from seqrpc.protocol.session import Refused, Session, error_of
from seqrpc.protocol.values import EXT_STREAM, Handle, Handles

encode = Codec().encode


def packet(*message: Any) -> bytes:
    """Return what another implementation might send."""
    return bytes(encode(message)[0])


def receive(session: Session[Any], *message: Any, fds: list[OwnedFd] | None = None, lost: bool = False) -> Any:
    return session.receive_packet(packet(*message), [] if fds is None else fds, lost=lost)


def request_in_flight(session: Session[Any], call_id: int = 1) -> Request:
    request = receive(session, 0, call_id, "m", [])
    assert isinstance(request, Request)
    return request


def is_malformed(session: Session[Any], data: bytes, descriptors: int = 1) -> str:
    """Check that a packet is malformed, its descriptors are closed and nothing has changed; return the reason."""
    before = (dict(session.calls), set(session.requests), session.closing_received)
    with owned(descriptors) as fds:
        every = list(fds)
        with pytest.raises(RemoteProtocolError) as caught:
            session.receive_packet(data, fds)
        assert all(fd.closed for fd in every)
    assert (session.calls, session.requests, session.closing_received) == before
    return str(caught.value)


def test_1_1_one_packet_is_one_message_from_either_end() -> None:
    pair = SessionPair()
    for side in (0, 1):
        call_id, call = pair.sessions[side].send_request("waiter", "m", (1, "a"))

        request = pair.send_and_deliver(side, call)
        assert isinstance(request, Request)
        assert (request.call_id, request.method, request.params) == (call_id, "m", [1, "a"])
        answer = pair.send_and_deliver(1 - side, pair.sessions[1 - side].send_result(call_id, {"b": 2}))

        assert isinstance(answer, Response)
        assert (answer.waiter, answer.error, answer.result) == ("waiter", None, {"b": 2})


def test_1_1_a_packet_of_two_messages_is_malformed() -> None:
    assert "extra data" in is_malformed(Session(), packet(3, 1) + packet(3, 1), 0)


@pytest.mark.parametrize(
    "data", [b"", b"\xc0", b"\x90", b"\x80", b"\x91\xff", b"\x91\xa1\x30", b"\xc1", b"\x94\x00\x01"]
)
def test_1_5_a_malformed_packet_changes_nothing_and_its_descriptors_are_closed(data: bytes) -> None:
    assert is_malformed(Session(), data, 3)


def test_1_5_a_packet_of_the_wrong_shape_is_malformed_and_its_descriptors_are_closed() -> None:
    assert "params" in is_malformed(Session(), packet(0, 1, "m", Lender()))
    assert "options" in is_malformed(Session(), packet(2, "m", [], [Lender()]))
    assert "an id" in is_malformed(Session(), packet(3, Lender()))
    assert "reason" in is_malformed(Session(), packet(5, Lender()))


def test_1_5_no_other_connection_notices_a_malformed_packet() -> None:
    one, other = Session[Any](), Session[Any]()
    request_in_flight(other)
    is_malformed(one, b"\xc1")
    assert other.requests == {1}


def test_1_2_messages_as_large_as_a_packet_fit_into_one_and_larger_ones_are_spilled() -> None:
    pair = SessionPair()
    session = pair.sessions[0]
    for size, held_bytes in ((MAX_PACKET, 0), (MAX_PACKET + 1, MAX_PACKET + 1), (1_000_000, 1_000_000)):
        text = "x" * (size - (9 if size < 65_545 else 11))
        call_id, call = session.send_request(0, "m", (text,))
        assert len(call[0]) == size
        request = pair.send_and_deliver(0, call)
        assert isinstance(request, Request)
        assert (request.call_id, request.params, request.fds) == (call_id, [text], [])
        assert request.held_bytes == held_bytes
        answer = pair.send_and_deliver(1, pair.sessions[1].send_result(call_id, request.params))
        assert isinstance(answer, Response)
        assert answer.result == request.params
        notify = pair.send_and_deliver(0, session.send_notify("m", request.params))
        assert isinstance(notify, Request)
        assert (notify.call_id, notify.params) == (None, request.params)


def test_messages_beyond_max_message_bytes_are_not_sent() -> None:
    session = Session[int](Limits(max_message_bytes=MAX_PACKET))
    for send in (
        lambda: session.send_request(1, "m", ("x" * MAX_PACKET,)),
        lambda: session.send_notify("x" * MAX_PACKET, ()),
    ):
        with pytest.raises(TooLarge):
            send()
    assert session.calls == {}, "a call that was not sent is not in flight"


@pytest.mark.parametrize("kind", [6, 7, 127, 2**32, 2**64 - 1])
def test_1_4_unknown_kinds_are_ignored_and_their_descriptors_closed(kind: int) -> None:
    session = Session[Any]()
    for message in ((kind, Lender()), (kind, [Lender()], {"a": 1}), (kind, Lender(), Lender())):
        with owned(2) as fds:
            every = list(fds)
            assert session.receive_packet(packet(*message), fds) is None
            assert all(fd.closed for fd in every)


def test_1_4_what_unknown_kinds_do_with_extensions_is_their_own_business() -> None:
    assert Session[Any]().receive_packet(b"\x92\x06\xd4\x63\x00", []) is None


def test_1_4_unknown_options_are_ignored() -> None:
    request = receive(Session[Any](), 0, 1, "m", [], {"priority": [1], "deadline": 5})
    assert isinstance(request, Request)
    assert request.options == Options(deadline=5)


def test_1_4_a_descriptor_in_an_unknown_option_belongs_to_the_request() -> None:
    with owned(1) as fds:
        request = receive(Session[Any](), 0, 1, "m", [], {"future": Lender()}, fds=fds)
        assert isinstance(request, Request)
        assert request.fds == fds
        assert not fds[0].closed


def test_2_1_ids_of_calls_in_flight_are_all_different() -> None:
    session = Session[int]()
    ids = [session.send_request(number, "m", ())[0] for number in range(100)]
    assert len(set(ids)) == 100
    assert session.calls == dict(zip(ids, range(100), strict=True))


def test_2_1_ids_begin_again_after_the_last_and_step_over_those_in_flight() -> None:
    session = Session[str]()
    assert [session.send_request(waiter, "m", ())[0] for waiter in ("a", "b")] == [0, 1]
    session._next_id = 0xFFFF_FFFF

    assert session.send_request("last", "m", ())[0] == 0xFFFF_FFFF
    assert session.send_request("next", "m", ())[0] == 2


def test_2_1_the_id_of_a_call_that_was_given_up_is_not_used_again_until_it_is_answered() -> None:
    session = Session[str]()
    for waiter in ("a", "b"):
        session.send_request(waiter, "m", ())
    session.send_cancel(0)
    session._next_id = 0
    assert session.send_request("c", "m", ())[0] == 2, "0 is cancelled, 1 in flight: the other side owes both an answer"

    assert receive(session, 1, 0, ["rpc.Cancelled", "", None], None) is None
    session._next_id = 0
    assert session.send_request("d", "m", ())[0] == 0


def test_2_1_the_ids_of_the_two_ends_are_independent() -> None:
    pair = SessionPair()
    for side in (0, 1):
        call_id, call = pair.sessions[side].send_request(f"side {side}", "m", ())
        assert call_id == 0
        assert isinstance(pair.send_and_deliver(side, call), Request)
    for side in (0, 1):
        answer = pair.send_and_deliver(side, pair.sessions[side].send_result(0, side))
        assert isinstance(answer, Response)
        assert (answer.waiter, answer.result) == (f"side {1 - side}", side)


def test_2_1_a_request_whose_id_is_in_flight_is_malformed() -> None:
    session = Session[Any]()
    request_in_flight(session, 7)
    assert "id 7 is in flight already" in is_malformed(session, packet(0, 7, "m", [Lender()]))

    session.send_result(7, None)
    assert request_in_flight(session, 7).call_id == 7


@pytest.mark.parametrize("send_closing", [False, True])
def test_2_1_a_refused_request_is_in_flight_until_it_is_answered(send_closing: bool) -> None:
    session = Session[Any](Limits(max_calls_in_flight=1))
    if send_closing:
        session.send_closing("going")
    else:
        request_in_flight(session, 1)
    assert isinstance(receive(session, 0, 7, "m", []), Refused)
    assert "in flight already" in is_malformed(session, packet(0, 7, "m", []), 0)
    session.send_error(7, "rpc.Overloaded", "")
    assert isinstance(receive(session, 0, 7, "m", []), Refused)


def test_2_1_a_response_to_nothing_in_flight_is_ignored_and_its_descriptors_closed() -> None:
    session = Session[str]()
    session.send_request("waiter", "m", ())
    with owned(1) as fds:
        every = list(fds)
        assert receive(session, 1, 99, None, Lender(), fds=fds) is None
        assert every[0].closed
    assert session.calls == {0: "waiter"}


def test_2_1_a_second_response_is_ignored() -> None:
    session = Session[str]()
    session.send_request("waiter", "m", ())
    assert isinstance(receive(session, 1, 0, None, 1), Response)
    assert receive(session, 1, 0, None, 2) is None


def test_2_3_params_travel_by_position_and_by_name() -> None:
    for params, arrived in (((1, 2), [1, 2]), ([1, 2], [1, 2]), ({"a": 1}, {"a": 1}), ((), []), ({}, {})):
        pair = SessionPair()
        request = pair.send_and_deliver(0, pair.sessions[0].send_request(0, "m", params)[1])
        assert isinstance(request, Request)
        assert request.params == arrived
        notify = pair.send_and_deliver(0, pair.sessions[0].send_notify("m", params))
        assert isinstance(notify, Request)
        assert notify.params == arrived


def test_2_4_options_travel_with_requests_and_notifications() -> None:
    options = {"deadline": 10**15, "meta": {"trace": "1-2"}}
    pair = SessionPair()
    for sent in (pair.sessions[0].send_request(0, "m", (), options)[1], pair.sessions[0].send_notify("m", (), options)):
        request = pair.send_and_deliver(0, sent)
        assert isinstance(request, Request)
        assert request.options == Options(deadline=10**15, meta={"trace": "1-2"})


def test_2_4_a_call_without_options_has_no_place_for_them() -> None:
    session = Session[int]()
    assert session.send_request(0, "m", ())[1][0] == packet(0, 0, "m", [])
    assert session.send_request(0, "m", (), {})[1][0] == packet(0, 1, "m", [])
    assert session.send_notify("m", ())[0] == packet(2, "m", [])
    assert session.send_notify("m", (), {})[0] == packet(2, "m", [])


def test_2_5_an_error_comes_back_with_code_message_and_data() -> None:
    pair = SessionPair()
    call_id, call = pair.sessions[0].send_request("waiter", "m", ())
    pair.send_and_deliver(0, call)

    answer = pair.send_and_deliver(1, pair.sessions[1].send_error(call_id, "bank.Empty", "no money", {"left": 3}))

    assert isinstance(answer, Response)
    assert answer.error == ["bank.Empty", "no money", {"left": 3}]
    assert answer.result is None
    assert not pair.sessions[1].requests
    error = error_of(answer.error)
    assert type(error) is RpcError
    assert (error.code, error.message, error.data, error.remote) == ("bank.Empty", "no money", {"left": 3}, True)


def test_2_5_a_request_whose_result_cannot_be_sent_is_still_to_be_answered() -> None:
    session = Session[Any](Limits(max_message_bytes=MAX_PACKET))
    for result, kind in (
        (object(), LocalProtocolError),
        ("x" * MAX_PACKET, TooLarge),
        ([Lender()] * 254, LocalProtocolError),
    ):
        request_in_flight(session)
        with pytest.raises(kind):
            session.send_result(1, result)
        assert session.requests == {1}
        assert session.send_error(1, "rpc.Internal", "")[0] == packet(1, 1, ["rpc.Internal", "", None], None)
        assert not session.requests


@pytest.mark.parametrize("data", [object(), "x" * MAX_PACKET, "\udcff", [[Lender()] * 254], 2**64], ids=type)
def test_2_5_an_error_whose_data_cannot_be_sent_goes_without(data: Any) -> None:
    session = Session[Any](Limits(max_message_bytes=MAX_PACKET))
    request_in_flight(session)
    assert session.send_error(1, "a.B", "text", data)[0] == packet(1, 1, ["a.B", "text", None], None)
    assert not session.requests


def test_2_5_an_error_whose_text_cannot_be_sent_goes_with_what_can_be() -> None:
    session = Session[Any](Limits(max_message_bytes=MAX_PACKET))
    assert session.send_error(1, "a.B", "\udcff" + "x" * 5_000)[0] == packet(
        1, 1, ["a.B", "\\udcff" + "x" * 999, None], None
    )
    assert session.send_error(1, "a.B", "é" * MAX_PACKET)[0] == packet(1, 1, ["a.B", "é" * 1_000, None], None)
    assert session.send_error(1, "a\ud800", "text")[0] == packet(1, 1, ["a\\ud800", "text", None], None)


def test_2_5_descriptors_may_be_an_errors_data() -> None:
    pair = SessionPair()
    _, call = pair.sessions[0].send_request("waiter", "m", ())
    pair.send_and_deliver(0, call)
    with open(os.devnull) as file:
        answer = pair.send_and_deliver(1, pair.sessions[1].send_error(0, "a.B", "", [file]))
        assert isinstance(answer, Response)
        assert answer.error is not None
        (fd,) = answer.fds
        assert answer.error[2] == [fd]
        assert os.path.sameopenfile(fd.fileno(), file.fileno())
        fd.close()


def test_2_5_a_notify_has_no_id_and_leaves_nothing_in_flight() -> None:
    pair = SessionPair()
    notify = pair.send_and_deliver(0, pair.sessions[0].send_notify("m", (1,)))
    assert isinstance(notify, Request)
    assert notify.call_id is None
    assert not pair.sessions[0].calls
    assert not pair.sessions[1].requests


def test_2_6_a_cancel_names_a_request_in_flight_which_is_still_answered() -> None:
    pair = SessionPair()
    call_id, call = pair.sessions[0].send_request("waiter", "m", ())
    pair.send_and_deliver(0, call)

    cancel = pair.send_and_deliver(0, pair.sessions[0].send_cancel(call_id))

    assert isinstance(cancel, Cancel)
    assert cancel.call_id == call_id
    assert pair.sessions[1].requests == {call_id}
    assert pair.send_and_deliver(1, pair.sessions[1].send_error(call_id, "rpc.Cancelled", "")) is None
    assert not pair.sessions[1].requests


def test_2_6_a_cancel_of_what_is_not_in_flight_is_ignored() -> None:
    session = Session[Any]()
    request_in_flight(session, 1)
    assert receive(session, 3, 2) is None
    session.send_result(1, None)
    assert receive(session, 3, 1) is None


def test_2_6_a_call_that_was_answered_or_given_up_is_not_cancelled() -> None:
    session = Session[str]()
    session.send_request("a", "m", ())
    session.send_request("b", "m", ())
    receive(session, 1, 0, None, None)
    assert session.send_cancel(0) is None
    assert session.send_cancel(1) is not None
    assert session.send_cancel(1) is None
    assert session.send_cancel(2) is None


def test_2_7_requests_come_out_in_the_order_in_which_they_were_sent() -> None:
    pair = SessionPair()
    for number in range(10):
        pair.post(0, pair.sessions[0].send_request(number, "m", (number,))[1])
    order = [pair.deliver(0) for _ in range(10)]
    assert [request.params for request in order if isinstance(request, Request)] == [[number] for number in range(10)]


def test_2_7_answers_may_come_in_any_order() -> None:
    pair = SessionPair()
    for number in range(3):
        pair.send_and_deliver(0, pair.sessions[0].send_request(f"waiter {number}", "m", ())[1])
    for number in (2, 0, 1):
        answer = pair.send_and_deliver(1, pair.sessions[1].send_result(number, number))
        assert isinstance(answer, Response)
        assert (answer.waiter, answer.result) == (f"waiter {number}", number)


def test_2_8_after_closing_old_requests_are_answered_and_new_ones_refused() -> None:
    pair = SessionPair()
    pair.send_and_deliver(0, pair.sessions[0].send_request("old", "m", ())[1])

    closing = pair.send_and_deliver(1, pair.sessions[1].send_closing("going"))
    assert isinstance(closing, Closing)
    assert closing.reason == pair.sessions[0].closing_received == "going"

    with open(os.devnull) as file:
        refused = pair.send_and_deliver(0, pair.sessions[0].send_request("new", "m", (file,))[1])
        assert isinstance(refused, Refused)
        assert (refused.call_id, refused.code) == (1, "rpc.Unavailable")
        assert pair.received[0].closed
        assert pair.send_and_deliver(0, pair.sessions[0].send_notify("m", (file,))) is None
        assert pair.received[1].closed
    answer = pair.deliver(1)
    assert isinstance(answer, Response)
    assert answer.waiter == "new"
    answer = pair.send_and_deliver(1, pair.sessions[1].send_result(0, 5))
    assert isinstance(answer, Response)
    assert (answer.waiter, answer.result) == ("old", 5)


def test_2_8_the_side_that_closes_may_still_call() -> None:
    pair = SessionPair()
    pair.send_and_deliver(0, pair.sessions[0].send_closing("going"))
    assert isinstance(pair.send_and_deliver(0, pair.sessions[0].send_request(0, "m", ())[1]), Request)


def test_2_8_closing_is_sent_once_and_the_first_reason_counts() -> None:
    session = Session[Any]()
    assert session.closing_received is None
    assert session.send_closing("\udcff" * 2_000) == encode((5, "\\udcff" * 1_000))
    assert session.send_closing("again") is None

    assert isinstance(receive(session, 5, "first"), Closing)
    assert isinstance(receive(session, 5, "second"), Closing)
    assert session.closing_received == "first"


def test_2_9_more_calls_than_allowed_are_overload_and_their_descriptors_closed() -> None:
    session = Session[Any](Limits(max_calls_in_flight=2))
    for call_id in (1, 2):
        request_in_flight(session, call_id)
    with owned(1) as fds:
        every = list(fds)
        refused = receive(session, 0, 3, "m", [Lender()], fds=fds)
        assert every[0].closed
    assert isinstance(refused, Refused)
    assert (refused.call_id, refused.code) == (3, "rpc.Overloaded")
    assert refused.message == "more than 2 calls of this connection are in flight"
    session.send_error(3, refused.code, refused.message)

    session.send_result(1, None)
    assert isinstance(receive(session, 0, 3, "m", []), Request)
    assert isinstance(receive(session, 2, "m", []), Request), "a notification is none of them"


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
    session = Session[Any]()
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
        Session(), packet(0, 1, "m", [Lender(), Lender()]), descriptors=1
    )


def test_3_1_descriptor_referred_to_twice_is_malformed() -> None:
    data = b"\x94\x00\x01\xa1m\x92\xd4\x01\x00\xd4\x01\x00"
    assert "descriptor 0 is referred to twice" in is_malformed(Session(), data, descriptors=1)


def test_3_1_a_descriptor_that_is_not_referred_to_is_malformed() -> None:
    messages: list[tuple[Any, ...]] = [(0, 1, "m", []), (1, 1, None, None), (2, "m", []), (3, 1), (5, "going")]
    for message in messages:
        assert "1 descriptors came, 0 of them" in is_malformed(Session(), packet(*message), descriptors=1)


def test_1_4_an_unknown_kind_is_ignored_with_its_descriptors() -> None:
    with owned(1) as fds:
        every = list(fds)
        assert receive(Session(), 9, "from a later protocol", fds=fds) is None
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
    session = refusing(Session[Any](living=Nobody()))
    with owned(2) as fds:
        every = list(fds)
        with pytest.raises(RemoteProtocolError, match=reason):
            session.receive_packet(data, fds)
        assert all(fd.closed for fd in every)


def test_maps_of_what_nobody_wants_need_not_be_made() -> None:
    session = refusing(Session[Any]())
    event = session.receive_packet(packet(0, 7, "S.m", [{1: 2}], {}), [])
    assert isinstance(event, Refused)
    for data, reason in (
        (packet(0, 8, "S.m", 5), "params"),
        (packet(1, 7, ["a.b", "", None], 1), "an error or a result"),
    ):
        with pytest.raises(RemoteProtocolError, match=reason):
            session.receive_packet(data, [])


def test_3_1_an_unreferenced_descriptor_of_a_response_does_not_cost_its_call() -> None:
    session = Session[str]()
    session.send_request("waiter", "m", ())
    is_malformed(session, packet(1, 0, None, None))
    assert session.lose() == ["waiter"]


def test_4_an_unknown_extension_is_malformed() -> None:
    assert "unknown extension type 5" in is_malformed(Session(), b"\x94\x00\x01\xa1m\x91\xd4\x05\x00", descriptors=0)


def test_3_3_a_request_that_lost_descriptors_is_answered_with_that() -> None:
    session = Session[Any]()
    refused = receive(session, 0, 7, "m", [Lender()], lost=True)
    assert isinstance(refused, Refused)
    assert (refused.call_id, refused.code) == (7, "rpc.DescriptorsLost")
    assert session.requests == {7}, "it is to be answered"
    session.send_error(7, refused.code, refused.message)
    assert request_in_flight(session, 7).call_id == 7, "the connection lives on"


def test_3_3_loss_is_told_before_closing_and_overload() -> None:
    session = Session[Any](Limits(max_calls_in_flight=1))
    request_in_flight(session, 1)
    session.send_closing("going")
    refused = receive(session, 0, 2, "m", [Lender()], lost=True)
    assert isinstance(refused, Refused)
    assert refused.code == "rpc.DescriptorsLost"


@pytest.mark.parametrize("error", [None, ["a.B", "text", [Lender()]]])
def test_3_3_a_response_that_lost_descriptors_fails_its_call_with_that(error: Any) -> None:
    session = Session[str]()
    session.send_request("waiter", "m", ())
    answer = receive(session, 1, 0, error, None if error else Lender(), lost=True)
    assert isinstance(answer, Response)
    assert answer.waiter == "waiter"
    assert answer.error is not None
    assert isinstance(error_of(answer.error), DescriptorsLost)
    assert (answer.result, answer.fds) == (None, [])


def test_3_3_a_notify_that_lost_descriptors_is_dropped() -> None:
    assert receive(Session[Any](), 2, "m", [Lender()], lost=True) is None


def test_3_3_what_never_had_descriptors_is_taken_as_it_is() -> None:
    session = Session[Any]()
    request_in_flight(session, 1)
    assert isinstance(receive(session, 3, 1, lost=True), Cancel)
    assert isinstance(receive(session, 5, "going", lost=True), Closing)
    assert receive(session, 9, lost=True) is None
    assert receive(session, 1, 5, None, Lender(), lost=True) is None


def test_3_3_a_packet_that_lost_descriptors_may_still_be_malformed() -> None:
    with pytest.raises(RemoteProtocolError):
        Session[Any]().receive_packet(b"\x94\x00\x01\x05\x90", [], lost=True)


LARGE = "x" * MAX_PACKET


def spilled_packet(length: int, call_id: int | None = None) -> bytes:
    """Return the packet that comes with a memory file."""
    return packet(4, length) if call_id is None else packet(4, length, call_id)


def receive_spilled(
    session: Session[Any], message: tuple[Any, ...], *, call_id: int | None = None, more: Sequence[OwnedFd] = ()
) -> Any:
    """Let a session receive a message as a memory file, with more descriptors, and check that the file is closed."""
    data = packet(*message)
    file = memory_file(data)
    try:
        return session.receive_packet(spilled_packet(len(data), call_id), [file, *more])
    finally:
        assert file.closed


def test_5_1_the_packet_of_a_spilled_message_has_its_length_and_the_id_of_a_call() -> None:
    session = Session[Any]()
    for message, call_id in (
        ((0, 7, "m", [LARGE]), [7]),
        ((1, MAX_CALL_ID, None, LARGE), [MAX_CALL_ID]),
        ((2, "m", [LARGE]), []),
        ((2, 5, LARGE), []),
        ((5, LARGE), []),
        ((3, 1), []),
    ):
        data = encode(message)[0]
        assert session.spill(data) == packet(4, len(data), *call_id)
    assert session.spill(b"\xc0" * 70_000) == packet(4, 70_000)


def test_5_1_a_message_s_own_descriptors_follow_its_memory_file() -> None:
    pair = SessionPair()
    reader, writer = os.pipe()
    with OwnedFd(reader), OwnedFd(writer):
        call_id, call = pair.sessions[0].send_request(
            "waiter", "m", {"w": Lender(writer), "r": Lender(reader), "x": LARGE}
        )
        request = pair.send_and_deliver(0, call)
        assert isinstance(request, Request)
        assert isinstance(request.params, dict)
        assert request.fds == [request.params["w"], request.params["r"]]
        os.write(request.params["w"].fileno(), b"through")
        answer = pair.send_and_deliver(1, pair.sessions[1].send_result(call_id, [request.params["r"], LARGE]))
        assert isinstance(answer, Response)
        assert os.read(answer.result[0].fileno(), 100) == b"through"
        for fd in (*request.fds, *answer.fds):
            fd.close()


def test_5_1_messages_of_every_kind_may_be_spilled_whatever_their_size() -> None:
    session = Session[str]()
    session.send_request("waiter", "m", ())
    assert isinstance(receive_spilled(session, (0, 7, "m", [])), Request)
    assert isinstance(receive_spilled(session, (2, "m", [])), Request)
    assert isinstance(receive_spilled(session, (1, 0, None, 1)), Response)
    assert isinstance(receive_spilled(session, (3, 7)), Cancel)
    assert isinstance(receive_spilled(session, (5, "going")), Closing)
    assert receive_spilled(session, (6, "future")) is None


def test_5_1_a_spilled_message_inside_a_spilled_message_is_malformed() -> None:
    session = Session[Any]()
    with owned(1) as fds, pytest.raises(RemoteProtocolError, match="one of kind 4 has 3 bytes and 1 descriptors"):
        receive_spilled(session, (4, 100), more=fds)
    with pytest.raises(RemoteProtocolError, match="a spilled message inside a spilled message"):
        receive_spilled(session, (4, 100))
    with pytest.raises(RemoteProtocolError, match="a spilled message inside a spilled message"):
        receive_spilled(session, (4, 100, 7), call_id=7)
    assert not session.requests


def test_5_1_the_indexes_of_a_spilled_message_are_counted_from_the_one_after_the_memfd() -> None:
    with owned(1) as fds:
        request = receive_spilled(Session[Any](), (0, 7, "m", [Lender()]), more=fds)
        assert isinstance(request, Request)
        assert request.params == request.fds == fds
    for message, number in (((0, 7, "m", [Lender(), Lender()]), 1), ((0, 7, "m", []), 1)):
        with owned(number) as fds:
            with pytest.raises(RemoteProtocolError, match="referred to"):
                receive_spilled(Session[Any](), message, more=fds)
            assert all(fd.closed for fd in fds)


@pytest.mark.parametrize(
    "length, call_id", [(0, None), (-1, 1), ("100", None), (True, None), (100, -1), (100, 2**32), (100, None)], ids=repr
)
def test_5_1_a_malformed_packet_of_a_spilled_message_changes_nothing(length: Any, call_id: Any) -> None:
    is_malformed(Session(), packet(4, length) if call_id is None else packet(4, length, call_id), 2)
    assert is_malformed(Session(), packet(4, 100), 0) == "malformed spilled message: no descriptor came with it"
    assert "2 or 3 elements" in is_malformed(Session(), packet(4, 100, 1, 1))
    assert "2 or 3 elements" in is_malformed(Session(), packet(4))
    assert "a positive integer, got None" in is_malformed(Session(), packet(4, Lender()))


def bad_files(data: bytes) -> dict[str, OwnedFd]:
    """Return what may come in the place of a memory file with a message."""
    with memory_file(data) as good:
        hidden = write_only(good)
    reader, writer = os.pipe()
    os.close(writer)
    return {
        "no seals": memory_file(data, seals=0),
        "all seals but one": memory_file(data, seals=0b0111),
        "seals that let it shrink": memory_file(data, seals=0b1101),
        "too short": memory_file(data[:-1]),
        "too long": memory_file(data + b"\xc0"),
        "sparse and huge": memory_file(data, size=1 << 40),
        "empty": memory_file(),
        "for writing only": hidden,
        "a pipe": OwnedFd(reader),
        "the null device": OwnedFd(os.open(os.devnull, os.O_RDONLY)),
        "a directory": OwnedFd(os.open("/", os.O_RDONLY)),
        "a path only": OwnedFd(os.open("/", os.O_PATH)),
    }


def test_5_2_what_is_no_sealed_memory_file_of_that_length_is_malformed() -> None:
    data = packet(0, 7, "m", [LARGE])
    for call_id in (None, 7):
        for what, file in bad_files(data).items():
            session = Session[Any]()
            with owned(1) as fds:
                others = list(fds)
                with pytest.raises(RemoteProtocolError, match=r"^malformed spilled message: "):
                    session.receive_packet(spilled_packet(len(data), call_id), [file, *fds])
                assert all(fd.closed for fd in (file, *others)), what
            assert not session.requests, what
            assert request_in_flight(session, 7).call_id == 7


def test_5_2_one_over_the_limit_is_never_read_whatever_it_is() -> None:
    session = Session[Any](Limits(max_message_bytes=MAX_PACKET))
    data = packet(0, 7, "m", [LARGE])
    for what, file in bad_files(data).items():
        with pytest.raises(RemoteProtocolError, match=r"that was not read: a message has at most 65536 bytes here"):
            session.receive_packet(spilled_packet(len(data)), [file])
        assert file.closed, what
    for what, file in bad_files(data).items():
        refused = session.receive_packet(spilled_packet(len(data), 7), [file])
        assert isinstance(refused, Refused), what
        assert (refused.call_id, refused.code, file.closed) == (7, "rpc.TooLarge", True), what
        session.send_error(7, refused.code, refused.message)


@pytest.mark.parametrize("written", [True, False], ids=["with id", "without id"])
def test_5_2_a_request_over_the_limit_is_answered_with_too_large_and_the_connection_lives_on(written: bool) -> None:
    session = Session[str](Limits(max_message_bytes=MAX_PACKET))
    session.send_request("of the same id", "m", ())
    with owned(1) as fds:
        every = list(fds)
        refused = receive_spilled(session, (0, 0, "m", [LARGE, Lender()]), call_id=0 if written else None, more=fds)
        assert every[0].closed
    assert isinstance(refused, Refused)
    assert (refused.call_id, refused.code) == (0, "rpc.TooLarge")
    assert "at most 65536 bytes here (max_message_bytes), this one 65550" in refused.message
    assert session.requests == {0}
    session.send_error(0, refused.code, refused.message)
    assert request_in_flight(session, 0).call_id == 0
    assert session.calls == {0: "of the same id"}


@pytest.mark.parametrize("written", [True, False], ids=["with id", "without id"])
def test_5_2_a_response_over_the_limit_fails_its_call_and_the_connection_lives_on(written: bool) -> None:
    session = Session[str](Limits(max_message_bytes=MAX_PACKET))
    session.send_request("waiter", "m", ())
    request_in_flight(session, 0)
    with owned(1) as fds:
        every = list(fds)
        answer = receive_spilled(session, (1, 0, None, [LARGE, Lender()]), call_id=0 if written else None, more=fds)
        assert every[0].closed
    assert isinstance(answer, Response)
    assert answer.waiter == "waiter"
    assert answer.error is not None
    assert isinstance(error_of(answer.error), TooLarge)
    assert (answer.result, answer.fds) == (None, [])
    assert (session.calls, session.requests) == ({}, {0})


@pytest.mark.parametrize(
    "message",
    [
        (2, "m", [LARGE]),
        (5, LARGE),
        (0, -1, "m", [LARGE]),
        (0, 2**32, "m", [LARGE]),
        (0, "1", [LARGE]),
        (3, 1, LARGE),
        (6, 1, LARGE),
        (LARGE,),
        (0, (1,), LARGE),
    ],
    ids=lambda message: repr(message[:2])[:12],
)
def test_5_2_one_over_the_limit_that_no_one_waits_for_closes_the_connection(message: Any) -> None:
    session = Session[Any](Limits(max_message_bytes=MAX_PACKET))
    with owned(1) as fds:
        every = list(fds)
        with pytest.raises(RemoteProtocolError, match="a spilled message that was not read"):
            receive_spilled(session, message, more=fds)
        assert every[0].closed
    assert not session.requests


def test_5_2_the_kind_of_a_message_that_nobody_can_look_at_is_told_by_its_id_where_it_can_be() -> None:
    def told(call_id: int | None, *, asked: Sequence[int] = (), called: int = 0, given_up: bool = False) -> Any:
        session = Session[Any]()
        for number in range(called):
            session.send_request(number, "m", ())
        if given_up:
            session.send_cancel(0)
        for number in asked:
            request_in_flight(session, number)
        event = session.receive_packet(spilled_packet(100_000, call_id), [], lost=True)
        if isinstance(event, Response):
            assert event.error is not None
            assert event.error[0] == "rpc.DescriptorsLost"
            return "answer", event.waiter
        if isinstance(event, Refused):
            assert event.code == "rpc.DescriptorsLost"
            return "request", event.call_id
        return event

    assert told(0) == ("request", 0)
    assert told(5, called=1) == ("request", 5)
    assert told(0, called=1) == ("answer", 0)
    assert told(1, called=2, asked=[1]) == ("answer", 1), "a request of that id is in flight"
    assert told(0, called=1, given_up=True) is None, "the answer to what was given up"
    for call_id, called, asked in ((None, 0, []), (None, 1, []), (0, 1, [1])):  # the last may be either
        with pytest.raises(RemoteProtocolError, match="not read: the memfd of the message was lost on the way in"):
            told(call_id, called=called, asked=asked)
    with pytest.raises(RemoteProtocolError, match="id 7 is in flight already"):
        told(7, asked=[7])


def test_a_message_of_too_many_arrays_and_maps_is_answered_with_too_large_and_the_connection_lives_on() -> None:
    session = Session[str](Limits(max_containers=1_000))
    session.send_request("waiter", "m", ())
    refused = receive_spilled(session, (0, 0, "m", [[]] * MAX_PACKET))
    assert isinstance(refused, Refused)
    assert (refused.call_id, refused.code) == (0, "rpc.TooLarge")
    answer = receive_spilled(session, (1, 0, None, [[]] * MAX_PACKET))
    assert isinstance(answer, Response)
    assert answer.error is not None
    assert answer.error[0] == "rpc.TooLarge"
    assert request_in_flight(session, 1).call_id == 1


def test_5_2_a_message_that_there_is_no_room_for_is_answered_with_overload() -> None:
    session = Session[str]()
    session.send_request("waiter", "m", ())
    size = 60 * 1024 * 1024
    for head, call_id in ((packet(0, 7, "m", [])[:5], 7), (packet(1, 0, None, [])[:3], 0)):
        file = memory_file(head, size=size, whole=True)
        with address_space_used_up():
            event = session.receive_packet(spilled_packet(size, call_id), [file])
        assert file.closed
        if isinstance(event, Refused):
            assert (event.call_id, event.code) == (7, "rpc.Overloaded")
            assert f"no room for a message of {size} bytes" in event.message
        else:
            assert isinstance(event, Response)
            assert event.error is not None
            assert event.error[0] == "rpc.Overloaded"
    assert (session.calls, session.requests) == ({}, {7})


def test_3_3_a_packet_that_lost_descriptors_may_still_hold_a_malformed_spill() -> None:
    with pytest.raises(RemoteProtocolError, match="a positive integer"):
        Session[Any]().receive_packet(packet(4, "x"), [], lost=True)


def test_a_buffer_travels_in_a_request_and_its_descriptor_belongs_to_it() -> None:
    pair = SessionPair()
    buffer = Buffer.copy_of(b"content")
    request = pair.send_and_deliver(0, pair.sessions[0].send_request("waiter", "m", [buffer])[1])
    assert isinstance(request, Request)
    (received,) = request.params
    assert isinstance(received, Buffer)
    close = [fd.fileno() for fd in request.fds]
    assert close == [received.fileno()]
    assert received[:] == b"content"
    received.close()
    buffer.close()


def test_5_3_a_buffer_that_is_not_sealed_is_malformed() -> None:
    data = packet(0, 7, "m", [Buffer.copy_of(b"content")])
    with memory_file(b"content", seals=0) as file:
        with pytest.raises(RemoteProtocolError, match="seals"):
            Session[Any]().receive_packet(data, [file])
        assert file.closed


def test_a_request_with_a_buffer_that_is_not_taken_here_is_refused_and_a_response_fails_its_call() -> None:
    session = Session[str](Limits(max_buffer_bytes=3))
    session.send_request("waiter", "m", ())
    for message in (
        (0, 7, "m", [Buffer.copy_of(b"1234"), Lender()]),
        (1, 0, None, [Buffer.copy_of(b"1234"), Lender()]),
    ):
        data, fds = on_the_way(session, encode(message))
        event = session.receive_packet(data, fds)
        if isinstance(event, Refused):
            assert (event.call_id, event.code) == (7, "rpc.TooLarge")
        else:
            assert isinstance(event, Response)
            assert event.error is not None
            assert event.error[0] == "rpc.TooLarge"
        assert fds == []
    assert (session.calls, session.requests) == ({}, {7})


@pytest.mark.parametrize("lost", [False, True])
def test_what_living_values_raise_comes_through_with_the_descriptors_closed(lost: bool) -> None:
    class Failing(Handles):
        def receive(self, ext_type: int, fd: OwnedFd) -> Any:
            raise ValueError("no such stream")

    session = Session[Any](living=Failing())
    with owned(1) as fds:
        fd = fds[0]
        data = encode((0, 7, "m", [Handle(EXT_STREAM, fd)]))[0]
        if lost:
            fds.pop().close()
            assert isinstance(session.receive_packet(bytes(data), [], lost=True), Refused)
        else:
            with pytest.raises(RemoteProtocolError, match="malformed message: no such stream"):
                session.receive_packet(bytes(data), fds)
            assert fds == []


def test_2_and_9_a_ping_and_its_answer_are_the_bytes_of_section_10() -> None:
    session = Session[Any]()
    request = session.receive_packet(b"\x94\x00\x01\xa8rpc.ping\x90", [])
    assert isinstance(request, Request)
    assert (request.call_id, request.method, request.params) == (1, "rpc.ping", [])
    assert session.send_result(1, None) == (bytes.fromhex("940101c0c0"), [])


def test_a_lost_connection_gives_back_the_waiters_and_forgets_all_ids() -> None:
    session = Session[str]()
    for waiter in ("a", "b", "c"):
        session.send_request(waiter, "m", ())
    request_in_flight(session)
    receive(session, 1, 1, None, None)

    assert session.lose() == ["a", "c"]
    assert (session.calls, session.requests, session.lose()) == ({}, set(), [])


def test_a_call_that_cannot_be_sent_changes_nothing() -> None:
    session = Session[int]()
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

    session = Session[str]()
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
    session = Session[Any]()
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


# Long messages that nobody is to read


def test_a_long_request_of_one_who_is_not_admitted_is_refused_unread() -> None:
    session = Session[str](Limits(max_containers=1))
    asked: list[str] = []
    works: list[int] = []

    def refusal(method: str) -> tuple[str, str]:
        asked.append(method)
        return "rpc.PermissionDenied", f"{method}: this caller is not admitted"

    session.refusal = refusal
    session.on_work = lambda: works.append(1)
    session.on_work()
    works.clear()
    hostile: list[list[int]] = [[] for _ in range(70_000)]  # which reading would find to be too much
    for message, id_ in ((packet(0, 7, "S.m", hostile), 7), (packet(2, "S.n", hostile), None)):
        file = memory_file(message)
        event = session.receive_packet(packet(4, len(message)), [file])
        assert file.closed
        if id_ is None:
            assert event is None
        else:
            assert isinstance(event, Refused)
            assert (event.call_id, event.code, event.message) == (
                7,
                "rpc.PermissionDenied",
                "S.m: this caller is not admitted",
            )
    assert asked == ["S.m", "S.n"]
    assert works == [1, 1]
    assert session.requests == {7}
    bad = packet(0, 1 << 33, "S.m", hostile)
    with pytest.raises(RemoteProtocolError, match="an id is an unsigned 32-bit integer"):
        session.receive_packet(packet(4, len(bad)), [memory_file(bad)])


def test_a_long_request_is_refused_unread_once_closing_was_sent() -> None:
    session = Session[str](Limits(max_containers=1))
    asked: list[str] = []
    session.refusal = asked.append  # which answers None
    session.send_closing("the server is stopping")
    hostile: list[list[int]] = [[] for _ in range(70_000)]  # which reading would find to be too much
    for message, id_ in ((packet(0, 7, "S.m", hostile), 7), (packet(2, "S.n", hostile), None)):
        file = memory_file(message)
        event = session.receive_packet(packet(4, len(message)), [file])
        assert file.closed
        if id_ is None:
            assert event is None
        else:
            assert isinstance(event, Refused)
            assert (event.call_id, event.code) == (7, "rpc.Unavailable")
            session.send_error(event.call_id, event.code, event.message)
    assert asked == []
    assert session.requests == set()


@pytest.mark.parametrize("head", [(9, 1), (1, 5, None)])
def test_a_long_message_that_nobody_waits_for_is_not_read(head: tuple[Any, ...]) -> None:
    session = Session[str](Limits(max_containers=1))
    message = packet(*head, [[] for _ in range(70_000)])
    file = memory_file(message)
    assert session.receive_packet(packet(4, len(message)), [file]) is None
    assert file.closed


def test_a_long_answer_to_a_call_that_was_given_up_frees_its_id() -> None:
    session = Session[str]()
    call_id, _packed = session.send_request("waiter", "m", ())
    session.send_cancel(call_id)
    message = packet(1, call_id, None, "x" * 70_000)
    assert session.receive_packet(packet(4, len(message)), [memory_file(message)]) is None
    assert session.given_up == set()


@pytest.mark.parametrize("message", [(3, "x" * 70_000), (5, "x" * 70_000), (4, "x" * 70_000)])
def test_messages_that_are_never_long_are_malformed_if_they_are(message: tuple[Any, ...]) -> None:
    data = packet(*message)
    with pytest.raises(RemoteProtocolError, match=f"one of kind {message[0]} has {len(data)} bytes and 0 descriptors"):
        Session[str]().receive_packet(packet(4, len(data)), [memory_file(data)])


def buffers(number: int) -> tuple[list[Any], list[OwnedFd]]:
    """Return references to buffers that cannot be mapped as they are, and what they refer to."""
    references = [msgpack.ExtType(4, struct.pack(">BQQ", index, 1, 1 << 20)) for index in range(number)]
    return references, [memory_file(size=2 << 20, whole=True) for _ in range(number)]


@pytest.mark.parametrize("spilled", [False, True])
def test_8_a_ping_is_answered_whatever_came_with_it_and_nothing_is_made_of_that(spilled: bool) -> None:
    session = Session[str]()
    references, fds = buffers(3)
    message = packet(0, 1, "rpc.ping", [*references, "x" * (70_000 if spilled else 1_000)])
    came = [memory_file(message), *fds] if spilled else fds

    def ping() -> None:
        request = session.receive_packet(packet(4, len(message)) if spilled else message, list(came))
        assert isinstance(request, Request)
        assert (request.call_id, request.method, request.params, request.fds) == (1, "rpc.ping", [], [])

    assert peak_bytes(ping) < 1 << 18
    assert all(fd.closed for fd in came)
    assert session.requests == {1}


def test_8_a_ping_that_wants_no_answer_is_in_flight_for_nobody() -> None:
    session = Session[str]()
    request = session.receive_packet(packet(2, "rpc.ping", ["x" * 1_000]), [])
    assert isinstance(request, Request)
    assert (request.call_id, request.params) == (None, [])
    assert session.requests == set()


@pytest.mark.parametrize("spilled", [False, True])
@pytest.mark.parametrize("kind", [3, 5])
def test_2_6_signs_of_anybody_are_malformed_before_anything_is_made_of_them(kind: int, spilled: bool) -> None:
    references, fds = buffers(3)
    message = packet(kind, references)
    came = [memory_file(message), *fds] if spilled else fds

    def receive_sign() -> None:
        with pytest.raises(RemoteProtocolError, match="malformed message"):
            Session[str]().receive_packet(packet(4, len(message)) if spilled else message, list(came))

    assert peak_bytes(receive_sign) < 1 << 18
    assert all(fd.closed for fd in came)


@pytest.mark.parametrize("kind", [3, 5])
def test_2_6_signs_hold_no_maps_and_no_descriptors(kind: int) -> None:
    session = Session[str]()
    assert "holds no maps" in is_malformed(session, packet(kind, {1: 2}), 0)
    good = packet(3, 1) if kind == 3 else packet(5, "a reason")
    assert "1 descriptors came" in is_malformed(Session[str](), good, 1)


# The quick way of packets


KINDS = [b"\x00", b"\x01", b"\xcc\x00", b"\xcc\x01", b"\xd3" + bytes(7) + b"\x01", b"\xcb" + bytes(8)]
KINDS += [b"\xcb\x3f\xf0" + bytes(6), b"\xc2", b"\xc3", b"\xc0", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06", b"\xff"]
IDS = [b"\x00", b"\x01", b"\x02", b"\x03", b"\x07", b"\xcc\x01", b"\xc3", b"\xc2", b"\xca\x3f\x80\x00\x00", b"\xff"]
IDS += [b"\xce\xff\xff\xff\xff", b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00", b"\xc0", b"\xa1m", b"\x91\x01"]
THIRDS = [
    b"\xc0",
    b"\xa1m",
    b"\xa0",
    b"\xc4\x01m",
    b"\xa1\xff",
    b"\x90",
    b"\x93\xa3a.B\xa1x\xc0",
    b"\x07",
    b"\xd9\x01m",
]
FOURTHS = [
    b"\xc0",
    b"\x90",
    b"\x80",
    b"\x92\x01\xa1x",
    b"\xdc\x00\x01\x05",
    b"\x81\xa1a\x01",
    b"\x81\x90\x01",
    b"\xa1p",
]
FOURTHS += [b"\xd4\x01\x00", b"\x91\xd4\x63\x00", b"\xd6\xff\x00\x00\x00\x01", b"\x91\xd7\xff" + b"\xff" * 8]
FOURTHS += [
    b"\x91" * 3 + b"\x90",
    b"\x91" * 70 + b"\x90",
    b"\x92\xcb\x7f\xf8" + bytes(6) + b"\xa1\xff",
    b"\xdd\x7f\xff\xff\xff",
]
FIFTHS = [b"", b"\x80", b"\x81\xa8deadline\x05", b"\xc0", b"\xc1"]
HEADS = [
    b"\x94",
    b"\xdc\x00\x04",
    b"\xdd\x00\x00\x00\x04",
    b"\x93",
    b"\x95",
    b"\x84",
    b"\x82",
    b"\xa4",
    b"\xc4\x04",
    b"\x94\x94",
    b"",
]


def whatever(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def any_of(usual: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return parts of messages: the first of the usual ones mostly, and any value at times."""
    return st.sampled_from(usual[:2]) | st.sampled_from(usual) | st.sampled_from(usual) | values().map(whatever)


PACKETS = (
    st.tuples(
        *(any_of(usual) for usual in (HEADS, KINDS, IDS, THIRDS, FOURTHS)), st.just(b"") | st.sampled_from(FIFTHS)
    ).map(b"".join)
    | st.binary(max_size=12)
    | values().map(whatever)
)


def in_use(limits: Limits, *, closing: bool) -> Session[Any]:
    """Return a session with calls in flight, given up and refused."""
    session = Session[Any](limits)
    for waiter in ("a", "b", "c"):
        session.send_request(waiter, "m", ())
    session.send_cancel(2)
    request_in_flight(session, 3)
    if closing:
        session.send_closing("going")
    return session


def outcome(session: Session[Any], receive_it: Callable[[], Any]) -> tuple[str, ...]:
    """Return all there is to see of a packet's arrival; with types, and NaN equal to itself."""
    try:
        event = receive_it()
    except RemoteProtocolError as exc:
        event = str(exc)
    if isinstance(event, Request):
        assert not event.is_plain or (event.call_id is not None and event.options == Options() and event.fds == [])
        event.is_plain = False  # what the quick way is for
        event.is_admitted = True  # there, whoever carries the session asks
    state = (session.calls, session.given_up, session.requests, session.closing_received, session._was_asked)
    return repr(event), repr(state)


@given(
    data=PACKETS,
    limits=st.sampled_from([Limits(), Limits(max_depth=3), Limits(max_calls_in_flight=1)]),
    closing=st.booleans(),
)
@PROPERTY
def test_the_quick_way_of_a_packet_leads_where_the_long_way_does(data: bytes, limits: Limits, closing: bool) -> None:
    session, twin = in_use(limits, closing=closing), in_use(limits, closing=closing)
    for _ in range(2):  # the second time its id is in flight, or answered
        assert outcome(session, lambda: session.receive_packet(data, [])) == outcome(
            twin, lambda: twin._receive_closely(data, [], lost=False)
        )


SETTINGS = [(Limits(), False), (Limits(), True), (Limits(max_depth=3), False), (Limits(max_calls_in_flight=1), False)]
PARTS = (HEADS, KINDS, IDS, THIRDS, FOURTHS, FIFTHS)
USUAL = ([b"\x94", b"\x00", b"\x07", b"\xa1m", b"\x90", b""], [b"\x94", b"\x01", b"\x00", b"\xc0", b"\x07", b""])


@pytest.mark.parametrize("usual", USUAL, ids=["request", "response"])
def test_whatever_is_unusual_in_a_usual_packet_the_quick_way_leads_where_the_long_way_does(usual: list[bytes]) -> None:
    def agree(state: tuple[Limits, bool], make: Callable[..., Session[Any]], changes: dict[int, bytes]) -> None:
        data = b"".join([changes.get(place, part) for place, part in enumerate(usual)])
        session, twin = (make(state[0], closing=state[1]) for _ in range(2))
        quick = outcome(session, lambda: session.receive_packet(data, []))
        assert quick == outcome(twin, lambda: twin._receive_closely(data, [], lost=False)), data

    agree((Limits(), False), lambda limits, closing: Session(limits), {})  # the first packet of all
    for place, parts in enumerate(PARTS):
        for part in parts:
            for state in SETTINGS:
                agree(state, in_use, {place: part})
            for other in range(place):
                for another in PARTS[other]:
                    agree(SETTINGS[0], in_use, {place: part, other: another})


@pytest.mark.parametrize("head", HEADS[:3])
@pytest.mark.parametrize("parts", [(0, 7, "m", [1]), (1, 0, None, [1])], ids=["request", "response"])
def test_a_message_is_the_same_however_long_its_array_s_head_is(head: bytes, parts: tuple[Any, ...]) -> None:
    event = in_use(Limits(), closing=False).receive_packet(head + packet(*parts)[1:], [])
    if isinstance(event, Request):
        assert (event.call_id, event.method, event.params) == (7, "m", [1])
    else:
        assert isinstance(event, Response)
        assert (event.waiter, event.error, event.result) == ("a", None, [1])


@pytest.mark.parametrize(
    "data", [b"\x84\x00\x07\x01\x07\x02\x07\x03\x07", b"\xa4\x00\x07ab", b"\xc4\x04\x00\x07\x00\x00"]
)
def test_four_of_anything_but_an_array_are_malformed(data: bytes) -> None:
    assert is_malformed(Session(), data, 0)


@pytest.mark.parametrize("zero, one", [(False, True), (0.0, 1.0)])
def test_what_is_only_equal_to_a_kind_or_an_id_is_none(zero: Any, one: Any) -> None:
    session = in_use(Limits(), closing=False)
    assert is_malformed(session, packet(one, 1, None, 5), 0)
    assert is_malformed(session, packet(1, one, None, 5), 0)
    assert is_malformed(session, packet(zero, 7, "m", []), 0)
    assert is_malformed(session, packet(0, one, "m", []), 0)


def test_a_request_is_plain_if_there_is_nothing_to_it_but_method_and_arguments() -> None:
    session = Session[Any]()
    assert receive(session, 0, 1, "m", [1, [2]]).is_plain
    for head, rest in (((0, 2), ({"a": 1},)), ((0, 3), ([], {"deadline": 5})), ((0, 4), ([], {})), ((2,), ([],))):
        assert not receive(session, *head, "m", *rest).is_plain
    with owned(1) as fds:
        assert not receive(session, 0, 5, "m", [Lender()], fds=fds).is_plain


def test_long_bytes_in_arguments_and_results_are_not_copied_to_be_sent() -> None:
    pair, long = SessionPair(), os.urandom(100_000)
    both: tuple[tuple[Any, ...] | dict[str, Any], ...] = ((1, long), {"a": long})
    for number, params in enumerate(both):
        call_id, call = pair.sessions[0].send_request(number, "m", params)
        notify = pair.sessions[0].send_notify("m", params)
        for data, _lenders in (call, notify):
            assert isinstance(data, Pieces)
            assert any(part is long for part in data.parts)
        arrived = pair.send_and_deliver(0, notify)
        request = pair.send_and_deliver(0, call)
        assert isinstance(request, Request)
        assert isinstance(arrived, Request)
        assert request.params == arrived.params == (list(params) if isinstance(params, tuple) else params)
        result = pair.sessions[1].send_result(call_id, long)
        assert isinstance(result[0], Pieces)
        answer = pair.send_and_deliver(1, result)
        assert isinstance(answer, Response)
        assert (answer.waiter, answer.result) == (number, long)


# Who asks is known before anything is made


class Nobody(Handles):
    """Makes nothing, or says so."""

    def receive(self, ext_type: int, fd: OwnedFd) -> Handle:
        raise AssertionError("somebody who was refused had something made")


def refusing(session: Session[Any]) -> Session[Any]:
    session.refusal = lambda method: ("rpc.PermissionDenied", f"{method}: no")
    return session


def heavy() -> list[Any]:
    return [Handle(EXT_STREAM, OwnedFd(os.open("/dev/null", os.O_RDONLY)))]


@pytest.mark.parametrize("notify", [False, True])
def test_of_one_who_is_refused_nothing_is_made(notify: bool) -> None:
    session = refusing(Session(living=Nobody()))
    things = heavy()
    data, lenders = encode((2, "S.m", things) if notify else (0, 7, "S.m", things))
    fds = [OwnedFd.dup(lender.fileno()) for lender in lenders]
    every = list(fds)
    event = session.receive_packet(bytes(data), fds)
    if notify:
        assert event is None
    else:
        assert isinstance(event, Refused)
        assert (event.call_id, event.code, event.message) == (7, "rpc.PermissionDenied", "S.m: no")
    assert all(fd.closed for fd in every)
    things[0].fd.close()


def test_what_answers_no_call_is_not_made() -> None:
    session = Session[Any](living=Nobody())
    things = heavy()
    data, lenders = encode((1, 5, None, things))
    fds = [OwnedFd.dup(lender.fileno()) for lender in lenders]
    every = list(fds)
    assert session.receive_packet(bytes(data), fds) is None
    assert all(fd.closed for fd in every)
    things[0].fd.close()


def test_a_short_plain_request_is_left_to_whoever_carries_the_session() -> None:
    short, long = (refusing(Session[Any]()).receive_packet(packet(0, 7, "S.m", ["x" * size]), []) for size in (10, 300))
    assert isinstance(short, Request)
    assert (short.is_plain, short.is_admitted) == (True, False)
    assert isinstance(long, Refused)


def test_a_malformed_packet_of_one_who_is_refused_is_malformed_if_that_is_soon_found_out() -> None:
    assert "extra data" in is_malformed(refusing(Session[Any]()), packet(9, "x") + b"\x00")


def test_there_may_be_no_room_for_a_long_request_which_then_is_not_read() -> None:
    session = Session[Any](Limits(max_containers=1))
    asked: list[int] = []

    def lack(size: int) -> str:
        asked.append(size)
        return "no room"

    session.lack_of_room = lack
    assert session.lack_of_room is lack
    message = packet(0, 7, "m", [[] for _ in range(70_000)])
    file = memory_file(message)
    event = session.receive_packet(packet(4, len(message)), [file])
    assert isinstance(event, Refused)
    assert (event.call_id, event.code, event.message) == (7, "rpc.Overloaded", "no room")
    assert asked == [len(message)]
    assert file.closed


def test_buffers_that_are_copied_are_counted_and_refused_where_there_is_no_room() -> None:
    session = Session[Any](Limits(max_containers=1))
    content = memory_file(bytes(100_000))
    reference = msgpack.ExtType(4, (0).to_bytes(1, "big") + (1).to_bytes(8, "big") + (50_000).to_bytes(8, "big"))
    data = msgpack.packb([0, 7, "m", [reference]])
    event = session.receive_packet(data, [OwnedFd.dup(content)])
    assert isinstance(event, Request)
    assert event.held_bytes == 50_000
    session.send_result(7, None)
    session.lack_of_room = lambda size: f"no room for {size}"
    event = session.receive_packet(data, [OwnedFd.dup(content)])
    assert isinstance(event, Refused)
    assert (event.code, event.message) == ("rpc.Overloaded", "no room for 50000")
    content.close()


def test_too_many_chosen_keys_are_too_large_and_the_connection_lives_on() -> None:
    session = Session[Any]()
    event = session.receive_packet(packet(0, 7, "m", [dict.fromkeys(range(1_025))]), [])
    assert isinstance(event, Refused)
    assert (event.call_id, event.code) == (7, "rpc.TooLarge")
    session.send_error(7, event.code, event.message)
    call_id, _packed = session.send_request("waiter", "m", ())
    answer = session.receive_packet(packet(1, call_id, None, dict.fromkeys(range(1_025))), [])
    assert isinstance(answer, Response)
    assert (answer.error or [""])[0] == "rpc.TooLarge"
    assert not session.calls


@pytest.mark.parametrize("way", ["result", "error", "by itself"])
def test_what_was_given_away_and_cannot_be_sent_is_given_up(way: str) -> None:
    class Life(Handles):
        gone: list[Any] = []  # noqa: RUF012 - of one test

        def give_up(self, value: Any) -> None:
            self.gone.append(value)

    with owned(2) as (fd, lent):
        life = Life()
        life.gone = []
        session = Session[Any](living=life)
        value = [fd, object(), Handle(EXT_STREAM, lent)]
        if way == "result":
            with pytest.raises(LocalProtocolError):
                session.send_result(1, value)
            assert life.gone == [], "the rest is for whoever hears of it"
        elif way == "error":
            session.send_error(1, "a.b", "text", value)
            assert life.gone == [value[2]]
        else:
            session.give_up(value)
            assert life.gone == [value[2]]
        assert fd.closed
        assert not lent.closed
