from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from support.descriptors import is_open
from support.lines import Thread, at_call, comes_true, interrupting, sleeps
from support.scarcity import no_room, short_table

from seqrpc import ConnectionLost
from seqrpc.blocking.reading import Reading
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.inbox import Inbox, Trouble

ANSWER = b"\x94\x01\x05\xc0\x01"
REQUEST = b"\x94\x00\x05\xa3A.b\x90"


class Taker:
    """Notes what it takes."""

    def __init__(self) -> None:
        self.took: list[Any] = []
        self.fds: list[OwnedFd] = []
        self.work: Callable[[], object] | None = None
        self.again = True

    def take_packet(
        self, data: bytes, fds: list[OwnedFd], sender: Credentials | None, *, lost: bool = False
    ) -> Callable[[], object] | None:
        self.took.append((data, len(fds), None if sender is None else sender.pid, lost))
        self.fds += fds
        return self.work

    def take_plain(self, data: bytes) -> Callable[[], object] | None:
        self.took.append(data)
        return self.work

    def take_trouble(self, trouble: Trouble, size: int) -> None:
        self.took.append((trouble, size))

    def receive_failed(self, exc: OSError) -> bool:
        self.took.append(errno.errorcode[exc.errno or 0])
        return not isinstance(exc, BlockingIOError)

    def take_again(self, data: bytes) -> bool:
        self.took.append(("again?", data))
        return self.again

    def end_by(self, exc: Exception) -> None:
        self.took.append(exc)


class Made:
    """A reading, what it reads from, and who takes what it reads."""

    def __init__(self, *, names_senders: bool = False) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if names_senders:
            PLATFORM.ask_for_senders(self.ours)
        self.taker = Taker()
        self.reading = Reading(self.ours, Inbox(None, os.getuid(), names_senders=names_senders), self.taker)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        close_all(self.taker.fds)


def received(frame: FrameType, event: str, what: Any) -> bool:
    """Return whether a packet has come just now; see :func:`interrupting`."""
    return event == "c_return" and frame.f_code.co_name == "read" and what.__name__ == "extend"


@pytest.fixture
def made() -> Iterator[Made]:
    made = Made()
    yield made
    made.close()


def test_a_plain_packet_is_taken_with_what_it_asks_for(made: Made) -> None:
    made.theirs.send(b"x")
    assert made.reading.read() == (None, True)
    made.taker.work = made.close
    made.theirs.send(b"y" * MAX_PACKET)
    assert made.reading.read() == (made.close, True)
    assert made.taker.took == [b"x", b"y" * MAX_PACKET]
    assert not made.reading.is_busy


@pytest.mark.parametrize("waits", [False, True])
def test_a_reading_waits_if_it_is_told_to(made: Made, waits: bool) -> None:
    os.set_blocking(made.ours.fileno(), False)  # as somebody else may have who has it
    assert made.reading.read(waits=waits) == (None, False)
    assert made.taker.took == ["EAGAIN"]
    os.set_blocking(made.ours.fileno(), True)
    if waits:
        thread = Thread(lambda: made.theirs.send(b"late"))
        assert made.reading.read(waits=True) == (None, True)
        thread.result()
        assert made.taker.took[1:] == [b"late"]


def test_who_waits_looks_now_and_then(made: Made) -> None:
    seconds, _microseconds = struct.unpack("@ll", made.ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
    assert seconds == 1


def test_a_socket_that_is_passed_on_waits_as_long_as_it_likes(made: Made) -> None:
    made.reading.leave()
    assert made.ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == bytes(16)


def test_what_comes_with_a_packet_is_taken_with_it(pipe: tuple[int, int]) -> None:
    made = Made(names_senders=True)
    made.theirs.send(b"plain")
    socket.send_fds(made.theirs, [b"with"], pipe)
    made.taker.work = made.close
    assert [made.reading.read() for _ in range(2)] == [(made.close, True)] * 2
    assert made.taker.took == [(b"plain", 0, os.getpid(), False), (b"with", 2, os.getpid(), False)]
    made.close()


def test_what_came_in_place_of_a_packet_is_told(made: Made) -> None:
    made.theirs.send(b"x" * (MAX_PACKET + 1))
    made.theirs.close()
    assert [made.reading.read() for _ in range(2)] == [(None, True)] * 2
    assert made.taker.took == [(Trouble.TOO_LONG, MAX_PACKET + 1), (Trouble.END, 0)]


def test_descriptors_that_were_lost_are_told_of(made: Made, pipe: tuple[int, int]) -> None:
    socket.send_fds(made.theirs, [b"with"], [pipe[0]] * 40)
    with short_table(20):
        made.reading.read()
    assert made.taker.took == [(b"with", 0, None, True)]


def test_a_reset_is_told_once_and_what_came_before_it_is_read(made: Made) -> None:
    made.theirs.send(b"before")
    made.ours.send(b"unread")
    made.theirs.close()
    assert [made.reading.read() for _ in range(3)] == [(None, True)] * 3
    assert made.taker.took == ["ECONNRESET", b"before", (Trouble.END, 0)]


def test_each_thread_receives_into_a_buffer_of_its_own(made: Made) -> None:
    for number in range(3):
        made.theirs.send(b"%d" % number)
        Thread(made.reading.read).result()
        made.theirs.send(b"-%d" % number)
        made.reading.read()
    assert made.taker.took == [b"0", b"-0", b"1", b"-1", b"2", b"-2"]


@pytest.mark.parametrize("names_senders", [False, True])
def test_a_signal_handler_that_reads_elsewhere_does_not_spoil_the_packet_that_came(names_senders: bool) -> None:
    """All that a thread reads is received into one buffer."""
    outer, inner = Made(names_senders=names_senders), Made()
    os.set_blocking(inner.ours.fileno(), False)
    inner.reading.read()
    outer.theirs.send(b"outer" * 1000)
    inner.theirs.send(b"inner" * 1000)

    with interrupting(received, inner.reading.read) as came:
        outer.reading.read()
    assert came
    assert inner.taker.took[1:] == [b"inner" * 1000]
    (packet,) = outer.taker.took
    assert (packet[0] if names_senders else packet) == b"outer" * 1000
    Thread(inner.reading.read).result()
    inner.theirs.send(b"more")
    inner.reading.read()
    assert inner.taker.took[-1] == b"more"
    outer.close()
    inner.close()


def test_what_is_read_in_the_middle_of_a_packet_is_received_into_a_buffer_of_its_own(made: Made) -> None:
    """A finalizer may do that wherever the packet is looked at."""
    inner = Made()
    inner.theirs.send(b"inner" * 1000)
    room: list[bool] = []

    def take(data: bytes) -> None:
        inner.reading.read()
        room.append(inner.reading._buffer is made.reading._buffer)
        made.taker.took.append(data)

    made.taker.take_plain = take  # type: ignore[method-assign]
    made.theirs.send(b"outer" * 1000)
    made.reading.read()
    assert room == [False]
    assert made.taker.took == [b"outer" * 1000]
    assert inner.taker.took == [b"inner" * 1000]
    inner.close()


# Signal handlers that raise


@contextmanager
def interrupted_at(count: int) -> Iterator[list[str]]:
    """Let SIGINT come at the n-th moment at which Python looks for signals in the block: calls and returns from C."""
    seen = 0
    came: list[str] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal seen
        if came or event not in ("call", "c_return") or "/seqrpc/" not in frame.f_code.co_filename:
            return
        seen += 1
        if seen == count:
            came.append(f"{event} {frame.f_code.co_name}:{frame.f_lineno} {argument!r:.60}")
            os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(watch)
    try:
        yield came
    finally:
        sys.setprofile(None)


def read_interrupted(made: Made, count: int, *, again: bool = False) -> str:
    """Read; return where a signal came, if one did."""
    with interrupted_at(count) as came:
        try:
            if again:
                made.reading.read_again()
            else:
                made.reading.read()
        except KeyboardInterrupt:
            pass
    return (*came, "")[0]


@pytest.mark.parametrize("names_senders", [False, True])
@pytest.mark.parametrize("data", [ANSWER, REQUEST])
def test_a_packet_that_was_interrupted_is_left_or_taken_or_taken_again_or_the_end(
    data: bytes, names_senders: bool
) -> None:
    for count in range(1, 1000):
        made = Made(names_senders=names_senders)
        made.theirs.send(data)
        where = read_interrupted(made, count)
        reading, taker = made.reading, made.taker
        assert not reading.is_busy, where
        taken = [what for what in taker.took if what in (data, (data, 0, os.getpid(), False))]
        ended = [what for what in taker.took if isinstance(what, ConnectionLost)]
        try:
            left = made.ours.recv(100, socket.MSG_DONTWAIT)
        except BlockingIOError:
            left = b""
        outcomes = [bool(left), reading.left_over is not None, bool(ended)]
        assert sum(outcomes) == 1 or (not any(outcomes) and len(taken) == 1), (where, outcomes, taker.took)
        if reading.left_over is not None:
            assert not names_senders
            assert ("again?", data) in taker.took
            assert reading.left_over == data
        made.close()
        if not where:
            return


def failing(data: bytes) -> None:
    """Take a packet as one does whom a signal handler interrupts."""
    raise LookupError


def test_a_time_out_of_a_signal_handler_s_is_no_failure_to_receive(made: Made) -> None:
    """It is an OSError, too."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError("the time is up")

    def interrupt() -> None:
        comes_true(lambda: made.reading._room.reading is not None and sleeps(main))
        signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

    def read_on() -> None:
        while True:
            made.reading.read(waits=True)

    main = threading.main_thread()
    made.reading.read()  # so that there is a buffer
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        thread = Thread(interrupt)
        with pytest.raises(TimeoutError, match="the time is up"):
            read_on()
        thread.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert set(made.taker.took) == {"EAGAIN"}


def test_a_second_signal_before_the_first_is_cleaned_up_after_loses_nothing(made: Made) -> None:
    made.taker.take_plain = failing  # type: ignore[method-assign]
    made.theirs.send(ANSWER)
    with pytest.raises(KeyboardInterrupt), interrupting(at_call("_interrupted")):
        made.reading.read()
    assert made.reading.left_over == ANSWER
    assert not made.reading.is_busy
    del made.taker.take_plain
    assert made.reading.read() == (None, True)
    assert made.taker.took == [("again?", ANSWER), ANSWER]
    assert made.reading.left_over is None


def test_descriptors_that_came_with_an_interrupted_packet_are_taken_with_it_later(pipe: tuple[int, int]) -> None:
    made = Made(names_senders=True)
    made.taker.work = made.close
    socket.send_fds(made.theirs, [REQUEST], [pipe[0]])
    with pytest.raises(KeyboardInterrupt), interrupting(received):
        made.reading.read()
    assert made.reading.left_over == REQUEST
    assert made.reading.read_again() == made.close
    assert made.reading.left_over is None
    assert made.taker.took == [(REQUEST, 1, os.getpid(), False)]
    made.close()


def test_what_was_interrupted_with_its_sender_is_the_end() -> None:
    made = Made(names_senders=True)
    made.theirs.send(ANSWER)

    def fail(*_args: Any, **_options: Any) -> None:
        raise LookupError

    made.taker.take_packet = fail  # type: ignore[method-assign]
    with pytest.raises(LookupError):
        made.reading.read()
    (ended,) = made.taker.took
    assert str(ended) == "a signal handler interrupted this side in the middle of a message"
    made.close()


@pytest.mark.parametrize("again", [False, True])
def test_an_answer_that_is_interrupted_when_it_is_taken_again_is_left_over_or_the_end(made: Made, again: bool) -> None:
    made.taker.take_plain = failing  # type: ignore[method-assign]
    made.taker.again = again
    made.reading.left_over = ANSWER
    with pytest.raises(LookupError):
        made.reading.read_again()
    assert made.reading.left_over == (ANSWER if again else None)
    assert [type(what) for what in made.taker.took] == [tuple, ConnectionLost][: 2 - again]


def test_an_answer_that_may_not_be_taken_again_is_the_end(made: Made) -> None:
    made.taker.again = False
    made.theirs.send(ANSWER)
    made.taker.take_plain = failing  # type: ignore[method-assign]
    with pytest.raises(LookupError):
        made.reading.read()
    asked, ended = made.taker.took
    assert asked == ("again?", ANSWER)
    assert str(ended) == "a signal handler interrupted this side in the middle of a message"
    assert made.reading.left_over is None


def test_an_answer_is_taken_again_until_it_is_taken(made: Made) -> None:
    for count in range(1, 1000):
        made.reading.left_over = ANSWER
        made.taker.took.clear()
        where = read_interrupted(made, count, again=True)
        if made.reading.left_over is None:
            assert ANSWER in made.taker.took
        elif made.taker.took:  # else it had not begun
            assert made.taker.took[-1] == ("again?", ANSWER), where
        if not where:
            break
    assert made.taker.took == [ANSWER]
    made.taker.again = False
    made.reading.left_over = ANSWER
    assert read_interrupted(made, 1, again=True)
    assert made.reading.left_over in (ANSWER, None)


def test_descriptors_that_came_are_closed_wherever_a_signal_comes() -> None:
    """The fixture that looks for open descriptors is the judge; and what was taken is the taker's."""
    for count in range(1, 1000):
        made = Made(names_senders=True)
        reader, writer = os.pipe()
        socket.send_fds(made.theirs, [REQUEST], [writer])
        os.close(writer)
        where = read_interrupted(made, count)
        made.reading.drop()  # it may be left over, to be taken again
        made.close()
        assert CLOSER.wait_idle(30)
        assert os.read(reader, 1) == b"", f"a descriptor is open after a signal at {where}"
        os.close(reader)
        if not where:
            return


# Descriptors that cannot be closed fast enough


def test_a_packet_waits_as_long_as_too_many_descriptors_of_its_sender_are_not_closed(
    made: Made, pipe: tuple[int, int]
) -> None:
    made.theirs.send(b"plain")
    assert not made.reading.must_wait(0)
    made.reading.read()
    socket.send_fds(made.theirs, [b"with"], pipe)
    assert not made.reading.must_wait(0)
    with no_room(os.getuid()) as lifted:
        assert made.reading.must_wait(0)
        assert made.reading.must_wait(0.001)
        waiting = Thread(lambda: made.reading.must_wait(30))
        comes_true(lambda: made.reading in CLOSER._hopeful)
        lifted.set()
        assert waiting.result() is False
    made.reading.read()
    assert made.taker.took == [b"plain", (b"with", 2, None, False)]
    assert all(is_open(fd.fileno()) for fd in made.taker.fds)


def test_nothing_waits_where_nothing_can_be_seen(made: Made) -> None:
    assert not made.reading.must_wait(0)
