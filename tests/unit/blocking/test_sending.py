"""Sending without an event loop: what leaves at once, what waits for room, and who waits until it was sent."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.lines import NOTIFY, RESPONSE, End, Thread, comes_true, line_end, sleeps

import seqrpc

MESSAGE = b"\x93\x02\xa3A.b\x90"


@pytest.fixture
def end() -> Iterator[End]:
    with line_end() as end:
        yield end


def sent(end: End, number: int) -> list[Any]:
    """Return so many messages, after what filled the socket."""
    messages: list[Any] = []
    while len(messages) < number:
        message = end.receive()
        if message != [NOTIFY, "fill", []]:
            messages.append(message)
    return messages


def test_what_finds_no_room_is_sent_by_who_waits(end: End) -> None:
    end.queue(3)
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
    end.queue()
    assert sent(end, 1) == [[NOTIFY, "A.b", []]]
    end.send(RESPONSE, call_id, None, 1)
    assert first.result() == 1


def test_what_watches_is_told_when_something_still_waits(end: End) -> None:
    class Watching:
        """Notes what it could watch for when it was told."""

        def __init__(self) -> None:
            self.seen: list[tuple[bool, int | None]] = []

        def update(self) -> None:
            self.seen.append(end.line.wants_room())

    watching = Watching()
    end.family.watches.add(watching)
    end.queue()
    assert watching.seen == [(True, None)]
    end.line.flush()
    assert watching.seen == [(True, None)] * 2
    end.drain()
    end.line.flush()
    assert watching.seen == [(True, None)] * 2


def test_who_waits_for_room_gives_up_when_the_time_is_up_or_the_connection_ends(end: End) -> None:
    end.queue()
    with pytest.raises(seqrpc.DeadlineExceeded):
        end.line.flush_all(time.monotonic_ns() + 10_000_000)
    assert not end.line._flushers, "whoever gives up is not kept"
    thread = Thread(lambda: end.line.flush_all(None))
    comes_true(lambda: len(end.line._flushers) == 1)
    end.raw.close()
    with pytest.raises(seqrpc.ConnectionLost):
        thread.result()


def test_who_waits_until_all_is_sent_hears_that_nobody_reads_any_more(end: End) -> None:
    """What waits is dropped then, and was not sent."""
    end.queue()
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
    end.queue(failed=told.append)
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
    end.queue()
    end.drain()
    end.line.writable()
    assert end.line.wants_room() == (False, None)


def test_who_sends_much_waits_for_room_and_no_longer_than_it_may() -> None:
    limits = seqrpc.Limits(high_water_bytes=300, low_water_bytes=1)
    with line_end(limits=limits) as end:
        end.queue()
        end.line.wait_for_room(time.monotonic_ns())  # not so much waits yet
        with end.line.lock:
            end.line.send(MESSAGE)
        with pytest.raises(seqrpc.DeadlineExceeded, match="before the call could be sent") as caught:
            end.line.wait_for_room(time.monotonic_ns())
        assert caught.value.execution is seqrpc.Execution.DID_NOT_RUN
        thread = Thread(lambda: end.line.wait_for_room(None))
        assert sent(end, 2) == [[NOTIFY, "A.b", []]] * 2
        thread.result()
        assert end.line.unsent_bytes == 0


def test_nobody_waits_until_nothing_is_sent(end: End) -> None:
    end.line.broke(BrokenPipeError(errno.EPIPE, "nobody reads"))
    end.line.flush_all(None)
    with pytest.raises(seqrpc.ConnectionLost) as caught:
        end.line.send(MESSAGE)
    assert isinstance(caught.value.__cause__, BrokenPipeError)


def test_a_line_that_breaks_says_why_it_broke_first(end: End) -> None:
    first = BrokenPipeError(errno.EPIPE, "first")
    end.queue()
    end.line.broke(first)
    assert end.line.unsent_packets == 0
    end.line.broke(BrokenPipeError(errno.EPIPE, "second"))
    assert end.line.broken is first
    end.line.flush()
    end.line.flush_all(None)
