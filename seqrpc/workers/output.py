"""What children write: passed on, logged, or kept, and the last lines of it for whoever wants to know why they died."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from seqrpc.calls.plans import OutputLike
from seqrpc.calls.workers import Tail
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.workers")

_AT_ONCE: Final = 16_384  # bytes that are read in one turn of the loop: a child may write as fast as they are read

_MOST_LEFT: Final = 5
"""Reads from a child that has ended: a pipe holds no more, unless the child has made it larger."""

_MOST_LOGGED: Final = 100  # lines of one read


class Pipe:
    """What a child writes to one of its standard streams, read on the event loop.

    Args:
        pass_on: called with what was read, and the lines that are whole now.
    """

    def __init__(self, pass_on: Callable[[bytes, list[str]], object]) -> None:
        """Open a pipe; :meth:`begin` reads it."""
        self.tail = Tail()
        """The last lines."""
        self._pass_on = pass_on
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_failed = False
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._reader, self.writer = OwnedFd(reader), OwnedFd(writer)
        os.set_blocking(reader, False)

    def begin(self) -> None:
        """Read from now on; the child has its copy of the writing end."""
        self.writer.close()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader.fileno(), self._read)

    def _read(self) -> bool:
        """Read what is there; return whether there was something."""
        try:
            data = os.read(self._reader.fileno(), _AT_ONCE)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        self._tell(data, self.tail.add(data))
        return True

    def _tell(self, data: bytes, lines: list[str]) -> None:
        try:
            self._pass_on(data, lines)
        except Exception:  # of a handler of logging, or of a stream that somebody put in place of sys.stderr
            if not self._has_failed:
                self._has_failed = True
                _log.exception("! what a worker writes cannot be passed on")

    def finish(self) -> None:
        """Read what is left of a child that has ended, which is bounded, and close."""
        for _ in range(_MOST_LEFT):
            if self._loop is None or not self._read():
                break
        self.close()

    def close(self) -> None:
        """Read no more. The loop, if it is closed, is left alone."""
        self.writer.close()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._reader.fileno())
            self._loop = None
            lines = self.tail.end()
            if lines:
                self._tell(b"", lines)
        self._loop = None
        self._reader.close()


class Outputs:
    """The standard streams of one child.

    Args:
        output: ``"inherit"``: they go where those of this process go. A logger gets each line: what is written to
            standard output as INFO, to standard error as WARNING. ``"capture"`` keeps the last lines alone.
        name: what the child is called.
        is_foreign: whether it is another user, who gets no descriptor of this process: it may be a terminal.
    """

    def __init__(self, output: OutputLike, name: str, *, is_foreign: bool = False) -> None:
        """Open pipes for what is read here."""
        self._output = output
        self._name = name
        self.stderr = Pipe(self._pass_stderr_on)
        """Standard error is read in any case: its last lines say why a child has died."""
        self.stdout: Pipe | None = None
        if output != "inherit" or is_foreign:
            try:
                self.stdout = Pipe(self._pass_stdout_on)
            except BaseException:
                self.close()
                raise

    @property
    def numbers(self) -> tuple[int | None, int]:
        """The descriptors that a child gets for its standard output and its standard error, lent."""
        return None if self.stdout is None else self.stdout.writer.fileno(), self.stderr.writer.fileno()

    def begin(self) -> None:
        """Read from now on."""
        for pipe in self._pipes:
            pipe.begin()

    @property
    def _pipes(self) -> list[Pipe]:
        return [self.stderr, *([] if self.stdout is None else [self.stdout])]

    def finish(self) -> None:
        """Read what is left, and close."""
        for pipe in self._pipes:
            pipe.finish()

    def close(self) -> None:
        """Read no more."""
        for pipe in self._pipes:
            pipe.close()

    def _pass_stdout_on(self, data: bytes, lines: list[str]) -> None:
        self._pass(data, lines, logging.INFO, "stdout")

    def _pass_stderr_on(self, data: bytes, lines: list[str]) -> None:
        self._pass(data, lines, logging.WARNING, "stderr")

    def _pass(self, data: bytes, lines: list[str], level: int, stream: str) -> None:
        if isinstance(self._output, logging.Logger):
            for line in lines[:_MOST_LOGGED]:
                self._output.log(level, "%s: %s", self._name, line)
            if len(lines) > _MOST_LOGGED:
                self._output.log(level, "%s: (%d lines are left out)", self._name, len(lines) - _MOST_LOGGED)
        elif self._output == "inherit" and data:
            # Python's own stream may be replaced, by tests or by a GUI; closed, as of a daemon, there is none.
            with suppress(OSError, ValueError, AttributeError):
                own = getattr(sys, stream)
                own.write(data.decode(errors="backslashreplace"))
                own.flush()
