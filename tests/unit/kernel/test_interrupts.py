from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from support.processes import in_child

from seqrpc.kernel import interrupts
from seqrpc.kernel.interrupts import HELD, Uninterrupted, hold, is_of_handler, release

PUT_OFF = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(Exception):
    """What a handler raises."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in PUT_OFF}
    yield
    left = {number: signal.getsignal(number) for number in PUT_OFF}
    for number, handler in before.items():
        signal.signal(number, handler)
    for number in PUT_OFF:
        assert "Uninterrupted" not in repr(left[number]), "a handler was not put back"


def noting(*numbers: int) -> list[int]:
    """Handle signals by noting their numbers."""
    came: list[int] = []
    for number in numbers:
        signal.signal(number, lambda number, _frame: came.append(number))
    return came


def raising(number: int) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    signal.signal(number, stop)


def interrupted_by(*numbers: int) -> None:
    with Uninterrupted():
        for number in numbers:
            signal.raise_signal(number)


@pytest.mark.parametrize("number", PUT_OFF)
def test_a_handler_runs_at_the_end_of_the_block(number: int) -> None:
    came = noting(number)
    with Uninterrupted():
        os.kill(os.getpid(), number)
        signal.raise_signal(number)
        assert came == []
    assert came == [number, number]
    signal.raise_signal(number)
    assert came == [number, number, number], "it is back"


def test_what_a_handler_raises_comes_when_the_block_has_done_its_work() -> None:
    done = []

    def work() -> None:
        with Uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_timer_s_handler_waits_too() -> None:
    came = noting(signal.SIGALRM)
    with Uninterrupted():
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        signal.sigtimedwait([signal.SIGURG], 0.1)  # interrupted, or not: the handler would have run
        assert came == []
    assert came == [signal.SIGALRM]


def test_an_exception_of_the_block_comes_with_that_of_a_handler() -> None:
    def work() -> None:
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
            raise Stopped

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, Stopped)
    with pytest.raises(Stopped), Uninterrupted():
        raise Stopped


def test_a_handler_that_raises_keeps_no_other_from_running() -> None:
    """A daemon's SIGTERM may come together with the SIGINT of a terminal; neither may be lost."""
    came = noting(signal.SIGTERM, signal.SIGUSR1)
    with pytest.raises(KeyboardInterrupt):
        interrupted_by(signal.SIGUSR1, signal.SIGINT, signal.SIGTERM)
    assert came == [signal.SIGUSR1, signal.SIGTERM]


def test_of_several_handlers_that_raise_the_last_is_heard_and_all_have_run() -> None:
    raising(signal.SIGALRM)
    with pytest.raises(Stopped) as caught:
        interrupted_by(signal.SIGINT, signal.SIGALRM)
    assert isinstance(caught.value.__context__, KeyboardInterrupt)


def test_blocks_may_be_nested_and_only_the_outermost_lets_handlers_run() -> None:
    came = noting(signal.SIGUSR1)
    with Uninterrupted():
        with Uninterrupted():
            signal.raise_signal(signal.SIGUSR1)
        assert came == []
    assert came == [signal.SIGUSR1]


def test_signals_without_a_handler_are_left_alone() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    with Uninterrupted():
        signal.raise_signal(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_a_handler_that_the_block_sets_stays() -> None:
    came: list[str] = []
    signal.signal(signal.SIGUSR1, lambda *_: came.append("old"))
    with Uninterrupted():
        signal.raise_signal(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, lambda *_: came.append("new"))
        signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR1)
    assert came == ["new", "old", "new"]


def test_in_another_thread_nothing_is_to_be_done() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[Any] = []

    def work() -> None:
        with Uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_main_thread_of_a_subinterpreter_handles_no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """There ``signal.signal`` raises a ValueError, as it does in a thread that Python takes for the main one."""
    seen: list[Any] = []

    def work() -> None:
        with Uninterrupted() as block:
            seen.append(block._put_off)

    thread = threading.Thread(target=work)
    monkeypatch.setattr(threading, "main_thread", lambda: thread)
    thread.start()
    thread.join()
    assert seen == [[]]


# Signals that come while handlers are put off and put back


def at_each(name: str, event: str, act: Callable[[int], None]) -> Callable[..., Any]:
    """Return a profiler that calls ``act`` with a count whenever a built-in function is called, or has returned."""
    count = 0

    def watch(frame: FrameType, what: str, argument: Any) -> None:
        nonlocal count
        if what == event and getattr(argument, "__name__", "") == name:
            count += 1
            act(count)

    return watch


@pytest.mark.parametrize("at", range(1, 13))
@pytest.mark.parametrize("event", ["c_call", "c_return"])
def test_wherever_a_signal_comes_all_handlers_are_put_back(at: int, event: str) -> None:
    """Each of the six is set twice; a handler that is not put off yet, or is back already, raises there and then."""
    for number in PUT_OFF:
        raising(number)
    before = {number: signal.getsignal(number) for number in PUT_OFF}

    def come(count: int) -> None:
        if count == at:
            for number in PUT_OFF:
                os.kill(os.getpid(), number)

    def work() -> None:
        with Uninterrupted():
            pass

    def story() -> tuple[bool, bool]:
        sys.setprofile(at_each("signal", event, come))
        try:
            work()
        except Stopped:
            raised = True
        else:
            raised = False
        finally:
            sys.setprofile(None)
        return raised, {number: signal.getsignal(number) for number in PUT_OFF} == before

    assert in_child(story) == (True, True)


def test_what_came_before_all_were_put_off_is_not_lost() -> None:
    """SIGINT is put off first, and comes; then the next, which is not put off yet, raises."""
    raising(signal.SIGALRM)

    def come(count: int) -> None:
        if count == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGALRM)

    def story() -> tuple[str, str]:
        sys.setprofile(at_each("signal", "c_return", come))
        try:
            with Uninterrupted():
                pass
        except BaseException as exc:
            return type(exc).__name__, type(exc.__context__).__name__
        finally:
            sys.setprofile(None)
        return "", ""

    assert in_child(story) == ("KeyboardInterrupt", "Stopped")


def test_handlers_are_held_until_they_are_released() -> None:
    came = noting(signal.SIGUSR1)
    hold()
    hold()
    signal.raise_signal(signal.SIGUSR1)
    assert came == []
    release()
    assert came == [signal.SIGUSR1]
    assert HELD == []
    release()


def test_what_a_block_puts_off_is_not_held_beyond_it() -> None:
    came = noting(signal.SIGUSR1)
    with Uninterrupted():
        hold()
    hold()  # is the first that puts something off
    signal.raise_signal(signal.SIGUSR1)
    assert came == []
    release()
    assert came == [signal.SIGUSR1]


def test_another_thread_neither_holds_nor_releases() -> None:
    came = noting(signal.SIGUSR1)
    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert HELD == []
    hold()
    thread = threading.Thread(target=release)
    thread.start()
    thread.join()
    signal.raise_signal(signal.SIGUSR1)
    assert came == []
    release()
    assert came == [signal.SIGUSR1]


def test_what_a_handler_raises_is_told_from_what_a_call_raises() -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    signal.signal(signal.SIGUSR1, stop)
    told: list[bool] = []
    for call, argument in ((signal.raise_signal, signal.SIGUSR1), (os.close, -1)):
        try:
            call(argument)
        except OSError as exc:
            told.append(is_of_handler(exc))
    assert told == [True, False]
    assert not is_of_handler(OSError())


def test_a_handler_that_raises_a_value_error_while_handlers_are_put_off_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wrong(ValueError):
        pass

    def wrong(_number: int, _frame: FrameType | None) -> None:
        raise Wrong

    signal.signal(signal.SIGTERM, wrong)
    real = interrupts._handler_of

    def at_term(number: int) -> Any:
        if number == signal.SIGTERM:
            monkeypatch.setattr(interrupts, "_handler_of", real)
            signal.raise_signal(number)
        return real(number)

    monkeypatch.setattr(interrupts, "_handler_of", at_term)
    with pytest.raises(Wrong), Uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGVTALRM, signal.SIGPROF])
def test_signals_by_which_servers_stop_their_workers_wait_too(number: int) -> None:
    before = signal.getsignal(number)
    try:
        raising(number)
        with pytest.raises(Stopped):
            interrupted_by(number)
    finally:
        signal.signal(number, before)
