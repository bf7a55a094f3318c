"""How a connection ends without an event loop: by whom, when, and what is still sent and read before."""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from support.lines import (
    CLOSING,
    NOTIFY,
    REQUEST,
    RESPONSE,
    End,
    Thread,
    at_call,
    comes_true,
    interrupting,
    line_end,
    sleeps,
)
from support.processes import AS_ROOT, OTHER_UID, in_child
from support.scarcity import jammed

import seqrpc
from seqrpc.blocking import line as line_module
from seqrpc.blocking import waiting
from seqrpc.kernel.descriptors import OwnedFd

BRIEF = seqrpc.Limits(close_timeout=0.02)


@pytest.fixture
def end() -> Iterator[End]:
    with line_end() as end:
        yield end


def test_a_close_waits_until_what_is_unsent_was_taken() -> None:
    with line_end() as end:
        end.queue(2)
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
        end.queue()
        end.line.close()
        assert end.line.sock.fileno() == -1


def test_a_signal_handler_that_raises_ends_a_close_and_the_connection_with_it() -> None:
    with line_end() as end:
        end.queue()
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


def test_a_close_that_is_interrupted_while_it_ends_the_connection_ends_it() -> None:
    with line_end() as end:
        with pytest.raises(KeyboardInterrupt), interrupting(at_call("_end_here")):
            end.line.close()
        assert end.line.is_lost
        assert end.line.sock.fileno() == -1
        assert end.receive() is None


def test_two_threads_may_close_a_line() -> None:
    with line_end() as end:
        end.queue()
        first = Thread(end.line.close)
        comes_true(lambda: end.line.closing)
        second = Thread(end.line.close)
        messages = [message for message in end.rest() if message != [NOTIFY, "fill", []]]
        first.result()
        second.result()
        assert messages == [[NOTIFY, "A.b", []]]
        assert "closed on this side" in str(end.line.lost_error())


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


def test_who_waits_until_all_is_sent_hears_of_the_end(end: End) -> None:
    end.queue()
    reader = Thread(lambda: end.caller.request("A.b", []))  # so that the other only waits
    comes_true(lambda: end.line.turns.is_reading)
    thread = Thread(lambda: end.line.flush_all(None))
    comes_true(lambda: end.line._flushers)
    end.line.end_by(seqrpc.ConnectionLost("over"))
    for waiting_thread in (reader, thread):
        with pytest.raises(seqrpc.ConnectionLost, match="over"):
            waiting_thread.result()


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
        end.queue()
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


def test_what_another_thread_has_received_is_not_lost_where_this_one_finds_that_nobody_reads(end: End) -> None:
    thread = Thread(lambda: end.caller.request("A.b", ()))
    call_id = end.receive()[1]
    with end.line.lock:  # the other thread receives the answer, and waits for this
        end.send(RESPONSE, call_id, None, "paid")
        comes_true(lambda: not select.select([end.line.sock], [], [], 0)[0])
        end.raw.close()
        end.line.broke(BrokenPipeError(errno.EPIPE, "nobody reads"))
    end.line.read_rest()
    assert end.line.is_lost
    assert thread.result() == "paid"


def test_what_is_logged_is_logged_without_the_lock(end: End, caplog: pytest.LogCaptureFixture) -> None:
    """A handler of logging may send what it gets over this very connection."""
    held: list[bool] = []

    class Asks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "seqrpc.connection":
                held.append(end.line.lock._is_owned())  # type: ignore[attr-defined]

    handler = Asks()
    with caplog.at_level(logging.DEBUG, "seqrpc.connection"):
        logging.getLogger("seqrpc.connection").addHandler(handler)
        try:
            for data in (msgpack.packb([CLOSING, "upgrade"]), b"\xc1"):
                end.raw.send(data)
                end.line.work()
        finally:
            logging.getLogger("seqrpc.connection").removeHandler(handler)
    assert held == [False, False]
