"""Signal handlers that raise, as that of Ctrl-C does, and what they must not cut in two.

Python runs such a handler between any two of its instructions: also between the one that receives a descriptor and the
one that gives it an owner. Whoever does such things without an event loop puts them off meanwhile.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

_RAISERS: Final = tuple(
    int(number)
    for number in (
        *(signal.SIGVTALRM, signal.SIGPROF, signal.SIGQUIT, signal.SIGABRT, signal.SIGTERM, signal.SIGALRM),
        *(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT),
    )
)
"""Signals whose handlers raise exceptions in programs: to end them, and for time-outs. SIGINT is the last: while the
others are put off and put back, it is the likeliest to come."""


_CALLS: Final = frozenset({"recvmsg_into", "send"})
"""The methods of sockets around which it is asked; those of a class that wraps them, as sockets of tests do, are
functions of Python's."""


def is_of_handler(exc: BaseException) -> bool:
    """Return whether an exception comes from a signal handler, and not from the system call that it interrupted.

    A handler may raise ``TimeoutError``, which is an OSError. To be asked in the function that has caught it around
    nothing but calls of built-in functions: what these raise comes from that very frame.
    """
    traceback = exc.__traceback__
    if traceback is None or traceback.tb_next is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_name not in _CALLS


_Handler = Callable[[int, FrameType | None], Any]

# Without signal's wrappers, which make an enumeration's member of every number and take ten times as long.
_bare: Final[Any] = sys.modules.get("_signal", signal)
_handler_of: Final[Callable[[int], Any]] = _bare.getsignal
_handle: Final[Callable[[int, Any], Any]] = _bare.signal


class Uninterrupted:
    """A block in which no handler of a signal runs; those of signals that came meanwhile run at its end.

    It does so in the main thread, as signal handlers run there; in others nothing is to be done, nor in a block within
    another. It takes a few µs.

    Raises (at its end): what the handlers raise, and then the block itself has done all its work.
    """

    __slots__ = ("_came", "_put_off")

    def __init__(self) -> None:
        """Put off nothing yet."""
        self._put_off: list[tuple[int, _Handler]] = []
        self._came: list[tuple[int, FrameType | None]] = []

    @property
    def puts_off(self) -> bool:
        """Whether it puts any off: in a block within another it does not."""
        return bool(self._put_off)

    def __enter__(self) -> Self:
        """Put off the handlers."""
        if threading.get_ident() != threading.main_thread().ident:
            return self
        try:
            for number in reversed(_RAISERS):
                handler = _handler_of(number)
                if callable(handler) and not isinstance(getattr(handler, "__self__", None), Uninterrupted):
                    self._put_off.append((number, handler))
                    _handle(number, self._note)
        except BaseException as exc:
            self.__exit__(None, None, None)
            if not isinstance(exc, ValueError) or is_of_handler(exc):
                raise
            # The main thread of a subinterpreter runs no handlers, and may set none.
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append((number, frame))

    def _put_back(self) -> None:
        """Put all handlers back, also if one that is back already raises meanwhile."""
        try:
            while self._put_off:
                number, handler = self._put_off[-1]
                if _handler_of(number) == self._note:  # else the block has set another one
                    _handle(number, handler)
                self._put_off.pop()
        except BaseException:
            self._put_back()
            raise

    def _run(self, handlers: dict[int, _Handler]) -> None:
        """Run the handlers of the signals that came, also if one of them raises."""
        try:
            while self._came:
                number, frame = self._came.pop(0)
                handlers[number](number, frame)
        except BaseException:
            self._run(handlers)
            raise

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Put the handlers back, and run those whose signals came."""
        if not self._put_off:
            return
        handlers = dict(self._put_off)
        try:
            self._put_back()
        except BaseException:
            self._run(handlers)
            raise
        if self._came:
            self._run(handlers)


HELD: Final[list[Uninterrupted]] = []
"""What :func:`hold` has put off."""


def hold() -> None:
    """Put the handlers of signals off from now on until :func:`release`, unless that is done around this already.

    For what is made in the middle of something quick that seldom makes it.
    """
    if not HELD and threading.get_ident() == threading.main_thread().ident:
        held = Uninterrupted()
        held.__enter__()
        if held.puts_off:  # else it is done already, and ends with the block that does it
            HELD.append(held)


def release() -> None:
    """End what :func:`hold` began, if it did.

    Raises:
        Exception: what the handlers of signals raise that came meanwhile.
    """
    if HELD and threading.get_ident() == threading.main_thread().ident:
        HELD.pop().__exit__(None, None, None)
