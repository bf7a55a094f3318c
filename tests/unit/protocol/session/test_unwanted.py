"""Messages that nobody is to read: of what is not admitted or not waited for nothing is made."""

from __future__ import annotations

import os
from typing import Any

import msgpack
import pytest
from support.admission import Admitting, new_session, refuse
from support.descriptors import memory_file, owned
from support.session import Nobody, encode, is_malformed, packet

from seqrpc.errors import LocalProtocolError, RemoteProtocolError
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import Limits
from seqrpc.protocol.admission import Admits, Refused
from seqrpc.protocol.messages import Request, Response
from seqrpc.protocol.session import Session
from seqrpc.protocol.values import EXT_STREAM, BareValue, BareValues

# Long messages that nobody is to read


def test_a_long_request_of_one_who_is_not_admitted_is_refused_unread() -> None:
    asked: list[str] = []
    works: list[int] = []

    def unknown(method: str, caller: object) -> tuple[str, str]:
        asked.append(method)
        return "rpc.PermissionDenied", f"{method}: this caller is not admitted"

    admission = Admitting(refuse)
    admission.unknown = unknown  # type: ignore[method-assign]
    session: Session[Any, Any] = Session(Limits(max_containers=1), None, admission)
    session.references.on_work = lambda: works.append(1)
    session.references.on_work()
    works.clear()
    hostile: list[list[int]] = [[] for _ in range(70_000)]  # which reading would find to be too much
    for message, id_ in ((packet(0, 7, "S.m", hostile), 7), (packet(2, "S.n", hostile), None)):
        file = memory_file(message)
        event = session.receive_packet(packet(4, len(message)), [file])
        assert file.closed
        method = "S.n" if id_ is None else "S.m"
        assert isinstance(event, Refused)
        assert (event.call_id, event.method, event.code, event.message) == (
            id_,
            method,
            "rpc.PermissionDenied",
            f"{method}: this caller is not admitted",
        )
    assert asked == ["S.m", "S.n"]
    assert works == [1, 1]
    assert set(session.requests) == {7}
    bad = packet(0, 1 << 33, "S.m", hostile)
    with pytest.raises(RemoteProtocolError, match="an id is an unsigned 32-bit integer"):
        session.receive_packet(packet(4, len(bad)), [memory_file(bad)])


def test_a_long_request_is_refused_unread_once_closing_was_sent() -> None:
    asked: list[str] = []
    session = new_session(Limits(max_containers=1), refusal=asked.append)  # which answers None
    session.send_closing("the server is stopping")
    hostile: list[list[int]] = [[] for _ in range(70_000)]  # which reading would find to be too much
    for message, id_ in ((packet(0, 7, "S.m", hostile), 7), (packet(2, "S.n", hostile), None)):
        file = memory_file(message)
        event = session.receive_packet(packet(4, len(message)), [file])
        assert file.closed
        assert isinstance(event, Refused)
        assert (event.call_id, event.code) == (id_, "rpc.Unavailable")
        if event.call_id is not None:
            session.send_error(event.call_id, event.code, event.message)
    assert asked == []
    assert session.requests == {}


@pytest.mark.parametrize("head", [(9, 1), (1, 5, None)])
def test_a_long_message_that_nobody_waits_for_is_not_read(head: tuple[Any, ...]) -> None:
    session = new_session(Limits(max_containers=1))
    message = packet(*head, [[] for _ in range(70_000)])
    file = memory_file(message)
    assert session.receive_packet(packet(4, len(message)), [file]) is None
    assert file.closed


def test_a_long_answer_to_a_call_that_was_given_up_frees_its_id() -> None:
    session = new_session()
    call_id, _packed = session.send_request("waiter", "m", ())
    session.send_cancel(call_id)
    message = packet(1, call_id, None, "x" * 70_000)
    assert session.receive_packet(packet(4, len(message)), [memory_file(message)]) is None
    assert session.given_up == set()


@pytest.mark.parametrize("message", [(3, "x" * 70_000), (5, "x" * 70_000), (4, "x" * 70_000)])
def test_messages_that_are_never_long_are_malformed_if_they_are(message: tuple[Any, ...]) -> None:
    data = packet(*message)
    with pytest.raises(RemoteProtocolError, match=f"one of kind {message[0]} has {len(data)} bytes and 0 descriptors"):
        new_session().receive_packet(packet(4, len(data)), [memory_file(data)])


def heavy() -> list[Any]:
    return [BareValue(EXT_STREAM, OwnedFd(os.open("/dev/null", os.O_RDONLY)))]


# Who asks is known before anything is made


@pytest.mark.parametrize("notify", [False, True])
def test_of_one_who_is_refused_nothing_is_made(notify: bool) -> None:
    session = new_session(living=Nobody(), refusal=refuse)
    things = heavy()
    data, lenders = encode((2, "S.m", things) if notify else (0, 7, "S.m", things))
    fds = [OwnedFd.dup(lender.fileno()) for lender in lenders]
    every = list(fds)
    event = session.receive_packet(bytes(data), fds)
    assert isinstance(event, Refused)
    assert (event.call_id, event.code, event.message) == (None if notify else 7, "rpc.PermissionDenied", "S.m: no")
    assert all(fd.closed for fd in every)
    things[0].fd.close()


def test_what_answers_no_call_is_not_made() -> None:
    session = new_session(living=Nobody())
    things = heavy()
    data, lenders = encode((1, 5, None, things))
    fds = [OwnedFd.dup(lender.fileno()) for lender in lenders]
    every = list(fds)
    assert session.receive_packet(bytes(data), fds) is None
    assert all(fd.closed for fd in every)
    things[0].fd.close()


@pytest.mark.parametrize("size", [10, 300])
def test_a_request_of_one_who_is_not_admitted_is_refused(size: int) -> None:
    session = new_session(refusal=refuse)
    refused = session.receive_packet(packet(0, 7, "S.m", ["x" * size]), [])
    assert isinstance(refused, Refused)
    assert (refused.call_id, refused.code, refused.message) == (7, "rpc.PermissionDenied", "S.m: no")
    assert set(session.requests) == {7}, "it is to be answered"


def test_policies_are_asked_once_with_who_sent_the_packet() -> None:
    asked: list[object] = []
    sender = Credentials(pid=1, uid=2, gid=3)

    class Asked:
        def admits(self, caller: Credentials | None) -> bool:
            asked.append(caller)
            return caller is sender

    class Known(Admitting):
        @property
        def policies(self) -> dict[str, Admits]:
            return {"S.m": Asked()}

        def denied(self, method: str, caller: Credentials | None) -> tuple[str, str]:
            return "rpc.PermissionDenied", f"{method} is not for {caller}"

    for size in (10, 300):
        session: Session[Any, Any] = Session(Limits(), None, Known())
        data = packet(0, 7, "S.m", ["x" * size])
        assert isinstance(session.receive_packet(data, [], sender), Request)
        session.send_result(7, None)
        refused = session.receive_packet(data, [], None)
        assert isinstance(refused, Refused)
        assert refused.message == "S.m is not for None"
    assert asked == [sender, None] * 2


def test_a_malformed_packet_of_one_who_is_refused_is_malformed_if_that_is_soon_found_out() -> None:
    assert "extra data" in is_malformed(new_session(refusal=refuse), packet(9, "x") + b"\x00")


def test_there_may_be_no_room_for_a_long_request_which_then_is_not_read() -> None:
    asked: list[int] = []

    def lack(size: int) -> str:
        asked.append(size)
        return "no room"

    session = new_session(Limits(max_containers=1), lack_of_room=lack)
    message = packet(0, 7, "m", [[] for _ in range(70_000)])
    file = memory_file(message)
    event = session.receive_packet(packet(4, len(message)), [file])
    assert isinstance(event, Refused)
    assert (event.call_id, event.code, event.message) == (7, "rpc.Overloaded", "no room")
    assert asked == [len(message)]
    assert file.closed


def test_buffers_that_are_copied_are_counted_and_refused_where_there_is_no_room() -> None:
    lack: list[str] = []
    session = new_session(Limits(max_containers=1), lack_of_room=lambda size: f"{lack[0]} {size}" if lack else None)
    content = memory_file(bytes(100_000))
    reference = msgpack.ExtType(4, (0).to_bytes(1, "big") + (1).to_bytes(8, "big") + (50_000).to_bytes(8, "big"))
    data = msgpack.packb([0, 7, "m", [reference]])
    event = session.receive_packet(data, [OwnedFd.dup(content)])
    assert isinstance(event, Request)
    assert event.held_bytes == 50_000
    session.send_result(7, None)
    lack.append("no room for")
    event = session.receive_packet(data, [OwnedFd.dup(content)])
    assert isinstance(event, Refused)
    assert (event.code, event.message) == ("rpc.Overloaded", "no room for 50000")
    content.close()


def test_too_many_chosen_keys_are_too_large_and_the_connection_lives_on() -> None:
    session = new_session()
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
    class Life(BareValues):
        gone: list[Any] = []  # noqa: RUF012 - of one test

        def give_up(self, value: Any) -> None:
            self.gone.append(value)

    with owned(2) as (fd, lent):
        life = Life()
        life.gone = []
        session = new_session(living=life)
        value = [fd, object(), BareValue(EXT_STREAM, lent)]
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


def test_a_session_that_was_let_go_asks_nobody_and_answers_what_still_runs() -> None:
    session: Session[Any, Any] = Session(Limits(), None, Admitting(refuse, lambda _size: "there is no room"))
    works: list[int] = []
    session.references.on_work = lambda: works.append(1)
    session.let_go()
    assert not hasattr(session, "_admission")
    session.references.on_work()
    assert works == []
    assert session.references.lack_of_room(1) is None
    assert session.send_error(1, "rpc.Cancelled", "too late")[0]
