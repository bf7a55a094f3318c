"""What ends a command in time that waits for no call."""

from __future__ import annotations

import contextlib
import signal
import time

import pytest
from support.sync import Thread
from support.waiting import PATIENCE

from seqrpc.blocking.timeouts import timeout
from seqrpc.cli.alarms import Late, alarm, is_late, silence


def is_set() -> bool:
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def test_what_waits_is_interrupted_when_the_time_is_up() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(Late), alarm(0.01), contextlib.suppress(Exception):
        time.sleep(PATIENCE)
    assert not is_set()
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.parametrize("seconds, expected", [(None, False), (60, True), (1e30, False)])
def test_who_is_in_time_is_not_interrupted(seconds: float | None, expected: bool) -> None:
    with alarm(seconds):
        assert is_set() is expected
    assert not is_set()


def test_what_has_its_own_bound_is_not_interrupted() -> None:
    with alarm(60):
        silence()
        assert not is_set()


def test_another_thread_interrupts_nobody() -> None:
    def work() -> bool:
        with alarm(60):
            return is_set()

    assert Thread(work).result() is False
    with alarm(60):
        Thread(silence).result()
        assert is_set()


def test_it_is_late_when_the_time_is_up() -> None:
    assert not is_late()
    with timeout(60):
        assert not is_late()
    with timeout(0):
        assert is_late()
