"""How a command ends: what each error is told as, on one line, and the exit status that tells its kind."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from typing import Final, NoReturn

from seqrpc import errors
from seqrpc.text import shown

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
ABSENT: Final = 3
REFUSED: Final = 4
LATE: Final = 5

STATUSES: Final = (FAILED, MISUSED, ABSENT, REFUSED, LATE)
"""Of errors."""

HELP: Final = """\
Exit status:
  0    success
  1    failure: of the call; or what was compared differs
  2    wrong use: of the command line, or arguments that do not fit
  3    absence: nobody listens there; there is no such method or file
  4    refusal: this user may not connect, or not call
  5    time-out
  130  Ctrl-C
  141  nobody reads the output"""
"""For the help of each command, in lines that fit terminals of 80 columns."""

_STATUSES: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], int], ...]] = (
    ((errors.PermissionDenied, errors.ConnectDenied, errors.UntrustedServer), REFUSED),
    ((errors.DeadlineExceeded, errors.ServerBusy), LATE),
    ((errors.InvalidParams, errors.AddressError, errors.WrongSocketType), MISUSED),
    ((errors.MethodNotFound, errors.NobodyListens, errors.Unavailable), ABSENT),
    (TimeoutError, LATE),
    (errors.SeqrpcError, FAILED),
    ((FileNotFoundError, NotADirectoryError), ABSENT),
    (PermissionError, REFUSED),
    (OSError, FAILED),
    (ValueError, MISUSED),
    (TypeError, MISUSED),
)
"""The first that an error is decides."""


class Ending(Exception):
    """Ends the command.

    Args:
        status: its exit status.
        text: what is told on standard error; nothing is if it is empty.
    """

    def __init__(self, status: int, text: str = "") -> None:
        """Hold both."""
        super().__init__(text)
        self.status = status


def misused(text: str) -> Ending:
    """Return what tells that the command line is wrong."""
    return Ending(MISUSED, text)


def status_of(error: BaseException) -> int:
    """Return the exit status that tells an error's kind."""
    if isinstance(error, Ending):
        return error.status
    if isinstance(error, MemoryError | RecursionError):
        return FAILED
    if isinstance(error, errors.Unavailable) and error.execution is errors.Execution.MAY_HAVE_RUN:
        return FAILED  # somebody was there, and has died since
    for kinds, status in _STATUSES:
        if isinstance(error, kinds):
            return status
    return FAILED


def told(error: BaseException) -> str:
    """Return an error on one line, with its code: of what was not on the wire the name of its class."""
    if isinstance(error, Ending | errors.RpcError):
        return str(error)
    if isinstance(error, errors.SeqrpcError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f": {shown(os.fsdecode(error.filename))}"
        code = errno.errorcode.get(error.errno or 0, "OSError")
        return f"{code}: {error.strerror}{where}"
    if isinstance(error, ValueError | TypeError):
        return shown(error)
    return f"{type(error).__name__}: {shown(error)}"


@contextlib.contextmanager
def after_a_call() -> Iterator[None]:
    """Have what fails on this side in the block end the command as a failure, not as absence or refusal.

    Who is told that something was not there may call again, and what is here comes after a call that was made.

    Raises:
        Ending: something failed.
        SeqrpcError, TimeoutError, BrokenPipeError: as they come, for they tell of the other side, or have ends of their
            own.
    """
    try:
        yield
    except (errors.SeqrpcError, TimeoutError, BrokenPipeError):
        raise
    except Ending as exc:
        if exc.status in (ABSENT, REFUSED):
            raise Ending(FAILED, str(exc)) from exc
        raise
    except (OSError, ValueError, TypeError) as exc:
        raise Ending(FAILED, told(exc)) from exc


def die_of(number: int) -> NoReturn:
    """End this process as a signal does that nothing handles, which is how a shell knows it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # it is blocked
