"""A terminal that is drawn on while keys are read as they are pressed, and that is as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
from types import FrameType, TracebackType
from typing import IO, Any, Final, Self

from seqrpc.cli.endings import die_of

_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What ends the program, after the terminal is as it was."""

_HANDLED: Final = (*_ENDS, signal.SIGTSTP, signal.SIGWINCH, signal.SIGCONT)

PATIENCE: Final = 5.0
"""Seconds after a signal in which the program ends by itself; else the terminal takes nothing, as after Ctrl-S."""

_DEFAULT_SIZE: Final = (80, 24)

_AT_ONCE: Final = 1_024  # bytes

_LOCAL, _CHARACTERS = 3, 6
"""Where termios has the local modes and the special characters."""


class Window:
    """A block in which the terminal gives keys one by one and shows none, and signals wait until they are asked for.

    A handler that raises would cut an escape sequence in two, and leave the terminal in the middle of it. To be entered
    in the main thread.

    Args:
        out: the terminal that is drawn on.
        keys: the descriptor that keys come from, if it is a terminal.
    """

    def __init__(self, out: IO[str], keys: int) -> None:
        """Change nothing yet."""
        self._out = out
        self._keys: int | None = keys if os.isatty(keys) else None
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._woken, self._waker = -1, -1
        self._came: list[int] = []
        self._fatal: int | None = None  # the first signal that is to end the program
        self.ended_by: int | None = None
        """The signal that is to end the program."""
        self.is_to_stop = False
        """Whether the key that stops programs was pressed: :meth:`stop` does it."""

    def __enter__(self) -> Self:
        """Take the keys and the signals."""
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in _HANDLED:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                self._handlers[number] = signal.signal(number, self._note)
        self._handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._die)
        self._take_keys()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Give them back."""
        self._give_keys()
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._woken)
        os.close(self._waker)

    @property
    def has_keys(self) -> bool:
        """Whether there is somebody who can press some."""
        return self._keys is not None

    def size(self) -> tuple[int, int]:
        """Return its columns and lines."""
        return size_of(self._out)

    def wake(self) -> None:
        """End a :meth:`wait`; any thread may."""
        with contextlib.suppress(BlockingIOError):  # it is awake
            os.write(self._waker, b"\0")

    def wait(self, seconds: float | None = None) -> str:
        """Wait until something happens: a key, a signal, a :meth:`wake`; return the keys that were pressed.

        Args:
            seconds: how long at most; None is for ever.
        """
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        if self._keys is not None:
            poller.register(self._keys, select.POLLIN)
        ready = [fd for fd, _events in poller.poll(None if seconds is None else max(0.0, 1_000 * seconds))]
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, _AT_ONCE)
        self._heed()
        return self._pressed() if self._keys in ready else ""

    def stop(self) -> None:
        """Stop this process as the key of the terminal does, with the terminal as it was; return when it goes on."""
        self.is_to_stop = False
        self._give_keys()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # here it stands, unless there is no shell that could let it go on
        signal.signal(signal.SIGTSTP, handler)
        self._take_keys()

    def _take_keys(self) -> None:
        if self._keys is None:
            return
        with contextlib.suppress(termios.error):
            self._before = termios.tcgetattr(self._keys)
            taken = termios.tcgetattr(self._keys)
            taken[_LOCAL] &= ~(termios.ICANON | termios.ECHO)
            taken[_CHARACTERS][termios.VMIN], taken[_CHARACTERS][termios.VTIME] = 1, 0
            termios.tcsetattr(self._keys, termios.TCSADRAIN, taken)

    def _give_keys(self, when: int = termios.TCSADRAIN) -> None:
        if self._keys is None or self._before is None:
            return
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(self._keys, when, self._before)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)
        self.wake()
        if number in _ENDS and self._fatal is None:
            self._fatal = number
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def _die(self, _number: int, _frame: FrameType | None) -> None:
        """End this process in the midst of what it waits for: a write that is never done, most likely."""
        self._give_keys(termios.TCSANOW)
        die_of(self._fatal or signal.SIGALRM)

    def _heed(self) -> None:
        """Look which signals came."""
        came, self._came = self._came, []
        for number in came:
            if number in _ENDS:
                self.ended_by = number
            elif number == signal.SIGTSTP:
                self.is_to_stop = True
            elif number == signal.SIGCONT and self._before is not None:  # a shell has changed the terminal meanwhile
                before = self._before
                self._take_keys()
                self._before = before

    def _pressed(self) -> str:
        assert self._keys is not None
        try:
            data = os.read(self._keys, _AT_ONCE)
        except OSError:  # it is no more
            data = b""
        if not data:
            self._keys = None
        return data.decode(errors="replace")


def size_of(out: IO[str]) -> tuple[int, int]:
    """Return the columns and lines of a terminal, and those of an old one for what does not tell."""
    try:
        columns, lines = os.get_terminal_size(out.fileno())
    except OSError:
        return _DEFAULT_SIZE
    return columns or _DEFAULT_SIZE[0], lines or _DEFAULT_SIZE[1]
