"""Messages that nobody is to read: of what is not admitted or not waited for nothing is made."""

from __future__ import annotations

import os
from typing import Any

import msgpack
import pytest
from support.descriptors import memory_file, owned
from support.session import Nobody, encode, is_malformed, packet, refusing

from seqrpc.errors import LocalProtocolError, RemoteProtocolError
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import Limits
from seqrpc.protocol.messages import Request, Response
from seqrpc.protocol.session import Refused, Session
from seqrpc.protocol.values import EXT_STREAM, Handle, Handles

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


def heavy() -> list[Any]:
    return [Handle(EXT_STREAM, OwnedFd(os.open("/dev/null", os.O_RDONLY)))]


# Who asks is known before anything is made


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
