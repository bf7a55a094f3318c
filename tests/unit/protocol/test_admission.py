"""What a session asks before it reads a request, of whom, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from support.descriptors import memory_file, owned
from support.session import encode, packet

from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.admission import Admission, Admits, Refused
from seqrpc.protocol.messages import Request
from seqrpc.protocol.session import Session

ANN = Credentials(pid=1, uid=1_001, gid=1_001)
BOB = Credentials(pid=2, uid=1_002, gid=1_002)


class OnlyAnn:
    """Admits one caller."""

    def __init__(self, asked: list[Any]) -> None:
        self.asked = asked

    def admits(self, caller: Credentials | None) -> bool:
        self.asked.append(("policy", caller))
        return caller is ANN


class House:
    """Has one method, and writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.policies: Mapping[str, Admits] = {"S.m": OnlyAnn(self.asked), "S.bell": OnlyAnn(self.asked)}
        self.unread = {"S.bell"}
        self.lack: str | None = None

    def denied(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        self.asked.append(("denied", method, caller))
        return "x.Denied", "not you"

    def unknown(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        self.asked.append(("unknown", method, caller))
        return "x.Unknown", "no such thing"

    def lack_of_room(self, size: int) -> str | None:
        self.asked.append(("room", size))
        return self.lack

    def lack_of_descriptors(self) -> str | None:
        return None


def session_of(house: Admission, limits: Limits | None = None) -> Session[Any, Any]:
    return Session(limits or Limits(), None, house)


def told(event: Any) -> tuple[Any, ...]:
    assert isinstance(event, Refused)
    assert event.method in ("S.m", "S.n", "S.bell")
    return event.call_id, event.code, event.message


def test_the_policy_of_a_method_is_asked_about_the_sender_of_each_packet() -> None:
    house = House()
    session = session_of(house)
    for call_id, kind in ((1, "short"), (2, "long")):
        params = ["x" * (10 if kind == "short" else 1_000)]
        data = packet(0, call_id, "S.m", params)
        assert told(session.receive_packet(data, [], BOB)) == (call_id, "x.Denied", "not you")
        session.send_error(call_id, "x.Denied", "not you")
        event = session.receive_packet(data, [], ANN)
        assert isinstance(event, Request)
        assert event.params == params
        assert told(session.receive_packet(packet(2, "S.m", params), [], None)) == (None, "x.Denied", "not you")
    asked = [("policy", BOB), ("denied", "S.m", BOB), ("policy", ANN), ("policy", None), ("denied", "S.m", None)]
    assert house.asked == asked * 2


def test_what_has_no_policy_is_unknown() -> None:
    house = House()
    session = session_of(house)
    assert told(session.receive_packet(packet(0, 1, "S.n", []), [], ANN)) == (1, "x.Unknown", "no such thing")
    assert told(session.receive_packet(packet(2, "S.n", [0] * 300), [], BOB)) == (None, "x.Unknown", "no such thing")
    assert house.asked == [("unknown", "S.n", ANN), ("unknown", "S.n", BOB)]


def test_a_method_that_looks_at_nothing_gets_nothing_if_it_can_be_told_in_time() -> None:
    house = House()
    session = session_of(house)
    with owned(2) as fds:
        every = list(fds)
        data = packet(0, 1, "S.bell", every, {"deadline": 5})
        event = session.receive_packet(data, fds, ANN)
        assert all(fd.closed for fd in every)
    assert isinstance(event, Request)
    assert (event.method, event.params, event.fds, event.options.deadline) == ("S.bell", [], [], None)
    assert told(session.receive_packet(packet(0, 2, "S.bell", [0] * 300), [], BOB)) == (2, "x.Denied", "not you")


def test_nobody_is_asked_for_what_is_refused_whoever_asks() -> None:
    house = House()
    session = session_of(house, Limits(max_calls_in_flight=1))
    assert isinstance(session.receive_packet(packet(0, 1, "S.m", []), [], ANN), Request)
    house.asked.clear()
    assert told(session.receive_packet(packet(0, 2, "S.m", []), [], ANN))[1] == "rpc.Overloaded"
    session.send_closing("going home")
    assert told(session.receive_packet(packet(0, 3, "S.m", []), [], ANN))[1] == "rpc.Unavailable"
    assert told(session.receive_packet(packet(2, "S.m", []), [], ANN))[:2] == (None, "rpc.Unavailable")
    assert house.asked == []


def test_room_is_asked_for_last_and_only_for_what_stays_in_memory() -> None:
    house = House()
    session = session_of(house)
    data = bytes(encode((0, 1, "S.m", ["x" * MAX_PACKET]))[0])
    assert told(session.receive_packet(packet(4, len(data), 1), [memory_file(data)], BOB))[1] == "x.Denied"
    session.send_error(1, "x.Denied", "not you")
    house.lack = "the house is full"
    refused = session.receive_packet(packet(4, len(data), 1), [memory_file(data)], ANN)
    assert told(refused) == (1, "rpc.Overloaded", "the house is full")
    session.send_error(1, "rpc.Overloaded", "the house is full")
    house.lack = None
    event = session.receive_packet(packet(4, len(data), 1), [memory_file(data)], ANN)
    assert isinstance(event, Request)
    assert event.held_bytes == len(data)
    room = [("policy", ANN), ("room", len(data))]
    assert house.asked == [("policy", BOB), ("denied", "S.m", BOB), *room, *room]


def test_a_refusal_is_equal_to_itself_only() -> None:
    one, other = Refused(1, "S.m", "a.b", ""), Refused(1, "S.m", "a.b", "")
    assert [one, other].index(other) == 1
