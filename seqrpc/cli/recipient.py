"""A program that is given results as its standard input."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator
from typing import IO, Any

from seqrpc.cli.endings import FAILED, Ending, misused
from seqrpc.cli.places import check_program


class Recipient:
    """Starts a program for each result.

    Args:
        program: it and its arguments, as a shell has them; None is no program.

    Raises:
        Ending: it cannot be read.
    """

    def __init__(self, program: str | None) -> None:
        """Start nothing yet."""
        try:
            self._argv = shlex.split(program or "")
        except ValueError as exc:
            raise misused(f"--exec {program!r}: {exc}") from None
        if program is not None and not self._argv:
            raise misused("--exec is followed by a program and its arguments, as in --exec 'wc -c'")
        self._has_run = False
        self.status = 0
        """How it ended, as a shell tells it."""

    def __bool__(self) -> bool:
        """Return whether there is a program."""
        return bool(self._argv)

    def check(self) -> None:
        """Look for it, before anything is done for it.

        Raises:
            Ending: it is not there.
        """
        if self._argv:
            check_program(self._argv[0], "--exec:")

    def close(self) -> None:
        """Check that it has run, if there is one.

        Raises:
            Ending: it has not.
        """
        if self._argv and not self._has_run:
            raise Ending(FAILED, f"nothing came that could be given to {self._argv[0]}")

    def run(self, fd: int) -> None:
        """Run it with a descriptor, lent, as its input.

        Raises:
            Ending: it cannot be started.
        """
        with self._started(fd) as process:
            process.wait()

    @contextlib.contextmanager
    def fed(self) -> Iterator[IO[bytes]]:
        """Run it, and yield its input; after the block it has ended. If it reads no more, that ends the block.

        Raises:
            Ending: it cannot be started.
        """
        with self._started(subprocess.PIPE) as process:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                yield process.stdin
                process.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()

    @contextlib.contextmanager
    def _started(self, given: int) -> Iterator[subprocess.Popen[bytes]]:
        self._has_run = True
        try:
            process: subprocess.Popen[Any] = subprocess.Popen(self._argv, stdin=given)  # noqa: S603 - the user's
        except OSError as exc:
            raise Ending(FAILED, f"--exec: {self._argv[0]} cannot be started: {exc.strerror}") from None
        try:
            yield process
        except BaseException:  # as for what comes late: it is not waited for
            process.kill()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            process.wait()
            raise
        self.status = process.returncode if process.returncode >= 0 else 128 - process.returncode
