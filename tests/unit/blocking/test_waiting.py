from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.lines import Thread
from support.processes import in_child

from seqrpc.blocking.waiting import (
    LOOK_INTERVAL,
    READ,
    WRITE,
    Bell,
    Bystander,
    Waiter,
    close_number,
    earlier,
    poll,
    seconds_to_rest,
    seconds_until,
)

FOREVER = 10**15


class Pumping:
    """Waits for whatever it is told to."""

    def __init__(self, fd: int, events: int, retry_at: int | None = None) -> None:
        self.wanted = fd, events
        self.retry_at = retry_at

    def interest(self) -> tuple[int, int]:
        return self.wanted

    def work(self) -> None:
        raise AssertionError("it is only looked for")

    def end(self, reason: str) -> None:
        raise AssertionError("as above")

    def abandon(self) -> None: ...


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with pair[0], pair[1]:
        yield pair


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_a_bell_wakes_who_polls_however_often_it_was_rung() -> None:
    with contextlib.closing(Bell()) as bell:
        assert not is_readable(bell.fileno())
        for _ in range(10_000):  # more than there is room for
            bell.ring()
        assert is_readable(bell.fileno())
        bell.quiet()
        assert not is_readable(bell.fileno())
        bell.quiet()


def test_a_bell_that_is_closed_rings_nowhere() -> None:
    bell = Bell()
    ours, theirs = bell._ours.fileno(), bell._theirs.fileno()
    bell.close()
    bell.close()
    assert bell.fileno() == -1
    reader, writer = os.pipe()  # has the numbers now, or others
    try:
        bell.ring()
        bell.quiet()
        assert not is_readable(reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert {ours, theirs} & {reader, writer}


def test_a_bell_is_not_closed_while_another_thread_rings_it() -> None:
    """Its number would be another socket's, which would get a packet that nobody sent."""
    bell = Bell()
    with bell._lock:
        closing = Thread(bell.close)
        assert bell.fileno() >= 0
        bell.ring()
    closing.result()
    assert bell.fileno() == -1


def test_a_forked_child_has_no_bells_even_if_one_was_being_rung() -> None:
    bell = Bell()
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with bell._lock:
            held.set()
            over.wait()

    thread = Thread(hold)
    held.wait()
    try:
        assert in_child(bell.fileno) == -1
    finally:
        over.set()
    thread.result()
    bell.ring()
    assert is_readable(bell.fileno())
    bell.close()


def test_the_first_that_a_waiter_gets_counts() -> None:
    waiter = Waiter()
    assert not waiter.is_done
    waiter.finish("answer")
    waiter.finish(error=LookupError())
    assert (waiter.is_done, waiter.answer, waiter.error) == (True, "answer", None)
    failed = Bystander()
    failed.finish(error=LookupError())
    assert isinstance(failed.error, LookupError)


def test_a_waiter_sleeps_until_it_is_woken() -> None:
    waiter = Waiter()
    waiter.prepare()
    sleeping = Thread(lambda: waiter.sleep(None))
    waiter.wake()
    sleeping.result()
    waiter.prepare()
    waiter.finish()
    waiter.wake()  # of no use any more, and no harm
    waiter.sleep(None)
    waiter.prepare()
    waiter.prepare()
    waiter.sleep(time.monotonic_ns() + 1000)
    waiter.sleep(0)


def test_a_waiter_that_polls_is_woken_by_its_bell() -> None:
    waiter = Waiter()
    with contextlib.closing(Bell()) as bell:
        waiter.bell = bell
        waiter.finish()
        assert is_readable(bell.fileno())


def test_a_waiter_is_late_if_the_time_has_come_before_it_was_done() -> None:
    waiter = Waiter()
    assert waiter.is_late(0)
    assert not waiter.is_late(time.monotonic_ns() + FOREVER)
    waiter.finish()
    assert not waiter.is_late(0)


def test_waiters_are_told_apart_though_they_are_alike() -> None:
    assert len({Waiter(): None, Waiter(): None}) == 2
    assert Waiter() != Waiter()


def test_times() -> None:
    assert [earlier(*both) for both in ((None, None), (1, None), (None, 2), (1, 2), (2, 1))] == [None, 1, 2, 1, 1]
    assert seconds_until(0) < 0
    assert seconds_until(10**30) == 1e6  # as much as poll(2) takes


def test_who_is_not_woken_looks_again_before_the_time_has_come() -> None:
    assert seconds_to_rest(0) < 0
    assert seconds_to_rest(None) == seconds_to_rest(10**30) == LOOK_INTERVAL


def test_a_poll_tells_what_is_ready(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = (end.fileno() for end in pair)
    assert poll([(one, READ), (other, READ)], (), 0) == (set(), None)
    pair[0].send(b"x")
    assert poll([(one, READ), (other, READ)], (), None) == ({other}, None)
    assert poll([(one, READ | WRITE), (other, 0)], (), None) == ({one}, None)


def test_a_poll_ends_when_its_time_has_come(pair: tuple[socket.socket, socket.socket]) -> None:
    until = time.monotonic_ns() + 1_000_000
    assert poll([(pair[0].fileno(), READ)], (), until) == (set(), None)
    assert time.monotonic_ns() >= until


def test_a_poll_returns_the_pump_that_had_no_turn_for_longest(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = (end.fileno() for end in pair)
    over, waits = Pumping(-1, 0), Pumping(one, READ)
    at_once, writes = Pumping(one, 0), Pumping(other, WRITE)
    assert poll([], [over], 0) == (set(), None)
    assert poll([], [over, waits], 0) == (set(), None)
    assert poll([], [over, waits, at_once, writes], None) == (set(), at_once)
    assert poll([], [writes, at_once], None) == (set(), writes)
    assert poll([(other, WRITE)], [waits], None) == ({other}, None)


def test_pumps_that_are_always_ready_keep_none_from_its_turn_that_can_go_on_at_once(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """A peer that floods an object must not keep a stream from being produced."""
    flooded = Pumping(pair[0].fileno(), WRITE)
    at_once = Pumping(pair[1].fileno(), 0)
    assert poll([], [at_once, flooded], None) == (set(), at_once)
    assert poll([], [flooded, at_once], None) == (set(), flooded)


def test_a_pump_that_is_to_be_tried_again_is_returned_when_its_time_has_come(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    again = Pumping(pair[0].fileno(), READ, time.monotonic_ns() + 1_000_000)
    later = Pumping(pair[1].fileno(), READ, time.monotonic_ns() + FOREVER)
    assert poll([], [later, again], 0) == (set(), None)
    assert poll([], [later, again], None) == (set(), again)
    assert poll([], [later], time.monotonic_ns() + 1000) == (set(), None)


def test_a_number_is_free_whatever_close_says() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    for _ in range(2):
        close_number(reader)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)


def test_nothing_of_a_pump_is_asked_but_what_it_waits_for() -> None:
    pump: Any = Pumping(-1, 0)
    with pytest.raises(AssertionError):
        pump.work()
    with pytest.raises(AssertionError):
        pump.end("")
