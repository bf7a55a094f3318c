"""What waits for room in a socket without an event loop, and how a connection ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.lines import CLOSING, NOTIFY, REQUEST, RESPONSE, End, Thread, comes_true, line_end, sleeps
from support.processes import AS_ROOT, OTHER_UID, in_child
from support.scarcity import jammed

import seqrpc
from seqrpc.blocking import line as line_module
from seqrpc.blocking import waiting
from seqrpc.kernel.descriptors import OwnedFd

MESSAGE = b"\x93\x02\xa3A.b\x90"
BRIEF = seqrpc.Limits(close_timeout=0.02)


@pytest.fixture
def end() -> Iterator[End]:
    with line_end() as end:
        yield end


def queue(end: End, number: int = 1, **options: Any) -> None:
    """Let packets wait."""
    end.fill()
    with end.line.lock:
        for _ in range(number):
            end.line.send(MESSAGE, **options)
    assert end.line.unsent_packets == number


def sent(end: End, number: int) -> list[Any]:
    """Return so many messages, after what filled the socket."""
    messages: list[Any] = []
    while len(messages) < number:
        message = end.receive()
        if message != [NOTIFY, "fill", []]:
            messages.append(message)
    return messages


# Sending


def test_what_finds_no_room_is_sent_by_who_waits(end: End) -> None:
    queue(end, 3)
    assert not end.line.sends_at_once
    end.line.flush()
    waiting_thread = Thread(lambda: end.line.flush_all(None))
    assert sent(end, 3) == [[NOTIFY, "A.b", []]] * 3
    waiting_thread.result()
    assert end.line.sends_at_once
    end.line.flush_all(None)
    end.line.flush()


def test_what_another_thread_leaves_unsent_is_sent_by_the_one_that_reads(end: End) -> None:
    first = Thread(lambda: end.caller.request("A.b", []))
    call_id = end.receive()[1]
    comes_true(lambda: end.line.turns.bell is not None and sleeps(first))
    queue(end)
    assert sent(end, 1) == [[NOTIFY, "A.b", []]]
    end.send(RESPONSE, call_id, None, 1)
    assert first.result() == 1


def test_who_waits_for_room_gives_up_when_the_time_is_up_or_the_connection_ends(end: End) -> None:
    queue(end)
    with pytest.raises(seqrpc.DeadlineExceeded):
        end.line.flush_all(time.monotonic_ns() + 10_000_000)
    thread = Thread(lambda: end.line.flush_all(None))
    comes_true(lambda: len(end.line._flushers) == 2)
    end.raw.close()
    with pytest.raises(seqrpc.ConnectionLost):
        thread.result()


def test_who_waits_until_all_is_sent_hears_that_nobody_reads_any_more(end: End) -> None:
    """What waits is dropped then, and was not sent."""
    queue(end)
    end.raw.shutdown(socket.SHUT_RD)
    with pytest.raises(seqrpc.ConnectionLost):
        end.line.flush_all(None)
    assert end.line.unsent_packets == 0


def test_nothing_is_sent_over_a_broken_or_a_closing_line(end: End) -> None:
    end.raw.shutdown(socket.SHUT_RD)
    with pytest.raises(seqrpc.ConnectionLost) as caught:
        end.line.send(MESSAGE)
    assert caught.value.execution is seqrpc.Execution.DID_NOT_RUN
    with pytest.raises(seqrpc.ConnectionLost) as caught:
        end.line.send(MESSAGE)
    assert isinstance(caught.value.__cause__, BrokenPipeError)
    with line_end() as other:
        other.line.closing, other.line.sends_at_once = True, False
        with pytest.raises(seqrpc.ConnectionLost):
            other.line.send(MESSAGE)
        other.line.closing = False


def test_what_waited_and_is_refused_is_told_or_is_the_end(end: End) -> None:
    told: list[OSError] = []
    failed = OSError(1, "not permitted")
    queue(end, failed=told.append)
    packet = end.line._outlet.outbox.first  # type: ignore[union-attr]
    assert packet is not None
    end.line.refused(packet, failed)
    assert told == [failed]
    packet.failed = None
    end.line.refused(packet, failed)
    assert end.line.is_lost
    assert "not permitted" in str(end.line.lost_error())


def test_a_message_that_is_too_long_leaves_in_a_memory_file_while_little_may_wait(end: End) -> None:
    usual = end.line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    with end.line.lock:
        end.line.send(b"\x93\x02\xa3A.b\x91\xc6\x00\x02\x00\x00" + bytes(0x20000))
    assert end.receive()[0] == 4
    assert end.line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == usual
    end.fill()
    with end.line.lock:
        end.line.send(b"\x93\x02\xa3A.b\x91\xc6\x00\x02\x00\x00" + bytes(0x20000))
    assert end.line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < usual
    end.drain()
    end.line.flush()
    assert end.receive()[0] == 4
    assert end.line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == usual


def test_room_is_told_of(end: End) -> None:
    queue(end)
    end.drain()
    end.line.writable()
    assert end.line.wants_room() == (False, None)


# Ending


def test_a_close_waits_until_what_is_unsent_was_taken() -> None:
    with line_end() as end:
        queue(end, 2)
        closing = Thread(end.line.close)
        comes_true(lambda: end.line.closing)
        with pytest.raises(seqrpc.ConnectionLost):
            end.caller.request("A.b", [])
        messages = [message for message in end.rest() if message != [NOTIFY, "fill", []]]
        closing.result()
        assert messages == [[NOTIFY, "A.b", []]] * 2
        assert end.line.is_lost
        end.line.close()


def test_a_close_does_not_wait_for_ever_for_one_that_does_not_read() -> None:
    with line_end(limits=BRIEF) as end:
        queue(end)
        end.line.close()
        assert end.line.sock.fileno() == -1


def test_a_signal_handler_that_raises_ends_a_close_and_the_connection_with_it() -> None:
    with line_end() as end:
        queue(end)
        main = threading.main_thread()

        def interrupt() -> None:
            comes_true(lambda: end.line.closing and sleeps(main))
            os.kill(os.getpid(), signal.SIGINT)

        thread = Thread(interrupt)
        with pytest.raises(KeyboardInterrupt):
            end.line.close()
        thread.result()
        assert end.line.is_lost
        assert end.line.sock.fileno() == -1


@pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")
def test_a_close_rests_while_the_kernel_has_no_room_though_the_socket_has() -> None:
    """Too many descriptors under way (unix(7), ETOOMANYREFS): to look again at once would be a busy loop."""

    def work() -> tuple[bool, int]:
        looks = 0
        poll = waiting.poll

        def counting(*args: Any) -> Any:
            nonlocal looks
            looks += 1
            return poll(*args)

        vars(line_module)["poll"] = counting
        end = End(limits=seqrpc.Limits(close_timeout=0.1))
        with jammed(), OwnedFd.dup(0) as file:
            end.fill()
            with end.line.lock:
                end.line.send(b"\x93\x02\xa3A.b\x91\xc7\x01\x05\x00", [file])
            end.drain()
            end.line.close()
        end.raw.close()
        return end.line.is_lost, looks

    is_lost, looks = in_child(work, uid=OTHER_UID)
    assert is_lost
    assert looks <= 15


def test_a_line_ends_once_and_says_why() -> None:
    with line_end() as end:
        end.line.end_by(seqrpc.ConnectionLost("first"))
        end.line.end_by(seqrpc.ConnectionLost("second"))
        assert str(end.line.lost_error()) == "first"
        assert end.handler.lost == 1
        end.line.refuse("too late")
        end.line.close()


def test_who_takes_no_requests_says_so_once(end: End) -> None:
    end.line.refuse("upgrade")
    end.line.refuse("again")
    assert end.receive() == [CLOSING, "upgrade"]
    end.send(REQUEST, 1, "A.b", [])
    assert end.line.work()
    assert end.receive()[2][0] == "rpc.Unavailable"
    end.line.end("over")
    assert end.receive() is None


def test_all_that_goes_on_ends_with_the_connection() -> None:
    with line_end() as end, line_end(family=end.family) as other:
        end.family.add(other.line)
        log: list[str] = []
        end.family.errands.append(lambda: log.append("done"))
        assert end.line.is_unclosed
        end.line.close_family()
        assert not end.line.is_unclosed
        assert other.receive() == [CLOSING, "the connection of its service ended"]
        assert other.receive() is None
        assert log == ["done"]


def test_an_abandoned_line_waits_for_nothing() -> None:
    with line_end() as end:
        queue(end)
        end.line.abandon()
        assert end.line.is_lost
        assert "closed on this side" in str(end.line.lost_error())


def test_what_the_other_side_said_before_it_went_is_read(end: End) -> None:
    end.send(CLOSING, "upgrade")
    end.raw.shutdown(socket.SHUT_RDWR)
    end.line.read_rest()
    assert end.line.lost_error().reason == "upgrade"


def test_one_that_stops_reading_and_writes_on_is_not_read_for_ever(end: End) -> None:
    """Each message makes it write another one."""
    end.raw.shutdown(socket.SHUT_RD)
    asked = end.handler.asked

    def act(_line: Any, _request: Any) -> None:
        end.send(NOTIFY, "A.b", [])

    end.handler._act = act
    act(None, None)
    end.line.read_rest()
    assert end.line.is_lost
    assert 1000 < len(asked) < 2000


def test_a_socket_is_given_back_if_nothing_is_under_way(end: End) -> None:
    thread = Thread(lambda: end.caller.request("A.b", []))
    call_id = end.receive()[1]
    assert end.line.detach() is None
    end.send(RESPONSE, call_id, None, 1)
    thread.result()
    sock = end.line.detach()
    assert sock is not None
    with sock:
        end.raw.send(b"x")
        assert sock.recv(10) == b"x"
    assert "passed on" in str(end.line.lost_error())
