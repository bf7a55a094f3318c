"""Section 5 of the protocol: messages in memory files, and buffers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
from support.admission import new_session
from support.descriptors import Lender, memory_file, owned, write_only
from support.scarcity import address_space_used_up
from support.session import encode, is_malformed, packet, request_in_flight
from support.sessions import SessionPair, on_the_way

from seqrpc.errors import RemoteProtocolError, TooLarge
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.admission import Refused
from seqrpc.protocol.messages import MAX_CALL_ID, Cancel, Closing, Request, Response, error_of
from seqrpc.protocol.session import Session
from seqrpc.protocol.values import EXT_STREAM, BareValue, BareValues

LARGE = "x" * MAX_PACKET


def spilled_packet(length: int, call_id: int | None = None) -> bytes:
    """Return the packet that comes with a memory file."""
    return packet(4, length) if call_id is None else packet(4, length, call_id)


def receive_spilled(
    session: Session[Any, Any], message: tuple[Any, ...], *, call_id: int | None = None, more: Sequence[OwnedFd] = ()
) -> Any:
    """Let a session receive a message as a memory file, with more descriptors, and check that the file is closed."""
    data = packet(*message)
    file = memory_file(data)
    try:
        return session.receive_packet(spilled_packet(len(data), call_id), [file, *more])
    finally:
        assert file.closed


def test_5_1_the_packet_of_a_spilled_message_has_its_length_and_the_id_of_a_call() -> None:
    session = new_session()
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
    session = new_session()
    session.send_request("waiter", "m", ())
    assert isinstance(receive_spilled(session, (0, 7, "m", [])), Request)
    assert isinstance(receive_spilled(session, (2, "m", [])), Request)
    assert isinstance(receive_spilled(session, (1, 0, None, 1)), Response)
    assert isinstance(receive_spilled(session, (3, 7)), Cancel)
    assert isinstance(receive_spilled(session, (5, "going")), Closing)
    assert receive_spilled(session, (6, "future")) is None


def test_5_1_a_spilled_message_inside_a_spilled_message_is_malformed() -> None:
    session = new_session()
    with owned(1) as fds, pytest.raises(RemoteProtocolError, match="one of kind 4 has 3 bytes and 1 descriptors"):
        receive_spilled(session, (4, 100), more=fds)
    with pytest.raises(RemoteProtocolError, match="a spilled message inside a spilled message"):
        receive_spilled(session, (4, 100))
    with pytest.raises(RemoteProtocolError, match="a spilled message inside a spilled message"):
        receive_spilled(session, (4, 100, 7), call_id=7)
    assert not session.requests


def test_5_1_the_indexes_of_a_spilled_message_are_counted_from_the_one_after_the_memfd() -> None:
    with owned(1) as fds:
        request = receive_spilled(new_session(), (0, 7, "m", [Lender()]), more=fds)
        assert isinstance(request, Request)
        assert request.params == request.fds == fds
    for message, number in (((0, 7, "m", [Lender(), Lender()]), 1), ((0, 7, "m", []), 1)):
        with owned(number) as fds:
            with pytest.raises(RemoteProtocolError, match="referred to"):
                receive_spilled(new_session(), message, more=fds)
            assert all(fd.closed for fd in fds)


@pytest.mark.parametrize(
    "length, call_id", [(0, None), (-1, 1), ("100", None), (True, None), (100, -1), (100, 2**32), (100, None)], ids=repr
)
def test_5_1_a_malformed_packet_of_a_spilled_message_changes_nothing(length: Any, call_id: Any) -> None:
    is_malformed(new_session(), packet(4, length) if call_id is None else packet(4, length, call_id), 2)
    assert is_malformed(new_session(), packet(4, 100), 0) == "malformed spilled message: no descriptor came with it"
    assert "2 or 3 elements" in is_malformed(new_session(), packet(4, 100, 1, 1))
    assert "2 or 3 elements" in is_malformed(new_session(), packet(4))
    assert "a positive integer, got None" in is_malformed(new_session(), packet(4, Lender()))


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
            session = new_session()
            with owned(1) as fds:
                others = list(fds)
                with pytest.raises(RemoteProtocolError, match=r"^malformed spilled message: "):
                    session.receive_packet(spilled_packet(len(data), call_id), [file, *fds])
                assert all(fd.closed for fd in (file, *others)), what
            assert not session.requests, what
            assert request_in_flight(session, 7).call_id == 7


def test_5_2_one_over_the_limit_is_never_read_whatever_it_is() -> None:
    session = new_session(Limits(max_message_bytes=MAX_PACKET))
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
    session = new_session(Limits(max_message_bytes=MAX_PACKET))
    session.send_request("of the same id", "m", ())
    with owned(1) as fds:
        every = list(fds)
        refused = receive_spilled(session, (0, 0, "m", [LARGE, Lender()]), call_id=0 if written else None, more=fds)
        assert every[0].closed
    assert isinstance(refused, Refused)
    assert (refused.call_id, refused.code) == (0, "rpc.TooLarge")
    assert "at most 65536 bytes here (max_message_bytes), this one 65550" in refused.message
    assert set(session.requests) == {0}
    session.send_error(0, refused.code, refused.message)
    assert request_in_flight(session, 0).call_id == 0
    assert session.calls == {0: "of the same id"}


@pytest.mark.parametrize("written", [True, False], ids=["with id", "without id"])
def test_5_2_a_response_over_the_limit_fails_its_call_and_the_connection_lives_on(written: bool) -> None:
    session = new_session(Limits(max_message_bytes=MAX_PACKET))
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
    assert (session.calls, set(session.requests)) == ({}, {0})


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
    session = new_session(Limits(max_message_bytes=MAX_PACKET))
    with owned(1) as fds:
        every = list(fds)
        with pytest.raises(RemoteProtocolError, match="a spilled message that was not read"):
            receive_spilled(session, message, more=fds)
        assert every[0].closed
    assert not session.requests


def test_5_2_the_kind_of_a_message_that_nobody_can_look_at_is_told_by_its_id_where_it_can_be() -> None:
    def told(call_id: int | None, *, asked: Sequence[int] = (), called: int = 0, given_up: bool = False) -> Any:
        session = new_session()
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
            assert event.method is None
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
    session = new_session(Limits(max_containers=1_000))
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
    session = new_session()
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
    assert (session.calls, set(session.requests)) == ({}, {7})


def test_2_8_a_closing_that_is_too_large_to_be_read_is_nobody_s() -> None:
    session = new_session()
    assert receive_spilled(session, (5, dict.fromkeys(range(10_000), 0))) is None
    assert session.closing_received is None


def test_3_3_a_packet_that_lost_descriptors_may_still_hold_a_malformed_spill() -> None:
    with pytest.raises(RemoteProtocolError, match="a positive integer"):
        new_session().receive_packet(packet(4, "x"), [], lost=True)


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
            new_session().receive_packet(data, [file])
        assert file.closed


def test_a_request_with_a_buffer_that_is_not_taken_here_is_refused_and_a_response_fails_its_call() -> None:
    session = new_session(Limits(max_buffer_bytes=3))
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
    assert (session.calls, set(session.requests)) == ({}, {7})


@pytest.mark.parametrize("lost", [False, True])
def test_what_living_values_raise_comes_through_with_the_descriptors_closed(lost: bool) -> None:
    class Failing(BareValues):
        def receive(self, ext_type: int, fd: OwnedFd) -> Any:
            raise ValueError("no such stream")

    session = new_session(living=Failing())
    with owned(1) as fds:
        fd = fds[0]
        data = encode((0, 7, "m", [BareValue(EXT_STREAM, fd)]))[0]
        if lost:
            fds.pop().close()
            assert isinstance(session.receive_packet(bytes(data), [], lost=True), Refused)
        else:
            with pytest.raises(RemoteProtocolError, match="malformed message: no such stream"):
                session.receive_packet(bytes(data), fds)
            assert fds == []
