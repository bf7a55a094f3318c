"""One end of a connection, without an event loop: what is taken, and what becomes of what is malformed or too much."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from support.daemons import descriptor
from support.descriptors import refuse_descriptors, same_file
from support.lines import CANCEL, CLOSING, NOTIFY, REQUEST, RESPONSE, End, Handler, Thread, comes_true, line_end
from support.processes import in_child

import seqrpc
from seqrpc.blocking.waiting import READ, WRITE, Bystander, Waiter
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.messages import Request


@pytest.fixture
def end() -> Iterator[End]:
    with line_end() as end:
        yield end


def refusing(method: str) -> tuple[str, str] | None:
    return ("rpc.PermissionDenied", "no") if method == "A.refused" else None


def waits(end: End) -> tuple[Waiter, int]:
    """Return a waiter for an answer, and its id."""
    waiter = Waiter()
    with end.line.lock:
        waiter.call_id, (data, _lenders) = end.line.session.send_request(waiter, "A.b", [])
        end.line.send(data)
    end.receive()
    return waiter, waiter.call_id


# Taking


@pytest.mark.parametrize("by_packet", [False, True])
def test_a_request_is_answered_by_who_waits(by_packet: bool, pipe: tuple[int, int]) -> None:
    with line_end(by_packet=by_packet) as end:
        end.send(REQUEST, 1, "A.b", [1])
        end.send(REQUEST, 2, "A.b", [descriptor(0)], fds=[pipe[0]])
        assert [end.line.work() for _ in range(3)] == [True, True, False]
        assert end.receive() == [RESPONSE, 1, None, [1]]
        assert [call_id for call_id, *_ in end.handler.asked] == [1, 2]
        assert (end.line.peer is None) == by_packet


@pytest.mark.parametrize("by_packet", [False, True])
def test_a_request_that_is_refused_is_answered_at_once(by_packet: bool) -> None:
    with line_end(Handler(refusal=refusing), by_packet=by_packet) as end:
        end.send(REQUEST, 1, "A.refused", [])
        end.send(NOTIFY, "A.refused", [])
        assert end.line.work()
        assert end.line.work()
        assert end.receive()[:3] == [RESPONSE, 1, ["rpc.PermissionDenied", "no", None]]
        assert end.handler.refused == ["rpc.PermissionDenied"] * 2
        assert end.handler.asked == []


def test_answers_to_nothing_and_cancels_of_nothing_are_ignored(end: End, pipe: tuple[int, int]) -> None:
    waiter, call_id = waits(end)
    end.send(RESPONSE, 77, None, 1)
    end.send(RESPONSE, 77, None, descriptor(0), fds=[pipe[0]])
    end.send(CANCEL, 5)
    end.send(99, "of tomorrow")
    end.send(RESPONSE, call_id, None, 1)
    end.send(RESPONSE, call_id, None, 2)
    for _ in range(6):
        assert end.line.work()
    assert waiter.answer.result == 1
    assert not end.line.is_lost


def test_what_came_for_one_that_is_done_is_closed(end: End, pipe: tuple[int, int]) -> None:
    waiter, call_id = waits(end)
    waiter.finish(error=LookupError())
    end.send(RESPONSE, call_id, None, descriptor(0), fds=[pipe[0]])
    assert end.line.work()
    assert waiter.answer is None


def test_what_came_with_an_answer_is_for_who_waits(end: End, pipe: tuple[int, int]) -> None:
    waiter, call_id = waits(end)
    end.send(RESPONSE, call_id, None, descriptor(0), fds=[pipe[0]])
    assert end.line.work()
    (file,) = waiter.answer.fds
    assert same_file(file, pipe[0])
    file.close()


@pytest.mark.parametrize(
    "data, text",
    [
        (b"\xc1", "malformed"),
        (b"\x93\x00\x01\xa3A.b", "malformed"),
        (b"x" * (MAX_PACKET + 1), f"a packet has at most {MAX_PACKET} bytes"),
    ],
)
@pytest.mark.parametrize("by_packet", [False, True])
def test_whoever_breaks_the_protocol_is_told_and_the_connection_ends(data: bytes, text: str, by_packet: bool) -> None:
    with line_end(by_packet=by_packet) as end:
        waiter, _call_id = waits(end)
        end.raw.send(data)
        end.line.turns.wait(waiter)
        assert isinstance(waiter.error, seqrpc.ConnectionLost)
        assert text in str(waiter.error)
        kind, reason = end.receive()
        assert kind == CLOSING
        assert text in reason
        assert end.line.is_lost
        assert not end.line.entered


def test_a_duplicate_request_is_malformed() -> None:
    def act(line: Any, request: Request) -> None:
        if request.call_id == 1:
            line.work()  # the handler waits for something

    with line_end(Handler(act)) as end:
        end.send(REQUEST, 1, "A.b", [])
        end.send(REQUEST, 1, "A.b", [])
        assert end.line.work()
        assert end.line.is_lost
        assert len(end.handler.asked) == 1


def test_the_reason_for_which_no_calls_are_taken_stays_with_the_end(end: End) -> None:
    end.send(CLOSING, "upgrade")
    end.raw.shutdown(socket.SHUT_RDWR)
    assert end.line.work()
    assert not end.line.is_open
    assert end.line.work()
    assert end.line.is_lost
    assert end.line.lost_error().reason == "upgrade"
    assert "upgrade" in str(end.line.unavailable())


def test_a_peer_that_does_not_read_what_is_refused_is_not_answered_for_ever() -> None:
    limits = seqrpc.Limits(max_unsent_bytes=2000, max_message_bytes=70_000)
    with line_end(Handler(refusal=lambda _method: ("rpc.PermissionDenied", "n" * 1000)), limits) as end:
        end.fill()
        for number in range(200):
            end.send(REQUEST, number, "A.b", [])
            end.line.work()
            if end.line.is_lost:
                break
        assert "bytes of answers unread" in str(end.line.lost_error())
        assert number < 100


def test_a_request_that_was_interrupted_is_answered_and_one_that_nobody_waits_for_is_not() -> None:
    def act(_line: Any, _request: Request) -> None:
        raise KeyboardInterrupt

    with line_end(Handler(act)) as end:
        end.send(REQUEST, 1, "A.b", [])
        end.send(NOTIFY, "A.b", [])
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                end.line.work()
        assert end.receive()[:3] == [RESPONSE, 1, ["rpc.Cancelled", "the work was interrupted", None]]
        assert end.drain() == []
        assert end.line.session.requests == {}


def test_a_request_that_was_interrupted_when_the_connection_has_ended_is_not_answered() -> None:
    def act(line: Any, _request: Request) -> None:
        line.end_by(None)
        raise KeyboardInterrupt

    with line_end(Handler(act)) as end:
        end.send(REQUEST, 1, "A.b", [])
        with pytest.raises(KeyboardInterrupt):
            end.line.work()
        assert end.receive() is None


def test_an_interrupted_answer_is_taken_again_unless_another_call_may_have_missed_it(end: End) -> None:
    line = end.line
    answer = b"\x94\x01%c\xc0\x01"
    waiter, call_id = waits(end)
    other, other_id = waits(end)
    assert line.take_again(answer % call_id), "it is not taken yet"
    with line.lock:
        line.turns.take(waiter)
    line.session.calls.pop(call_id)
    assert line.take_again(answer % call_id), "it is the reader's own, which is interrupted"
    line.session.calls[call_id] = waiter
    line.session.calls.pop(other_id)
    assert not line.take_again(answer % other_id)
    line.session.given_up.add(other_id)
    assert line.take_again(answer % other_id)
    assert line.take_again(b"\x94\x01")
    line.turns.leave(waiter)
    assert not line.take_again(answer % 77)
    assert not other.is_done


def test_an_interrupted_request_is_taken_again_unless_it_is_owed_an_answer_already() -> None:
    data = msgpack.packb([REQUEST, 1, "A.b", []])
    again: list[bool] = []
    with line_end(Handler(lambda line, _request: again.append(line.take_again(data)))) as end:
        assert end.line.take_again(data)
        end.raw.send(data)
        assert end.line.work()
        assert again == [False]
        assert not end.line.take_again(msgpack.packb([CANCEL, 1]))


def test_a_call_that_waited_and_is_refused_then_gets_the_reason(end: End, pipe: tuple[int, int]) -> None:
    end.fill()
    with OwnedFd.dup(pipe[0]) as file:
        thread = Thread(lambda: end.caller.request("A.b", [file]))
        comes_true(lambda: end.line.unsent_packets)
        refuse_descriptors(end.raw)
        end.drain()
        with pytest.raises(seqrpc.PermissionDenied):
            thread.result()
    assert end.line.session.calls == {}
    assert not end.line.is_lost
    call = Thread(lambda: end.caller.request("A.b", []))
    assert end.answer("on") == "A.b"
    assert call.result() == "on"


# As something that goes on


def test_a_line_is_to_be_watched_for_what_comes_and_for_room(end: End) -> None:
    assert end.line.interest() == (end.line.fd, READ)
    end.fill()
    with end.line.lock:
        end.line.send(b"\x93\x02\xa3A.b\x90")
    assert end.line.interest() == (end.line.fd, READ | WRITE)
    assert end.line.retry_at is None
    assert end.line.unsent_packets == 1
    assert end.line.unsent_bytes == 7 + 256  # what a packet costs besides
    end.line.end_by(None)
    assert end.line.interest()[0] == -1


def test_what_was_read_and_not_begun_is_done_at_once(end: End) -> None:
    """A signal handler came between."""
    end.line.take_plain(msgpack.packb([REQUEST, 1, "A.b", [2]]))
    assert end.line.interest() == (end.line.fd, 0)
    assert end.line.work()
    assert end.receive() == [RESPONSE, 1, None, [2]]
    assert end.line.interest() == (end.line.fd, READ)


def test_a_socket_that_may_ask_for_senders_is_asked(end: End) -> None:
    assert not PLATFORM.asks_for_senders(end.line.sock)
    with line_end(by_packet=True) as other:
        assert PLATFORM.asks_for_senders(other.line.sock)
    with line_end(by_packet=None) as pair:  # the socket of a pair has no name that tells
        assert PLATFORM.asks_for_senders(pair.line.sock)
        assert pair.line.peer is None


# Two threads, and two processes


def test_a_thread_in_the_middle_of_something_may_not_come_again(end: End) -> None:
    with end.line.lock:
        end.line.entered = True
        with end.line.lock, pytest.raises(RuntimeError, match="in use by this very thread"):
            end.line.check_reentry()
        end.line.entered = False
        end.line.check_reentry()


def test_a_line_ends_that_a_thread_left_in_the_middle_of_something(end: End) -> None:
    """A second signal handler came before it was cleaned up after the first."""
    end.line.entered = True
    with end.line.lock:
        end.line.check_reentry()
    assert end.line.is_lost
    assert not end.line.entered


def test_a_forked_child_has_no_line_even_if_a_thread_held_its_lock(end: End) -> None:
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with end.line.lock:
            held.set()
            over.wait()

    thread = Thread(hold)
    held.wait()
    end.fill()
    reader, writer = os.pipe()

    def child() -> tuple[bool, int, str]:
        try:
            end.line.check_process()
        except seqrpc.WrongProcess as exc:
            error = str(exc)
        end.line.close()
        end.line.close_family()
        return end.line.is_lost, end.line.sock.fileno(), error[:20]

    assert in_child(child) == (True, -1, "this connection belo")
    over.set()
    thread.result()
    with end.line.lock:
        end.line.send(b"\x93\x02\xa3A.b\x91\xc7\x01\x05\x00", [reader_of(reader)])
    assert in_child(child)[0]
    end.drain()
    end.line.flush()
    assert end.receive()[:2] == [NOTIFY, "A.b"]
    os.close(reader)
    os.close(writer)


def test_who_waits_in_a_forked_child_hears_that_the_line_is_the_parent_s(end: End) -> None:
    def child() -> tuple[str, Any]:
        waiter = Bystander()
        end.line.turns.wait(waiter)
        assert isinstance(waiter.error, seqrpc.WrongProcess)
        return str(waiter.error)[:20], waiter.error.execution

    assert in_child(child) == ("this connection belo", seqrpc.Execution.MAY_HAVE_RUN)
    end.line.end_by(seqrpc.ConnectionLost("over"))
    waiter = Bystander()
    end.line.turns.wait(waiter)
    assert str(waiter.error) == "over"


class reader_of:  # noqa: N801 - it stands for a number
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


def test_the_line_of_a_connection_says_what_it_is(end: End) -> None:
    assert repr(end.line).startswith("<Connection open peer=Credentials(")
    end.line.close()
    assert repr(end.line).startswith("<Connection closed")


def test_what_the_kernel_says_of_a_socket_that_cannot_be_read_is_the_end(end: End) -> None:
    assert not end.line.receive_failed(BlockingIOError())
    assert not end.line.receive_failed(InterruptedError())
    assert end.line.receive_failed(ConnectionResetError(errno.ECONNRESET, "reset"))
    assert end.line.broken is not None
    assert not end.line.is_lost
    assert end.line.receive_failed(OSError(errno.EBADF, "closed"))
    assert end.line.is_lost
    assert "closed" in str(end.line.lost_error())


def test_a_refused_request_of_an_ended_connection_is_nobody_s() -> None:
    with line_end() as end:
        end.line.end_by(None)
        end.line.answer(b"x")
