"""The quick way of packets leads where the long way does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.admission import Admitting, new_session
from support.descriptors import Lender, owned
from support.properties import PROPERTY, values
from support.session import is_malformed, packet, receive, request_in_flight
from support.sessions import SessionPair

from seqrpc.errors import RemoteProtocolError
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.pieces import Pieces
from seqrpc.limits import Limits
from seqrpc.protocol.messages import Options, Request, Response
from seqrpc.protocol.session import Session

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


def in_use(limits: Limits, *, closing: bool) -> Session[Any, Any]:
    """Return a session with calls in flight, given up and refused."""
    session = new_session(limits)
    for waiter in ("a", "b", "c"):
        session.send_request(waiter, "m", ())
    session.send_cancel(2)
    request_in_flight(session, 3)
    if closing:
        session.send_closing("going")
    return session


def outcome(session: Session[Any, Any], receive_it: Callable[[], Any]) -> tuple[str, ...]:
    """Return all there is to see of a packet's arrival; with types, and NaN equal to itself."""
    try:
        event = receive_it()
    except RemoteProtocolError as exc:
        event = str(exc)
    if isinstance(event, Request):
        assert not event.is_plain or (event.call_id is not None and event.options == Options() and event.fds == [])
        event.is_plain = False  # what the quick way is for
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
            twin, lambda: twin._receive_closely(data, [], None, lost=False)
        )


SETTINGS = [(Limits(), False), (Limits(), True), (Limits(max_depth=3), False), (Limits(max_calls_in_flight=1), False)]

PARTS = (HEADS, KINDS, IDS, THIRDS, FOURTHS, FIFTHS)

USUAL = ([b"\x94", b"\x00", b"\x07", b"\xa1m", b"\x90", b""], [b"\x94", b"\x01", b"\x00", b"\xc0", b"\x07", b""])


@pytest.mark.parametrize("usual", USUAL, ids=["request", "response"])
def test_whatever_is_unusual_in_a_usual_packet_the_quick_way_leads_where_the_long_way_does(usual: list[bytes]) -> None:
    def agree(state: tuple[Limits, bool], make: Callable[..., Session[Any, Any]], changes: dict[int, bytes]) -> None:
        data = b"".join([changes.get(place, part) for place, part in enumerate(usual)])
        session, twin = (make(state[0], closing=state[1]) for _ in range(2))
        quick = outcome(session, lambda: session.receive_packet(data, []))
        assert quick == outcome(twin, lambda: twin._receive_closely(data, [], None, lost=False)), data

    agree((Limits(), False), lambda limits, closing: new_session(limits), {})  # the first packet of all
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
    assert is_malformed(new_session(), data, 0)


@pytest.mark.parametrize("zero, one", [(False, True), (0.0, 1.0)])
def test_what_is_only_equal_to_a_kind_or_an_id_is_none(zero: Any, one: Any) -> None:
    session = in_use(Limits(), closing=False)
    assert is_malformed(session, packet(one, 1, None, 5), 0)
    assert is_malformed(session, packet(1, one, None, 5), 0)
    assert is_malformed(session, packet(zero, 7, "m", []), 0)
    assert is_malformed(session, packet(0, one, "m", []), 0)


def test_a_request_is_plain_if_there_is_nothing_to_it_but_method_and_arguments() -> None:
    session = new_session()
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


def test_a_request_whose_policy_was_asked_elsewhere_is_owed_the_refusal_of_that() -> None:
    class Denying(Admitting):
        def denied(self, method: str, caller: Credentials | None) -> tuple[str, str]:
            return "rpc.PermissionDenied", f"{method} is not for {caller}"

    session: Session[Any, Any] = Session(Limits(), None, Denying())
    refused = session.deny(7, "m", None)
    assert (refused.call_id, refused.method) == (7, "m")
    assert (refused.code, refused.message) == ("rpc.PermissionDenied", "m is not for None")
    assert session.requests == {7: None}
