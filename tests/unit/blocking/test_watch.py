from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.packets import fill
from support.processes import AS_ROOT, OTHER_UID, in_child
from support.scarcity import jammed
from support.sync import Notes, Raw, Thread, comes_readable, raw_peer, readable

import seqrpc
from seqrpc import blocking
from seqrpc.blocking.family import Family
from seqrpc.blocking.waiting import READ, WRITE, Bell, Pump
from seqrpc.blocking.watch import Watch
from seqrpc.kernel.descriptors import OwnedFd


class Thing:
    """What can be watched, as the test says."""

    def __init__(self, events: int = READ) -> None:
        self.sock, self.other = socket.socketpair()
        self.events = events
        self.retry_at: int | None = None

    def interest(self) -> tuple[int, int]:
        return self.sock.fileno(), self.events

    def work(self) -> None: ...

    def end(self, reason: str) -> None: ...

    def abandon(self) -> None: ...

    def close(self) -> None:
        self.sock.close()
        self.other.close()


@contextmanager
def watching(*things: Thing) -> Iterator[tuple[Watch, Family, list[Any]]]:
    family = Family()
    watched: list[Pump] = [*things]
    watch = Watch(family, lambda: watched)
    yield watch, family, watched
    watch.close()
    for thing in watched:
        assert isinstance(thing, Thing)
        thing.close()


def test_it_is_readable_as_long_as_something_can_be_done() -> None:
    with watching(Thing()) as (watch, _family, (thing,)):
        assert not readable(watch.fileno())
        thing.other.send(b"!")
        assert readable(watch.fileno())
        assert readable(watch.fileno())
        thing.sock.recv(1)
        assert not readable(watch.fileno())


def test_what_can_go_on_at_once_and_what_waits_for_room_make_it_readable() -> None:
    for events, other in ((0, READ), (WRITE, READ), (READ | WRITE, READ)):
        with watching(Thing(events)) as (watch, _family, (thing,)):
            assert readable(watch.fileno())
            thing.events = other
            watch.update()
            assert not readable(watch.fileno())


def test_what_is_over_is_watched_no_more() -> None:
    with watching(Thing(0)) as (watch, _family, watched):
        watched[0].interest = lambda: (-1, 0)
        watch.update()
        assert readable(watch.fileno()), "it is told once, for it has no descriptor any more that could tell"
        with watch:
            assert not readable(watch.fileno())
        assert not readable(watch.fileno())


def test_a_number_may_become_anothers() -> None:
    with watching(Thing()) as (watch, _family, watched):
        old = watched.pop()
        number = old.sock.fileno()
        new = Thing()
        old.close()
        os.dup2(new.sock.fileno(), number)
        new.sock.close()
        new.sock = socket.socket(fileno=number)
        watched.append(new)
        watch.update()
        new.other.send(b"!")
        assert readable(watch.fileno())


def test_what_was_closed_meanwhile_is_left_out() -> None:
    with watching() as (watch, _family, watched):
        gone = Thing()
        number = gone.sock.fileno()
        gone.close()
        gone.interest = lambda: (number, READ)  # type: ignore[method-assign]
        watched.append(gone)
        watch.update()
        assert not readable(watch.fileno())


def test_the_family_tells_what_was_added_in_whatever_thread() -> None:
    with watching() as (watch, family, watched):
        thing = Thing(0)
        watched.append(thing)
        assert not readable(watch.fileno())
        Thread(lambda: family.add(thing)).result()
        assert readable(watch.fileno())


def test_it_is_readable_each_time_that_something_is_to_be_tried_again() -> None:
    with watching(Thing()) as (watch, _family, (thing,)):
        thing.retry_at = time.monotonic_ns()
        watch.update()
        for _ in range(3):
            watch.update()
            comes_readable(watch.fileno())
            with watch:
                assert not readable(watch.fileno())
        comes_readable(watch.fileno())
        thing.retry_at = None
        with watch:
            pass
        assert not readable(watch.fileno())


@pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")
def test_where_no_thread_can_be_started_it_is_readable_at_once() -> None:
    def work() -> list[bool]:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        with watching(Thing()) as (watch, _family, (thing,)):
            thing.retry_at = time.monotonic_ns()
            watch.update()
            seen = [readable(watch.fileno())]
            with watch:
                seen.append(readable(watch.fileno()))
            seen.append(readable(watch.fileno()))
            thing.retry_at = None
            with watch:
                pass
            return [*seen, readable(watch.fileno())]

    assert in_child(work, uid=OTHER_UID) == [True, False, True, False]


def test_one_that_is_closed_or_gone_is_not_rung_for_others_that_have_its_numbers() -> None:
    with watching(Thing()) as (watch, _family, _watched):
        numbers = {watch._bell._ours.fileno(), watch._bell._theirs.fileno()}
        alarm = watch._alarm
        watch.close()
        things = [Thing() for _ in range(4)]
        assert numbers <= {sock.fileno() for thing in things for sock in (thing.sock, thing.other)}
        alarm._ring_at(time.monotonic_ns())
        del watch._bell
        alarm._ring_at(time.monotonic_ns())
        for thing in things:
            assert not readable(thing.sock.fileno())
            assert not readable(thing.other.fileno())
            thing.close()
        watch._bell = Bell()  # to be closed again


def test_one_that_is_closed_watches_nothing() -> None:
    with watching(Thing(0)) as (watch, family, watched):
        watch.close()
        watch.update()
        family.add(watched[0])
        watch.close()


def test_a_forked_child_has_none() -> None:
    with watching(Thing(0)) as (watch, _family, _watched):
        number = watch.fileno()

        def act() -> bool:
            watch.update()
            return os.path.lexists(f"/proc/self/fd/{number}")

        assert in_child(act) is False
        assert readable(watch.fileno())


# Of a connection


class Object(seqrpc.Service):
    def __init__(self) -> None:
        self.notes = Notes()

    @seqrpc.method
    def hit(self) -> None:
        self.notes.note("hit")


def give(connection: blocking.Connection, raw: Raw, what: Any) -> Raw:
    raw.send(1, connection._line.session._next_id, None, None)
    connection.call("Other.take", what)
    _message, end = raw.receive_end()
    return end


def test_objects_that_are_given_away_later_make_it_readable() -> None:
    service = Object()
    with raw_peer() as (connection, raw):
        number = connection.fileno()
        end = give(connection, raw, service)
        assert not readable(number)
        end.send(0, 1, "Object.hit", [])
        assert readable(number)
        connection.process()
        assert service.notes.what == ["hit"]
        assert not readable(number)
        end.close()
        assert readable(number)
        connection.process()
        assert not readable(number)
        assert connection.fileno() == number


def test_nothing_wakes_a_loop_in_vain() -> None:
    with raw_peer(services=Object()) as (connection, raw):
        number = connection.fileno()
        for _ in range(3):
            connection.process()
            assert not readable(number)
        raw.send(1, 99, None, "an answer that nobody waits for")
        assert readable(number)
        connection.process()
        assert not readable(number)
        raw.close()
        assert readable(number)
        connection.process()
        assert connection.closed
        assert not readable(number)


def test_a_stream_goes_on_while_it_can_and_sleeps_while_nobody_reads() -> None:
    class Counting(seqrpc.Service, name="C"):
        @seqrpc.method
        def count(self) -> Any:
            return iter(range(10**9))

    with raw_peer(services=Counting()) as (connection, raw):
        number = connection.fileno()
        raw.send(0, 1, "C.count", [])
        connection.process()
        _message, end = raw.receive_end()
        turns = 0
        while readable(number):
            connection.process()
            turns += 1
        assert turns
        while select.select([end.sock], [], [], 0)[0]:
            end.receive()
        assert readable(number)
        end.close()
        connection.process()
        assert not readable(number)


def test_what_has_to_be_sent_makes_it_readable_once_there_is_room() -> None:
    with raw_peer() as (connection, raw):
        number = connection.fileno()
        with contextlib.suppress(BlockingIOError):
            while True:
                connection._line.sock.send(b"filling", socket.MSG_DONTWAIT)
        with pytest.raises(seqrpc.DeadlineExceeded), seqrpc.timeout(0.01):
            connection.call("Other.side")
        assert not readable(number)
        count = 0
        while select.select([raw.sock], [], [], 0)[0]:
            raw.sock.recv(10_000)
            count += 1
        assert count
        assert readable(number)
        connection.process()
        assert raw.receive()[:3] == [0, 0, "Other.side"]
        assert raw.receive() == [3, 0]
        assert not readable(number)


@pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")
def test_what_the_kernel_has_no_room_for_makes_it_readable_when_it_is_to_be_tried_again() -> None:
    def work() -> list[bytes]:
        with raw_peer() as (connection, raw):
            line, number = connection._line, connection.fileno()
            raw.sock.setblocking(False)
            came: list[bytes] = []

            def take() -> None:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        data, numbers, _flags, _address = socket.recv_fds(raw.sock, 10_000, 253)
                        came.append(data)
                        for received in numbers:
                            os.close(received)

            with jammed() as there:
                fill(line.sock)
                with line.lock:
                    line.send(b"with", [OwnedFd.dup(0)])
                    line.send(b"last")
                take()
                came.clear()
                for _ in range(5):
                    comes_readable(number)
                    connection.process()
                assert line.retry_at is not None
                take()
                assert not came
                there.close()
                while line.unsent_packets:
                    comes_readable(number)
                    connection.process()
            take()
            return came

    assert in_child(work, uid=OTHER_UID) == [b"with", b"last"]


def test_an_end_that_another_thread_meets_is_told_once() -> None:
    with raw_peer() as (connection, raw):
        number = connection.fileno()
        assert not readable(number)

        def call() -> None:
            with pytest.raises(seqrpc.ConnectionLost):
                connection.call("A.b")

        thread = Thread(call)
        raw.receive()
        raw.sock.close()
        thread.result()
        assert connection.closed
        assert readable(number)
        connection.process()
        assert not readable(number)
