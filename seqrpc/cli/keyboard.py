"""The modes of a terminal while a prompt reads keys: they are given back when a signal ends this process, or stops it.

Readline changes them for each line, and would put them back by itself if the interpreter let it catch signals.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from seqrpc.cli.endings import die_of

_ENDS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_HURRIED: Final = frozenset({*_ENDS, signal.SIGTSTP, signal.SIGALRM, signal.SIGINT})

_NUDGE: Final = signal.SIGURG
"""It does nothing but interrupt, and would do nothing to who does not expect it."""

_AGAIN: Final = 0.02  # seconds

_MOST: Final = 100  # times: what was sent twice at once is handled once


@contextlib.contextmanager
def given_back(fd: int) -> Iterator[None]:
    """Have a terminal as it is now whenever a signal ends or stops this process during the block.

    Args:
        fd: the terminal, lent.
    """
    before = termios.tcgetattr(fd)
    is_handled = threading.Event()

    def end(number: int, _frame: FrameType | None) -> None:
        is_handled.set()
        _set(fd, before)
        die_of(number)

    def stop(number: int, _frame: FrameType | None) -> None:
        is_handled.set()
        with contextlib.suppress(termios.error):
            during = termios.tcgetattr(fd)
            _set(fd, before)
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_kill(threading.get_ident(), number)  # it returns when the process goes on
            signal.signal(number, stop)
            _set(fd, during)

    def go_on(_number: int, _frame: FrameType | None) -> None: ...

    handlers = {**dict.fromkeys(_ENDS, end), signal.SIGTSTP: stop, _NUDGE: go_on}
    replaced = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with _hurried(is_handled):
            yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _hurried(is_handled: threading.Event) -> Iterator[None]:
    """Have signals handled when they come.

    The interpreter looks for them when one interrupts its waiting for a key, or for an answer. One that came a moment
    earlier would wait for the next key, or for the answer, so another is sent after it.

    Args:
        is_handled: is set when one is.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    main = threading.get_ident()

    def hurry() -> None:
        while came := os.read(reading, 64):
            for _ in range(_MOST if {*came} & _HURRIED else 0):
                if is_handled.wait(_AGAIN):
                    break
                signal.pthread_kill(main, _NUDGE)
            is_handled.clear()

    thread = threading.Thread(target=hurry, name="seqrpc-keys", daemon=True)
    thread.start()
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        is_handled.set()
        os.close(writing)
        thread.join()
        os.close(reading)


def _set(fd: int, modes: list[Any]) -> None:
    with contextlib.suppress(termios.error):  # it is gone
        termios.tcsetattr(fd, termios.TCSADRAIN, modes)
