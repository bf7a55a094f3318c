from __future__ import annotations

import contextlib
import functools
import select
import sys
import threading
from types import FrameType
from typing import Any

import pytest
from support.lines import Thread, interrupting
from support.processes import in_child

from seqrpc.blocking.family import Family, Known, is_alone
from seqrpc.blocking.waiting import Bell


class Pumping:
    """Notes that it has worked."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self._log = log

    def interest(self) -> tuple[int, int]:
        raise AssertionError("nobody polls here")

    def work(self) -> None:
        self._log.append(self.name)

    def end(self, reason: str) -> None:
        raise AssertionError("nobody ends it here")

    def abandon(self) -> None:
        self._log.append(f"{self.name} is abandoned")


class Watching:
    """Counts how often it is told."""

    def __init__(self) -> None:
        self.told = 0

    def update(self) -> None:
        self.told += 1


def rung(bell: Bell) -> bool:
    ready = bool(select.select([bell.fileno()], [], [], 0)[0])
    bell.quiet()
    return ready


def test_what_had_its_turn_is_the_last_to_have_the_next() -> None:
    log: list[str] = []
    family = Family()
    one, other = Pumping("one", log), Pumping("other", log)
    family.add(one)
    family.add(other)
    family.turn(one)
    assert list(family.pumps) == [other, one]
    family.discard(other)
    family.discard(other)
    family.turn(other)  # of a call only
    assert list(family.pumps) == [one]
    assert log == ["one", "other"]


def test_bells_are_rung_when_something_is_added() -> None:
    family = Family()
    with contextlib.closing(Bell()) as bell:
        family.listen(bell)
        assert not rung(bell)
        family.add(Pumping("one", []))
        assert rung(bell)
        family.leave(bell)
        family.leave(bell)
        family.add(Pumping("other", []))
        assert not rung(bell)


def test_those_that_watch_are_told_when_something_is_added_as_long_as_they_live() -> None:
    family, watching = Family(), Watching()
    family.watches.add(watching)
    family.add(Pumping("one", []))
    assert watching.told == 1
    family.tell_watches()
    assert watching.told == 2
    del watching
    family.tell_watches()
    assert not family.watches


def test_what_goes_on_is_abandoned_and_then_its_errands_are_done() -> None:
    log: list[str] = []
    family = Family()
    family.errands.append(lambda: log.append("errand"))
    family.add(Pumping("one", log))
    family.add(Pumping("other", log))
    family.abandon()
    assert log == ["one is abandoned", "other is abandoned", "errand"]


def test_nothing_goes_on_in_a_forked_child() -> None:
    log: list[str] = []
    family = Family()
    with contextlib.closing(Bell()) as bell:
        family.listen(bell)
        family.errands.append(lambda: log.append("errand"))
        family.add(Pumping("one", log))
        assert rung(bell)

        def child() -> tuple[int, list[str]]:
            family.abandon()
            family.ring()  # it would be the parent's bell
            return len(family.pumps), log

        assert in_child(child) == (0, [])
        assert not rung(bell)
    family.abandon()
    assert log == ["one is abandoned", "errand"]


def test_errands_are_run_in_their_order_and_those_that_they_leave_too() -> None:
    family = Family()
    log: list[str] = []

    def first() -> None:
        log.append("first")
        family.errands.append(lambda: log.append("third"))

    family.errands.extend([first, lambda: log.append("second")])
    family.run_errands()
    assert log == ["first", "second", "third"]
    family.run_errands()
    assert log == ["first", "second", "third"]


def test_an_errand_that_raises_leaves_the_others_to_be_done() -> None:
    family = Family()
    log: list[str] = []
    family.errands.extend([set[str]().pop, lambda: log.append("second")])
    with pytest.raises(KeyError):
        family.run_errands()
    family.run_errands()
    assert log == ["second"]


def test_an_errand_s_own_lookup_error_is_not_taken_for_the_end() -> None:
    family = Family()
    family.errands.append([].pop)
    with pytest.raises(IndexError):
        family.run_errands()


def test_errands_are_done_once_though_several_threads_run_them() -> None:
    family = Family()
    done: list[int] = []
    family.errands.extend([functools.partial(done.append, number) for number in range(2000)])
    threads = [Thread(family.run_errands) for _ in range(3)]
    for thread in threads:
        thread.result()
    assert sorted(done) == list(range(2000))


def test_an_errand_that_another_thread_takes_at_the_last_moment_is_that_one_s() -> None:
    family = Family()
    done: list[int] = []
    family.errands.append(lambda: done.append(1))

    def about_to_take(frame: FrameType, event: str, what: Any) -> bool:
        return event == "c_call" and frame.f_code.co_name == "run_errands" and what.__name__ == "popleft"

    with interrupting(about_to_take, lambda: Thread(family.run_errands).result()) as came:
        family.run_errands()
    assert came
    assert done == [1]


def test_a_process_with_one_thread_is_alone() -> None:
    seen: list[Any] = [is_alone()]
    over = threading.Event()
    thread = Thread(over.wait)
    seen.append(is_alone())
    over.set()
    thread.result()
    assert seen == [True, False]


def test_bells_come_and_go_in_one_thread_while_another_rings() -> None:
    family, is_over = Family(), threading.Event()

    def come_and_go() -> None:
        bells = [Bell() for _ in range(20)]
        while not is_over.is_set():
            for bell in bells:
                family.listen(bell)
            for bell in bells:
                family.leave(bell)
        for bell in bells:
            bell.close()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = Thread(come_and_go)
        for _ in range(3_000):
            family.ring()
    finally:
        sys.setswitchinterval(before)
        is_over.set()
    thread.result()


def test_what_nobody_else_refers_to_is_forgotten() -> None:
    known = Known[Watching]()
    kept, dropped = Watching(), Watching()
    known.add(kept)
    known.add(dropped)
    assert len(list(known)) == 2
    del dropped
    assert list(known) == [kept]
    known.discard(kept)
    assert not known
