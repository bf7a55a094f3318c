"""Closing what others sent, where nobody waits for it."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.descriptors import is_open
from support.kinds import AT_ONCE, SOON, a_file, a_socket
from support.lingering import can_mount, hidden, lingering, silent_file_system, start_thread
from support.processes import AS_ROOT, chroot, in_child

from seqrpc.kernel import closing
from seqrpc.kernel.closing import CLOSER, Closer, closes_now, is_trusted
from seqrpc.limits import CLOSING_THREADS, CLOSING_THREADS_OF_ONE, MAX_UNCLOSED, MAX_UNCLOSED_OF_ONE

LONG = 30.0
"""Seconds that only a bug takes."""

ANN, BOB = 1001, 1002


@pytest.fixture
def closer() -> Iterator[Closer]:
    made = Closer(start_thread)
    yield made
    assert made.wait_idle(LONG)


as_root = pytest.mark.skipif(not AS_ROOT, reason="needs to be root")


def test_only_our_own_user_and_root_are_trusted() -> None:
    assert is_trusted(0)
    assert is_trusted(os.geteuid())
    assert not is_trusted(os.geteuid() + 4_242)
    assert not is_trusted(None)


def test_what_another_user_sent_is_closed_by_a_thread_whatever_it_is(pipe: tuple[int, int]) -> None:
    """Closing a pipe waits for whoever writes to it, and that may be held up."""
    threads: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
    closer = Closer(lambda work, args: threads.append((work, args)))
    fd = os.dup(pipe[0])
    closer.close(fd, os.geteuid() + 4_242)
    assert is_open(fd)
    ((work, args),) = threads
    threading.Thread(target=work, args=args, daemon=True).start()
    assert closer.wait_idle(LONG)
    assert not is_open(fd)
    fd = os.dup(pipe[0])
    closer.close(fd, os.geteuid())
    assert not is_open(fd)


class Bar:
    """Something that threads have to wait for."""

    def __init__(self) -> None:
        self.lifted = threading.Event()
        self.waiting = threading.Semaphore(0)

    def wait(self) -> None:
        self.waiting.release()
        assert self.lifted.wait(LONG)

    def until(self, number: int) -> None:
        """Wait until so many threads more wait."""
        for _ in range(number):
            assert self.waiting.acquire(timeout=LONG)


@pytest.fixture
def bar() -> Iterator[Bar]:
    made = Bar()
    yield made
    made.lifted.set()


# What is closed now, and what soon


@pytest.mark.parametrize("sender", [os.geteuid(), 0], ids=["own", "root"])
@pytest.mark.parametrize("make", AT_ONCE.values(), ids=AT_ONCE)
def test_what_closes_at_once_is_closed_now(make: Callable[[], int], sender: int, closer: Closer) -> None:
    fd = make()
    closer.close(fd, sender)
    assert not is_open(fd)


@pytest.mark.parametrize("sender", [os.geteuid(), ANN], ids=["own", "another"])
@pytest.mark.parametrize("make", SOON.values(), ids=SOON)
def test_others_are_closed_soon(make: Callable[[], int], sender: int, closer: Closer) -> None:
    fd = make()
    assert not closes_now(fd, sender)
    closer.close(fd, sender)
    assert closer.wait_idle(LONG)
    assert not is_open(fd)


@pytest.mark.skipif(not can_mount(), reason="needs to mount a file system")
def test_closing_waits_for_a_file_system_elsewhere(closer: Closer) -> None:
    with silent_file_system() as mounted:
        fd = mounted.open()
        mounted.fall_silent()
        closer.close(fd, os.geteuid())
        other = a_socket()
        closer.close(other, BOB)
        while is_open(other) or is_open(fd):
            time.sleep(0)
        assert not closer.wait_idle(0.05)
    assert closer.wait_idle(LONG)


def test_what_is_not_open_is_told(closer: Closer) -> None:
    fd = a_socket()
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        closer.close(fd)


@as_root
def test_where_nothing_can_be_known_it_is_closed_soon(closer: Closer, pipe: tuple[int, int]) -> None:
    def without_proc() -> bool:
        with chroot(directory):
            fd = os.dup(pipe[0])
            assert not closes_now(fd, os.geteuid())
            CLOSER.close(fd)
            return CLOSER.wait_idle(LONG)

    with tempfile.TemporaryDirectory() as directory:
        assert in_child(without_proc)


# Where nobody waits


def test_closing_what_lingers_takes_no_time_of_whoever_closes_it(closer: Closer) -> None:
    with lingering(60) as made:
        fds = [made.make().detach(), hidden(hidden(made.make())).detach()]
        begin = time.monotonic()
        for fd in fds:
            closer.close(fd, ANN)
        assert time.monotonic() - begin < 1
        while any(map(is_open, fds)):
            time.sleep(0)
        assert not closer.wait_idle(0.05)
    assert closer.wait_idle(LONG)


def test_descriptors_of_others_are_closed_while_one_s_linger(closer: Closer, bar: Bar) -> None:
    for _ in range(CLOSING_THREADS_OF_ONE):
        closer.put(-1, ANN, bar.wait)
        bar.until(1)
    left = a_socket()
    closer.put(left, ANN)  # nobody is left for it
    for _ in range(100):
        fd = a_socket()
        closer.put(fd, BOB)
        while is_open(fd):
            time.sleep(0)
    assert is_open(left)
    bar.lifted.set()
    assert closer.wait_idle(LONG)
    assert not is_open(left)


def test_threads_are_bounded(closer: Closer, bar: Bar) -> None:
    senders = range(CLOSING_THREADS + 5)
    for sender in senders:
        closer.put(-1, sender, bar.wait)
    bar.until(CLOSING_THREADS)
    fd = a_socket()
    closer.put(fd, ANN)
    assert not closer.wait_idle(0.05)
    assert is_open(fd)
    assert len(closer._threads) == CLOSING_THREADS
    bar.lifted.set()
    assert closer.wait_idle(LONG)
    assert not is_open(fd)


def test_many_are_closed_with_few_calls(closer: Closer, bar: Bar) -> None:
    closer.put(-1, ANN, bar.wait)
    bar.until(1)
    fds = [a_socket() for _ in range(50)]
    gone = fds.pop(20)
    os.close(gone)  # a gap between them
    keep = a_socket()
    for fd in reversed(fds):
        closer.put(fd, ANN)
    closer.put(-1, ANN)
    closer.put(-1, ANN, None)
    bar.lifted.set()
    assert closer.wait_idle(LONG)
    assert not any(map(is_open, fds))
    assert is_open(keep)
    os.close(keep)


def test_what_is_to_be_done_before_may_fail(closer: Closer) -> None:
    def fail() -> None:
        raise ValueError

    fd = a_socket()
    closer.put(fd, ANN, fail)
    closed = a_socket()
    os.close(closed)
    closer.put(closed, ANN, fail)
    assert closer.wait_idle(LONG)
    assert not is_open(fd)


def test_threads_sleep_and_end_when_there_is_nothing_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "_NAP", 0.0001)
    monkeypatch.setattr(closing, "_IDLE_TIMEOUT", 0.05)
    made = Closer(start_thread)
    for rounds in range(3):
        fd = a_socket()
        made.close(fd)
        assert made.wait_idle(LONG)
        assert not is_open(fd)
        if rounds == 1:  # the second finds them asleep, the third finds none
            while made._threads:
                time.sleep(0.001)
        else:
            while not made._asleep and made._threads:
                time.sleep(0)
    while made._threads:
        time.sleep(0.001)
    assert (made._awake, made._asleep) == (set(), set())


def test_a_thread_that_is_woken_as_it_gives_up_goes_on(closer: Closer, monkeypatch: pytest.MonkeyPatch) -> None:
    bell = threading.Lock()
    bell.acquire()
    monkeypatch.setattr(closing, "_IDLE_TIMEOUT", 0.0)
    waker = threading.Timer(0.05, bell.release)

    class Woken(set[Any]):
        def remove(self, item: object) -> None:
            waker.start()  # whoever took it out wakes it now
            raise KeyError(item)

    closer._asleep = Woken()
    assert closer._sleep(bell)
    closer._asleep = set()
    closer._inbox.append((-1, None, None))
    assert closer._sleep(bell), "something came before it slept"
    assert closer._awake == {bell}
    closer._awake.clear()
    closer._inbox.clear()
    closer._lines.clear()
    assert not closer._sleep(bell)


def test_without_threads_it_is_closed_when_there_may_be_one_again() -> None:
    def refuse(*_args: object) -> None:
        raise RuntimeError("can't start new thread")

    made = Closer(refuse)
    fds = [a_socket() for _ in range(MAX_UNCLOSED_OF_ONE)]
    for fd in fds:
        made.close(fd, ANN)
    assert made.careful
    assert not made.has_room(ANN)
    made._start_thread = start_thread
    assert not made.has_room(ANN)
    assert made.wait_idle(LONG)
    assert not any(map(is_open, fds))


def test_a_finalizer_may_close_whatever_is_going_on(closer: Closer) -> None:
    class Dropped:
        def __init__(self) -> None:
            self.fd, self.me = a_socket(), self

        def __del__(self) -> None:
            closer.close(self.fd, ANN)

    fds = [Dropped().fd for _ in range(10)]
    with closer._lock:  # as if the collector had come while the thread held it
        gc.collect()
    assert closer.wait_idle(LONG)
    assert not any(map(is_open, fds))


# Bounds


def test_one_sender_has_room_until_many_of_his_wait(closer: Closer, bar: Bar) -> None:
    told = threading.Event()
    closer.put(-1, ANN, bar.wait)
    bar.until(1)
    for _ in range(MAX_UNCLOSED_OF_ONE - 2):
        closer.put(-1, ANN, bar.wait)
    assert closer.has_room(ANN, "ann", told.set)
    closer.put(-1, ANN, bar.wait)
    assert closer.careful
    assert not closer.has_room(ANN, "ann", told.set)
    assert closer.has_room(BOB)
    assert not told.is_set()
    bar.lifted.set()
    assert told.wait(LONG)
    assert closer.has_room(ANN)
    assert closer.wait_idle(LONG)
    assert not closer.careful


def test_whoever_waits_for_room_may_give_up_or_fail(closer: Closer, bar: Bar) -> None:
    told: list[str] = []
    last = threading.Event()

    def fail() -> None:
        told.append("fails")
        raise RuntimeError("the loop is closed")

    closer.put(-1, ANN, bar.wait)
    bar.until(1)
    for _ in range(MAX_UNCLOSED_OF_ONE):
        closer.put(-1, ANN, bar.wait)
    assert not closer.has_room(ANN, 1, lambda: told.append("forgotten"))
    assert not closer.has_room(ANN, 2, fail)
    assert not closer.has_room(ANN, 3, last.set)
    closer.forget(1)
    closer.forget("unknown")
    bar.lifted.set()
    assert last.wait(LONG)
    assert closer.wait_idle(LONG)
    assert told == ["fails"]


def test_all_senders_together_are_bounded_and_one_who_has_none_has_room(closer: Closer, bar: Bar) -> None:
    each = MAX_UNCLOSED_OF_ONE - 1
    senders = range(MAX_UNCLOSED // each + 1)
    for sender in senders:
        for _ in range(each):
            closer.put(-1, sender, bar.wait)
    assert not any(closer.has_room(sender) for sender in senders)
    assert closer.has_room(ANN)
    bar.lifted.set()
    assert closer.wait_idle(LONG)
    assert all(closer.has_room(sender) for sender in senders)


def test_it_is_seen_when_the_table_is_nearly_full(closer: Closer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not closer.is_table_short()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fds = [os.dup(0) for _ in range(20)]
    try:
        closer.saw(fds[-1])
        closer.saw(fds[0])
        assert not closer.near_full
        assert not closer.careful
        resource.setrlimit(resource.RLIMIT_NOFILE, (fds[-1] + 100, hard))
        closer.saw(soft)
        assert closer.near_full
        assert closer.careful
        assert closer.is_table_short()
        assert closer.has_room(ANN)
        assert closer.careful, "as long as it is"
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not closer.is_table_short()
        assert not closer.near_full
        assert closer.has_room(ANN)
        assert not closer.careful
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fds:
            os.close(fd)


@as_root
def test_a_table_that_cannot_be_looked_at_may_be_full() -> None:
    def without_proc() -> bool:
        with chroot(directory):
            CLOSER.near_full = True
            return CLOSER.is_table_short()

    with tempfile.TemporaryDirectory() as directory:
        assert in_child(without_proc)


# Forks and the end


def test_a_forked_child_has_no_threads_and_waits_for_none(bar: Bar) -> None:
    CLOSER.put(-1, ANN, bar.wait)
    bar.until(1)
    for _ in range(CLOSING_THREADS_OF_ONE - 1):
        CLOSER.put(-1, ANN, bar.wait)
        bar.until(1)
    waiting = a_socket()
    CLOSER.put(waiting, ANN, bar.wait)

    def child() -> tuple[int, bool, list[bool]]:
        before = len(CLOSER._threads)
        fd = a_socket()
        CLOSER.close(fd, ANN)
        return before, CLOSER.wait_idle(LONG), [is_open(fd), is_open(waiting)]

    assert in_child(child) == (0, True, [False, False])
    assert is_open(waiting)
    bar.lifted.set()
    assert CLOSER.wait_idle(LONG)
    assert not is_open(waiting)


def test_a_process_ends_though_something_lingers() -> None:
    program = """
import socket, sys, time
sys.path[:0] = sys.argv[1:]
from support.kinds import AT_ONCE, SOON, a_file, a_socket
from support.lingering import Lingering
from seqrpc.kernel.closing import CLOSER
made = Lingering(600)
begin = time.monotonic()
for sender in range(3):
    CLOSER.close(made.make().detach(), sender)
assert not CLOSER.wait_idle(0.05)
print(time.monotonic() - begin < 60)
"""
    command = [sys.executable, "-W", "ignore", "-c", program, str(Path(__file__).parents[2])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True)
    assert (ended.stdout, ended.stderr) == ("True\n", "")


def test_what_is_put_while_another_thread_counts_is_not_overlooked(
    closer: Closer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifted, count = threading.Event(), Closer._unclosed

    def count_while_more_come(self: Closer) -> int:
        found = count(self)
        if not self._inbox:
            for _ in range(MAX_UNCLOSED_OF_ONE):
                self._inbox.append((-1, lifted.wait, ANN))
            self.careful = True  # as put does, before the count is written down
        return found

    monkeypatch.setattr(Closer, "_unclosed", count_while_more_come)
    closer.has_room(BOB)
    monkeypatch.undo()
    assert closer.careful
    assert not closer.has_room(ANN)
    lifted.set()


class Costly(int):
    """A sender for whose table there is no memory at first."""

    asked = 0

    def __hash__(self) -> int:
        self.asked += 1
        if self.asked < 3:
            raise MemoryError
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


def test_a_thread_without_memory_tries_again(closer: Closer) -> None:
    fds = [a_file() for _ in range(2)]
    closer.put(fds[0], Costly(ANN))
    until = time.monotonic() + LONG
    while is_open(fds[0]) and time.monotonic() < until:
        time.sleep(0.001)
    closer.put(fds[1], BOB)
    assert closer.wait_idle(LONG)
    assert not any(map(is_open, fds))


class Once(list[closing.Work]):
    """Works that there is no memory to sort."""

    tries = 0

    def __iter__(self) -> Iterator[closing.Work]:
        self.tries += 1
        if self.tries == 1:
            raise MemoryError
        return super().__iter__()


def test_what_cannot_be_sorted_is_closed_one_by_one() -> None:
    fds = [a_file() for _ in range(3)]
    called: list[int] = []
    closing._close_all(Once([(fds[0], None, ANN), (-1, None, ANN), (fds[1], lambda: called.append(1), ANN)]))
    assert [is_open(fd) for fd in fds] == [False, False, True]
    assert called == [1]
    os.close(fds[2])


def test_a_thread_does_not_sleep_while_something_waits_that_somebody_else_has_sorted() -> None:
    closer = closing.Closer(start=lambda _work, _args: None)
    bell = threading.Lock()
    bell.acquire()
    closer._threads.add(bell)
    closer._awake.add(bell)
    fds = [a_file() for _ in range(2)]
    for fd in fds:
        closer.put(fd, ANN)
        assert not closer.wait_idle(0), "which looks at what came, and wakes nobody, for there is one awake"
        assert not closer._inbox
        assert closer._sleep(bell)
        assert bell in closer._awake
        assert closer._close_some(bell)
    assert not any(map(is_open, fds))
    assert closer.wait_idle(0)
