"""Who reads, of the threads that wait on one line; what else goes on meanwhile, and that nobody looks in vain."""

from __future__ import annotations

import functools
import gc
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from support.daemons import descriptor
from support.lines import NOTIFY, REQUEST, RESPONSE, End, Handler, Thread, comes_true, line_end, sleeps
from support.processes import in_child
from support.scarcity import no_room, table_full
from support.waiting import PATIENCE

import seqrpc
from seqrpc.blocking import turns, waiting
from seqrpc.blocking.family import Family
from seqrpc.blocking.waiting import READ, WRITE, Bystander, Waiter
from seqrpc.kernel.closing import CLOSER

SOON_NS = 20_000_000


@pytest.fixture
def end() -> Iterator[End]:
    with line_end() as end:
        yield end


class Pumping:
    """Always has something to do, or waits for what it is told; does something at its n-th turn."""

    def __init__(self, fd: int, events: int = 0, *, at: int = 0, act: Callable[[], object] = int) -> None:
        self.wanted = fd, events
        self.worked = 0
        self._at, self._act = at, act

    def interest(self) -> tuple[int, int]:
        return self.wanted

    def work(self) -> None:
        self.worked += 1
        if self.worked == self._at:
            self._act()

    def end(self, reason: str) -> None:
        self.wanted = -1, 0

    def abandon(self) -> None: ...


@pytest.fixture
def writable() -> Iterator[int]:
    """Return a descriptor that is always writable."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours.fileno()


def soon() -> int:
    return time.monotonic_ns() + SOON_NS


def waits_for_answer(end: End) -> tuple[Waiter, int]:
    """Return a waiter for an answer, and its id."""
    waiter = Waiter()
    with end.line.lock:
        waiter.call_id, (data, _lenders) = end.line.session.send_request(waiter, "A.b", [])
        end.line.send(data)
    return waiter, waiter.call_id


def counted(end: End, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often threads that wait look what there is to do."""
    looks: list[int] = []
    poll = waiting.poll

    def counting(*args: Any) -> Any:
        looks.append(threading.get_ident())
        return poll(*args)

    monkeypatch.setattr(turns, "poll", counting)
    return looks


# One reads for all


def test_a_lone_thread_waits_in_the_kernel_for_its_answer(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = counted(end, monkeypatch)
    waiter, call_id = waits_for_answer(end)
    end.send(RESPONSE, call_id, None, 5)
    end.line.turns.wait(waiter)
    assert waiter.answer.result == 5
    assert not end.line.turns.is_reading
    assert looks == []


def test_answers_go_to_their_askers_whoever_reads(end: End) -> None:
    threads = [Thread(functools.partial(end.caller.request, "A.b", [number])) for number in range(8)]
    asked = [end.receive() for _ in threads]
    for _kind, call_id, _method, (number,) in reversed(asked):
        end.send(RESPONSE, call_id, None, number)
    assert [thread.result() for thread in threads] == list(range(8))
    assert not end.line.turns.is_reading
    assert end.line.turns._followers == {}


def test_when_the_reader_has_its_answer_another_reads(end: End) -> None:
    first = Thread(lambda: end.caller.request("first", []))
    ids = [end.receive()[1]]
    second = Thread(lambda: end.caller.request("second", []))
    ids.append(end.receive()[1])
    comes_true(lambda: end.line.turns._followers)
    end.send(RESPONSE, ids[0], None, "one")
    assert first.result() == "one"
    end.send(RESPONSE, ids[1], None, "two")
    assert second.result() == "two"


def test_when_the_time_of_the_reader_is_up_another_reads(end: End) -> None:
    first = Thread(lambda: end.caller.request("first", [], deadline=soon()))
    assert end.receive()[2] == "first"
    second = Thread(lambda: end.caller.request("second", []))
    second_id = end.receive()[1]
    with pytest.raises(seqrpc.DeadlineExceeded):
        first.result()
    end.send(RESPONSE, second_id, None, "two")
    assert second.result() == "two"


def test_a_signal_handler_that_raises_lets_another_read(end: End) -> None:
    began = threading.Event()

    def second() -> Any:
        began.wait()
        comes_true(lambda: end.line.turns.is_reading)
        waiter, call_id = waits_for_answer(end)
        ids.append(call_id)
        os.kill(os.getpid(), signal.SIGINT)
        end.line.turns.wait(waiter)
        return waiter.answer.result

    ids: list[int] = []
    thread = Thread(second)
    began.set()
    with pytest.raises(KeyboardInterrupt):
        end.caller.request("first", [])
    end.send(RESPONSE, ids[0], None, "two")
    assert thread.result() == "two"


def test_a_follower_gives_up_when_its_own_time_is_up(end: End) -> None:
    first = Thread(lambda: end.caller.request("first", []))
    first_id = end.receive()[1]
    comes_true(lambda: end.line.turns.is_reading)
    with pytest.raises(seqrpc.DeadlineExceeded):
        end.caller.request("second", [], deadline=soon())
    end.send(RESPONSE, first_id, None, "one")
    assert first.result() == "one"


def test_all_hear_of_the_end(end: End) -> None:
    threads = [Thread(lambda: end.caller.request("A.b", [])) for _ in range(3)]
    for _ in threads:
        end.receive()
    end.raw.close()
    for thread in threads:
        with pytest.raises(seqrpc.ConnectionLost):
            thread.result()
    assert end.line.sock.fileno() == -1


def test_closing_in_another_thread_wakes_who_waits_in_the_kernel(end: End) -> None:
    """It began to wait when it was alone, and so has no bell."""
    waiter, _call_id = waits_for_answer(end)
    main = threading.main_thread()

    def close() -> None:
        comes_true(lambda: sleeps(main))
        end.line.close()

    thread_began = threading.Event()
    closing: list[Thread] = []

    def start(_number: int, _frame: object) -> None:
        closing.append(Thread(close))
        thread_began.set()

    before = signal.signal(signal.SIGALRM, start)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        end.line.turns.wait(waiter)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert isinstance(waiter.error, seqrpc.ConnectionLost)
    closing[0].result()
    assert end.line.sock.fileno() == -1


def test_who_waits_for_nothing_any_more_leaves(end: End) -> None:
    waiter = Waiter()
    with end.line.lock:
        end.line.turns.take(waiter)
    assert end.line.turns.is_mine
    assert end.line.turns.leader is waiter
    waiter.finish()
    end.line.turns.wait(waiter)
    assert not end.line.turns.is_reading
    assert not end.line.turns.is_mine


def test_a_done_follower_is_woken_though_who_finished_it_was_interrupted(end: End) -> None:
    first = Thread(lambda: end.caller.request("first", []))
    first_id = end.receive()[1]
    follower = Waiter()
    sleeping = Thread(lambda: end.line.turns.wait(follower))
    comes_true(lambda: end.line.turns._followers and sleeps(sleeping))
    follower.answer, follower.is_done = "answer", True  # but nobody has woken it
    end.send(RESPONSE, first_id, None, "one")
    first.result()
    sleeping.result()


# Within one thread


def test_a_signal_handler_may_call_while_its_thread_reads(end: End) -> None:
    """It reads itself, for its own thread, which waits below it, cannot."""
    got: list[Any] = []
    far = Thread(lambda: [end.answer("inner") if end.receive()[2] == "outer" else None, end.raw.recv(0)])
    far.join(0)

    def call(_number: int, _frame: object) -> None:
        got.append(end.caller.request("inner", []))
        end.send(RESPONSE, 0, None, "outer")

    before = signal.signal(signal.SIGALRM, call)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        assert end.caller.request("outer", []) == "outer"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert got == ["inner"]
    end.line.close()
    far.result()


def test_a_call_in_the_middle_of_a_packet_is_refused(end: End) -> None:
    """As a finalizer may make it: the packet is in the buffer still."""
    waiter, call_id = waits_for_answer(end)
    refused: list[BaseException] = []

    class Finalized:
        def __del__(self) -> None:
            try:
                end.caller.request("inner", [])
            except RuntimeError as exc:
                refused.append(exc)

    take_plain = end.line.take_plain

    class Taker:
        def __getattr__(self, name: str) -> Any:
            return getattr(end.line, name)

        def take_plain(self, data: bytes) -> Any:
            Finalized()
            gc.collect()
            return take_plain(data)

    end.line.reading._taker = Taker()
    end.send(RESPONSE, call_id, None, "outer")
    end.line.turns.wait(waiter)
    assert waiter.answer.result == "outer"
    assert "in use by this very thread" in str(refused[0])


# What else goes on


def test_what_goes_on_has_its_turns_while_a_thread_waits(end: End, writable: int) -> None:
    waiter, call_id = waits_for_answer(end)
    pump = Pumping(writable, at=3, act=lambda: end.send(RESPONSE, call_id, None, 1))
    end.family.add(pump)
    end.line.turns.wait(waiter)
    assert waiter.is_done
    end.family.discard(pump)


def test_an_answer_is_read_though_there_is_always_something_else_to_do(end: End, writable: int) -> None:
    pump = Pumping(writable)
    end.family.add(pump)
    waiter, call_id = waits_for_answer(end)
    end.send(RESPONSE, call_id, None, 1)
    end.line.turns.wait(waiter)
    assert pump.worked <= 2
    end.family.discard(pump)


@pytest.mark.parametrize("reads", [True, False])
def test_a_deadline_holds_though_there_is_always_something_to_do(end: End, writable: int, reads: bool) -> None:
    waiter = Waiter(pumps=[Pumping(writable)])
    other = None
    if not reads:
        other = Thread(lambda: end.caller.request("first", []))
        first_id = end.receive()[1]
        comes_true(lambda: end.line.turns.is_reading)
    with pytest.raises(seqrpc.DeadlineExceeded):
        end.line.turns.wait(waiter, soon())
    if other is not None:
        end.send(RESPONSE, first_id, None, 1)
        other.result()


def test_all_that_goes_on_has_turns_a_call_s_own_and_the_others(end: End, writable: int) -> None:
    own = [Pumping(writable), Pumping(writable)]
    others = [Pumping(writable), Pumping(writable)]
    for pump in others:
        end.family.add(pump)
    with pytest.raises(seqrpc.DeadlineExceeded):
        end.line.turns.wait(Waiter(pumps=list(own)), soon())
    assert all(pump.worked > 2 for pump in (*own, *others))
    for pump in others:
        end.family.discard(pump)


def test_a_follower_goes_on_with_what_is_its_call_s_own(end: End, writable: int) -> None:
    first = Thread(lambda: end.caller.request("first", []))
    first_id = end.receive()[1]
    comes_true(lambda: end.line.turns.is_reading)
    waiter, call_id = waits_for_answer(end)
    pump = Pumping(writable, at=3, act=lambda: end.send(RESPONSE, call_id, None, 2))
    waiter.pumps = [pump]
    end.line.turns.wait(waiter)
    assert waiter.answer.result == 2
    end.send(RESPONSE, first_id, None, 1)
    assert first.result() == 1


def test_a_follower_that_polls_hears_that_it_is_done(end: End) -> None:
    first = Thread(lambda: end.caller.request("first", []))
    first_id = end.receive()[1]
    comes_true(lambda: end.line.turns.is_reading)
    waiter, call_id = waits_for_answer(end)
    reader, writer = os.pipe()
    waiter.pumps = [Pumping(reader, READ)]  # never
    thread = Thread(lambda: end.line.turns.wait(waiter))
    comes_true(lambda: waiter.bell is not None)
    end.send(RESPONSE, call_id, None, 2)
    thread.result()
    end.send(RESPONSE, first_id, None, 1)
    first.result()
    os.close(reader)
    os.close(writer)


def test_what_is_added_meanwhile_goes_on_at_once(end: End, writable: int) -> None:
    over = threading.Event()
    another = Thread(over.wait)
    waiter, call_id = waits_for_answer(end)
    pump = Pumping(writable, WRITE, at=1, act=lambda: end.send(RESPONSE, call_id, None, 1))
    thread = Thread(lambda: end.line.turns.wait(waiter))
    comes_true(lambda: end.line.turns.bell is not None and sleeps(thread))
    end.family.add(pump)
    thread.result()
    end.family.discard(pump)
    over.set()
    another.result()


def test_errands_are_run_by_who_waits() -> None:
    log: list[str] = []
    handler = Handler(act=lambda line, _request: line.family.errands.append(lambda: log.append("done")))
    with line_end(handler) as other:
        other.send(NOTIFY, "A.b", [])
        waiter, call_id = waits_for_answer(other)
        other.send(RESPONSE, call_id, None, 1)
        other.line.turns.wait(waiter)
        assert log == ["done"]
        other.send(NOTIFY, "A.b", [])
        assert other.line.work()
        assert log == ["done", "done"]


# What is asked of this side


def test_what_was_read_and_not_begun_is_done_by_who_waits_next(end: End) -> None:
    end.send(REQUEST, 7, "A.b", [1])
    end.line.reading.read()
    assert len(end.line.turns.works) == 1
    assert end.line.work()
    assert end.receive() == [RESPONSE, 7, None, [1]]
    end.send(REQUEST, 8, "A.b", [2])
    end.line.reading.read()
    waiter, call_id = waits_for_answer(end)
    end.send(RESPONSE, call_id, None, 5)
    end.line.turns.wait(waiter)
    assert end.drain()[-1] == [RESPONSE, 8, None, [2]]
    end.line.turns.serve()  # nothing is left


def test_one_packet_is_taken_at_a_time_without_waiting(end: End) -> None:
    assert not end.line.work()
    for number in range(2):
        end.send(REQUEST, number, "A.b", [])
    assert end.line.work()
    assert [call_id for call_id, *_ in end.handler.asked] == [0]
    assert end.line.work()
    end.line.reading.left_over = b"\x94\x01\x05\xc0\x01"
    assert end.line.work()
    assert not end.line.work()


def test_if_another_thread_reads_nothing_is_taken(end: End) -> None:
    thread = Thread(lambda: end.caller.request("A.b", []))
    call_id = end.receive()[1]
    comes_true(lambda: end.line.turns.is_reading)
    assert not end.line.work()
    end.send(RESPONSE, call_id, None, 1)
    thread.result()
    end.line.close()
    assert not end.line.work()


# Nobody looks in vain


def test_who_waits_sleeps(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads on one line, and a third on another of its family, which has the first among what goes on."""
    looks = counted(end, monkeypatch)
    with line_end(family=end.family) as other:
        end.family.add(end.line)
        threads = [Thread(lambda: end.caller.request("A.b", [])) for _ in range(2)]
        ids = [end.receive()[1] for _ in threads]
        third = Thread(lambda: other.caller.request("A.b", []))
        other_id = other.receive()[1]
        comes_true(lambda: all(sleeps(thread) for thread in (*threads, third)))
        before = len(looks)
        time.sleep(0.05)
        assert len(looks) - before <= 3
        for number in ids:
            end.send(RESPONSE, number, None, 1)
        other.send(RESPONSE, other_id, None, 2)
        assert [thread.result() for thread in (*threads, third)] == [1, 1, 2]


def test_packets_that_may_not_be_read_yet_are_not_looked_at_all_the_time(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    """Of a line of the family: the thread waits on another one."""
    family = Family()
    with line_end(family=family) as end, line_end(family=family) as flooded:
        looks = counted(end, monkeypatch)
        family.add(flooded.line)
        flooded.send(NOTIFY, "A.b", [descriptor(0)], fds=[pipe[0]])
        with no_room(flooded.line._inbox.uid):
            CLOSER.careful = True
            with pytest.raises(seqrpc.DeadlineExceeded):
                end.caller.request("A.b", [], deadline=time.monotonic_ns() + 60_000_000)
            assert len(looks) < 30
        CLOSER.careful = CLOSER.near_full
        assert flooded.line.work()


def test_a_reader_waits_until_packets_may_be_read(end: End, pipe: tuple[int, int]) -> None:
    end.send(NOTIFY, "A.b", [descriptor(0)], fds=[pipe[0]])
    with no_room(end.line._inbox.uid):
        CLOSER.careful = True
        with pytest.raises(seqrpc.DeadlineExceeded):
            end.line.turns.wait(Waiter(), soon())
        assert end.handler.asked == []
    CLOSER.careful = CLOSER.near_full
    assert end.line.work()
    assert len(end.handler.asked) == 1


def test_a_reader_that_may_not_read_yet_hears_of_the_end_before_its_time(
    end: End, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LOOK_INTERVAL", 0.01)
    end.send(NOTIFY, "A.b", [descriptor(0)], fds=[pipe[0]])
    with no_room(end.line._inbox.uid):
        CLOSER.careful = True
        thread = Thread(lambda: end.caller.request("A.b", [], deadline=time.monotonic_ns() + 10**15))
        comes_true(lambda: end.line.reading in CLOSER._hopeful)
        end.line.close()
        with pytest.raises(seqrpc.ConnectionLost):
            thread.result()
    assert end.handler.asked == []


def test_where_there_are_no_descriptors_for_bells_threads_look_now_and_then(end: End, writable: int) -> None:
    first = Thread(lambda: end.caller.request("first", []))
    first_id = end.receive()[1]
    comes_true(lambda: end.line.turns.is_reading and sleeps(first))
    waiter, call_id = waits_for_answer(end)
    end.receive()
    waiter.pumps = [Pumping(writable, at=2, act=lambda: end.send(RESPONSE, call_id, None, 2))]
    with table_full():
        end.line.turns.wait(waiter)
        end.line.turns.bell, bell = None, end.line.turns.bell
        assert end.line.turns._listen() is None
        end.line.turns.bell = bell
    end.send(RESPONSE, first_id, None, 1)
    first.result()


def test_what_another_thread_queues_before_there_is_a_bell_is_sent(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    make, queued = waiting.Bell, threading.Event()

    def queue() -> None:
        end.fill()
        with end.line.lock:
            end.line.send(msgpack.packb([NOTIFY, "last", []]))
        assert end.line.unsent_packets == 1
        queued.set()

    def make_late() -> waiting.Bell:
        monkeypatch.setattr(turns, "Bell", make)
        Thread(queue).result()
        return make()

    monkeypatch.setattr(turns, "Bell", make_late)
    thread = Thread(lambda: end.caller.request("first", []))
    assert queued.wait(PATIENCE)
    first_id = end.receive()[1]
    while (message := end.receive()) == [NOTIFY, "fill", []]:
        pass
    assert message == [NOTIFY, "last", []]
    end.send(RESPONSE, first_id, None, 1)
    assert thread.result() == 1


# The rest


def test_who_has_a_broken_line_reads_what_is_there_and_hears_of_the_end(end: End) -> None:
    waiter, call_id = waits_for_answer(end)
    end.send(REQUEST, 3, "A.b", [])
    end.raw.shutdown(socket.SHUT_RD)  # there is no end of file
    other, _other_id = Waiter(), 0
    with end.line.lock, pytest.raises(seqrpc.ConnectionLost):
        end.line.send(b"\x93\x02\xa3A.b\x90" * 20_000)
    assert end.line.broken is not None
    end.send(RESPONSE, call_id, None, 1)
    end.line.turns.wait(waiter)
    assert waiter.answer.result == 1
    end.line.turns.wait(other)
    assert isinstance(other.error, seqrpc.ConnectionLost)


def test_bystanders_are_no_calls() -> None:
    assert isinstance(Bystander(), Waiter)
    assert type(Bystander()) is not Waiter


def test_a_forked_child_waits_for_nobody(end: End) -> None:
    thread = Thread(lambda: end.caller.request("A.b", []))
    call_id = end.receive()[1]
    comes_true(lambda: end.line.turns.is_reading)

    def child() -> tuple[bool, str]:
        waiter = Waiter()
        end.line.turns.wait(waiter)
        return end.line.turns.is_reading, str(waiter.error)

    reads, error = in_child(child)
    assert not reads
    assert error
    end.send(RESPONSE, call_id, None, 1)
    assert thread.result() == 1


def test_a_line_that_nobody_uses_has_no_bell(end: End) -> None:
    over = threading.Event()
    another = Thread(over.wait)
    with pytest.raises(seqrpc.DeadlineExceeded):
        end.caller.request("A.b", [], deadline=soon())
    bell = end.line.turns.bell
    assert bell is not None
    end.line.turns.wake_leader()
    assert select.select([bell.fileno()], [], [], 0)[0]
    end.line.close()
    assert bell.fileno() == -1
    over.set()
    another.result()
