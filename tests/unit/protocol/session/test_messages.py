"""Sections 1 and 2 of the protocol: packets, kinds, ids and what they do."""

from __future__ import annotations

import os
import struct
from typing import Any

import msgpack
import pytest
from support.admission import new_session
from support.descriptors import Lender, memory_file, owned
from support.measures import peak_bytes
from support.session import encode, is_malformed, packet, receive, request_in_flight
from support.sessions import SessionPair

from seqrpc.errors import LocalProtocolError, RemoteProtocolError, RpcError, TooLarge
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.admission import Refused
from seqrpc.protocol.encoder import encode_once
from seqrpc.protocol.messages import Cancel, Closing, Options, Request, Response, error_of


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
    assert "extra data" in is_malformed(new_session(), packet(3, 1) + packet(3, 1), 0)


@pytest.mark.parametrize(
    "data", [b"", b"\xc0", b"\x90", b"\x80", b"\x91\xff", b"\x91\xa1\x30", b"\xc1", b"\x94\x00\x01"]
)
def test_1_5_a_malformed_packet_changes_nothing_and_its_descriptors_are_closed(data: bytes) -> None:
    assert is_malformed(new_session(), data, 3)


def test_1_5_a_packet_of_the_wrong_shape_is_malformed_and_its_descriptors_are_closed() -> None:
    assert "params" in is_malformed(new_session(), packet(0, 1, "m", Lender()))
    assert "options" in is_malformed(new_session(), packet(2, "m", [], [Lender()]))
    assert "an id" in is_malformed(new_session(), packet(3, Lender()))
    assert "reason" in is_malformed(new_session(), packet(5, Lender()))


def test_1_5_no_other_connection_notices_a_malformed_packet() -> None:
    one, other = new_session(), new_session()
    request_in_flight(other)
    is_malformed(one, b"\xc1")
    assert set(other.requests) == {1}


@pytest.mark.parametrize("closing", [False, True])
def test_1_5_a_malformed_packet_changes_nothing_though_nobody_wants_it(closing: bool) -> None:
    session = new_session()
    call_id, _call = session.send_request("given up", "m", ())
    session.send_cancel(call_id)
    if closing:
        session.send_closing("going")
        is_malformed(session, packet(0, 1, "m", None))
    is_malformed(session, packet(0, 1, "rpc.ping", None))
    is_malformed(session, packet(1, call_id, 5, None))
    assert session.given_up == {call_id}
    receive(session, 1, call_id, None, 5)
    assert session.given_up == set()


def test_1_2_messages_as_large_as_a_packet_fit_into_one_and_larger_ones_are_spilled() -> None:
    pair = SessionPair()
    session = pair.sessions[0]
    for size, held_bytes in ((MAX_PACKET, MAX_PACKET), (MAX_PACKET + 1, MAX_PACKET + 1), (1_000_000, 1_000_000)):
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
    session = new_session(Limits(max_message_bytes=MAX_PACKET))
    for send in (
        lambda: session.send_request(1, "m", ("x" * MAX_PACKET,)),
        lambda: session.send_notify("x" * MAX_PACKET, ()),
    ):
        with pytest.raises(TooLarge):
            send()
    assert session.calls == {}, "a call that was not sent is not in flight"


@pytest.mark.parametrize("kind", [6, 7, 127, 2**32, 2**64 - 1])
def test_1_4_unknown_kinds_are_ignored_and_their_descriptors_closed(kind: int) -> None:
    session = new_session()
    for message in ((kind, Lender()), (kind, [Lender()], {"a": 1}), (kind, Lender(), Lender())):
        with owned(2) as fds:
            every = list(fds)
            assert session.receive_packet(packet(*message), fds) is None
            assert all(fd.closed for fd in every)


def test_1_4_what_unknown_kinds_do_with_extensions_is_their_own_business() -> None:
    assert new_session().receive_packet(b"\x92\x06\xd4\x63\x00", []) is None


def test_1_4_unknown_options_are_ignored() -> None:
    request = receive(new_session(), 0, 1, "m", [], {"priority": [1], "deadline": 5})
    assert isinstance(request, Request)
    assert request.options == Options(deadline=5)


def test_1_4_a_descriptor_in_an_unknown_option_belongs_to_the_request() -> None:
    with owned(1) as fds:
        request = receive(new_session(), 0, 1, "m", [], {"future": Lender()}, fds=fds)
        assert isinstance(request, Request)
        assert request.fds == fds
        assert not fds[0].closed


def test_2_1_ids_of_calls_in_flight_are_all_different() -> None:
    session = new_session()
    ids = [session.send_request(number, "m", ())[0] for number in range(100)]
    assert len(set(ids)) == 100
    assert session.calls == dict(zip(ids, range(100), strict=True))


def test_2_1_ids_begin_again_after_the_last_and_step_over_those_in_flight() -> None:
    session = new_session()
    assert [session.send_request(waiter, "m", ())[0] for waiter in ("a", "b")] == [0, 1]
    session._next_id = 0xFFFF_FFFF

    assert session.send_request("last", "m", ())[0] == 0xFFFF_FFFF
    assert session.send_request("next", "m", ())[0] == 2


def test_2_1_a_call_that_is_made_while_the_values_of_another_are_taken_apart_has_an_id_of_its_own() -> None:
    session = new_session()
    within: list[int] = []

    class Odd:
        def __getattr__(self, name: str) -> Any:
            if not within:
                within.append(session.send_request("within", "m", ())[0])
            raise AttributeError(name)

    with pytest.raises(LocalProtocolError):
        session.send_request("not sent", "m", (Odd(),))
    assert session.calls == {within[0]: "within"}
    assert session.send_request("after", "m", ())[0] == within[0] + 1


def test_2_1_the_id_of_a_call_that_was_given_up_is_not_used_again_until_it_is_answered() -> None:
    session = new_session()
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
    session = new_session()
    request_in_flight(session, 7)
    assert "id 7 is in flight already" in is_malformed(session, packet(0, 7, "m", [Lender()]))

    session.send_result(7, None)
    assert request_in_flight(session, 7).call_id == 7


@pytest.mark.parametrize("send_closing", [False, True])
def test_2_1_a_refused_request_is_in_flight_until_it_is_answered(send_closing: bool) -> None:
    session = new_session(Limits(max_calls_in_flight=1))
    if send_closing:
        session.send_closing("going")
    else:
        request_in_flight(session, 1)
    assert isinstance(receive(session, 0, 7, "m", []), Refused)
    assert "in flight already" in is_malformed(session, packet(0, 7, "m", []), 0)
    session.send_error(7, "rpc.Overloaded", "")
    assert isinstance(receive(session, 0, 7, "m", []), Refused)


def test_2_1_a_response_to_nothing_in_flight_is_ignored_and_its_descriptors_closed() -> None:
    session = new_session()
    session.send_request("waiter", "m", ())
    with owned(1) as fds:
        every = list(fds)
        assert receive(session, 1, 99, None, Lender(), fds=fds) is None
        assert every[0].closed
    assert session.calls == {0: "waiter"}


def test_2_1_a_second_response_is_ignored() -> None:
    session = new_session()
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
    session = new_session()
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
    session = new_session(Limits(max_message_bytes=MAX_PACKET))
    for result, kind in (
        (object(), LocalProtocolError),
        ("x" * MAX_PACKET, TooLarge),
        ([Lender()] * 254, LocalProtocolError),
    ):
        request_in_flight(session)
        with pytest.raises(kind):
            session.send_result(1, result)
        assert set(session.requests) == {1}
        assert session.send_error(1, "rpc.Internal", "")[0] == packet(1, 1, ["rpc.Internal", "", None], None)
        assert not session.requests


@pytest.mark.parametrize("data", [object(), "x" * MAX_PACKET, "\udcff", [[Lender()] * 254], 2**64], ids=type)
def test_2_5_an_error_whose_data_cannot_be_sent_goes_without(data: Any) -> None:
    session = new_session(Limits(max_message_bytes=MAX_PACKET))
    request_in_flight(session)
    assert session.send_error(1, "a.B", "text", data)[0] == packet(1, 1, ["a.B", "text", None], None)
    assert not session.requests


def test_2_5_an_error_whose_text_cannot_be_sent_goes_with_what_can_be() -> None:
    session = new_session(Limits(max_message_bytes=MAX_PACKET))
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
    assert set(pair.sessions[1].requests) == {call_id}
    assert pair.send_and_deliver(1, pair.sessions[1].send_error(call_id, "rpc.Cancelled", "")) is None
    assert not pair.sessions[1].requests


def test_2_6_a_cancel_of_what_is_not_in_flight_is_ignored() -> None:
    session = new_session()
    request_in_flight(session, 1)
    assert receive(session, 3, 2) is None
    session.send_result(1, None)
    assert receive(session, 3, 1) is None


def test_2_6_a_call_that_was_answered_or_given_up_is_not_cancelled() -> None:
    session = new_session()
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
        dropped = pair.send_and_deliver(0, pair.sessions[0].send_notify("m", (file,)))
        assert isinstance(dropped, Refused)
        assert (dropped.call_id, dropped.code) == (None, "rpc.Unavailable")
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
    session = new_session()
    assert session.closing_received is None
    assert session.send_closing("\udcff" * 2_000) == encode((5, "\\udcff" * 1_000))
    assert session.send_closing("again") is None

    assert isinstance(receive(session, 5, "first"), Closing)
    assert isinstance(receive(session, 5, "second"), Closing)
    assert session.closing_received == "first"


def test_2_9_more_calls_than_allowed_are_overload_and_their_descriptors_closed() -> None:
    session = new_session(Limits(max_calls_in_flight=2))
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


def test_2_and_9_a_ping_and_its_answer_are_the_bytes_of_section_10() -> None:
    session = new_session()
    request = session.receive_packet(b"\x94\x00\x01\xa8rpc.ping\x90", [])
    assert isinstance(request, Request)
    assert (request.call_id, request.method, request.params) == (1, "rpc.ping", [])
    assert session.send_result(1, None) == (bytes.fromhex("940101c0c0"), [])


def test_a_lost_connection_gives_back_the_waiters_and_forgets_all_ids() -> None:
    session = new_session()
    for waiter in ("a", "b", "c"):
        session.send_request(waiter, "m", ())
    request_in_flight(session)
    receive(session, 1, 1, None, None)

    assert session.lose() == ["a", "c"]
    assert (session.calls, session.requests, session.lose()) == ({}, {}, [])


def buffers(number: int) -> tuple[list[Any], list[OwnedFd]]:
    """Return references to buffers that cannot be mapped as they are, and what they refer to."""
    references = [msgpack.ExtType(4, struct.pack(">BQQ", index, 1, 1 << 20)) for index in range(number)]
    return references, [memory_file(size=2 << 20, whole=True) for _ in range(number)]


# Long messages that nobody is to read


@pytest.mark.parametrize("spilled", [False, True])
def test_8_a_ping_is_answered_whatever_came_with_it_and_nothing_is_made_of_that(spilled: bool) -> None:
    session = new_session()
    references, fds = buffers(3)
    message = packet(0, 1, "rpc.ping", [*references, "x" * (70_000 if spilled else 1_000)])
    came = [memory_file(message), *fds] if spilled else fds

    def ping() -> None:
        request = session.receive_packet(packet(4, len(message)) if spilled else message, list(came))
        assert isinstance(request, Request)
        assert (request.call_id, request.method, request.params, request.fds) == (1, "rpc.ping", [], [])

    assert peak_bytes(ping) < 1 << 18
    assert all(fd.closed for fd in came)
    assert set(session.requests) == {1}


def test_8_a_ping_that_wants_no_answer_is_in_flight_for_nobody() -> None:
    session = new_session()
    request = session.receive_packet(packet(2, "rpc.ping", ["x" * 1_000]), [])
    assert isinstance(request, Request)
    assert (request.call_id, request.params) == (None, [])
    assert session.requests == {}


@pytest.mark.parametrize("spilled", [False, True])
@pytest.mark.parametrize("kind", [3, 5])
def test_2_6_signs_of_anybody_are_malformed_before_anything_is_made_of_them(kind: int, spilled: bool) -> None:
    references, fds = buffers(3)
    message = packet(kind, references)
    came = [memory_file(message), *fds] if spilled else fds

    def receive_sign() -> None:
        with pytest.raises(RemoteProtocolError, match="malformed message"):
            new_session().receive_packet(packet(4, len(message)) if spilled else message, list(came))

    assert peak_bytes(receive_sign) < 1 << 18
    assert all(fd.closed for fd in came)


@pytest.mark.parametrize("kind", [3, 5])
def test_2_6_signs_hold_no_maps_and_no_descriptors(kind: int) -> None:
    session = new_session()
    assert "holds no maps" in is_malformed(session, packet(kind, {1: 2}), 0)
    good = packet(3, 1) if kind == 3 else packet(5, "a reason")
    assert "1 descriptors came" in is_malformed(new_session(), good, 1)


def test_2_5_whoever_holds_a_lock_gives_up_later_what_cannot_be_sent_of_an_error() -> None:
    session = new_session()
    request_in_flight(session)
    unsent: list[Any] = []
    data = [object()]
    assert session.send_error(1, "a.B", "text", data, unsent)[0] == packet(1, 1, ["a.B", "text", None], None)
    assert unsent == [data]


def test_2_2_a_result_that_is_encoded_already_is_sent_as_it_is() -> None:
    pair = SessionPair()
    long = {"a": "x" * MAX_PACKET}
    for value in ({"a": [1, None]}, long):
        _call_id, call = pair.sessions[0].send_request("waiter", "m", ())
        request = pair.send_and_deliver(0, call)
        assert isinstance(request, Request)
        assert request.call_id is not None
        answer = pair.sessions[1].send_result(request.call_id, encode_once(value))
        assert bytes(answer[0]) == msgpack.packb((1, request.call_id, None, value))
        assert request.call_id not in pair.sessions[1].requests


def test_5_a_result_that_is_encoded_already_may_be_too_long() -> None:
    session = new_session(limits=Limits(max_message_bytes=MAX_PACKET))
    request_in_flight(session, 5)
    with pytest.raises(TooLarge):
        session.send_result(5, encode_once("x" * MAX_PACKET))
    assert 5 in session.requests
