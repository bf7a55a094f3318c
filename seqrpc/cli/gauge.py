"""How far a measurement is, drawn on standard error by a process of its own.

Drawing with rich takes a millisecond or two at a time. In the process that measures these would be latencies; in a
thread of it too, for both would wait for the interpreter. What the other process needs to know is written into a pipe,
which takes microseconds, and nobody waits for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from types import TracebackType
from typing import IO, Any, Final, Self

from seqrpc.cli.screen import clean

READY_WITHIN: Final = 5.0
"""Seconds that the process may take until it can draw: if it takes longer, it begins later."""

_BOOT: Final = "import sys; sys.path[:] = sys.argv[1].split('\\n'); from seqrpc.cli.gauge import main; main()"


class Gauge:
    """Draws a line with what is done, in ``with``: at its end the line is gone.

    Args:
        title: what is measured.
        shows: whether anything is drawn.
    """

    def __init__(self, title: str, *, shows: bool) -> None:
        """Draw nothing yet."""
        self._title = title
        self._shows = shows
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the process, and wait until it can draw, so that it does not compute while calls are measured."""
        if self._shows and sys.executable:
            path = "\n".join(map(os.path.abspath, sys.path))
            argv = [sys.executable, "-P", "-c", _BOOT, path, self._title]
            # It inherits that Ctrl-C is put off, and so has none even before it can say that it wants none.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                with contextlib.suppress(OSError):
                    self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - ours
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdin.fileno(), False)
            select.select([self._process.stdout], [], [], READY_WITHIN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Have it wipe the line, and end."""
        self.close()

    def tell(self, part: float, calls: int, errors: int, rate: float) -> None:
        """Draw what is done, if the process takes it.

        Args:
            part: of the whole, from 0 to 1.
            calls: that ended.
            errors: of these.
            rate: calls in a second.
        """
        if self._process is not None and self._process.stdin is not None:
            line = json.dumps([round(part, 4), calls, errors, round(rate)]).encode() + b"\n"
            with contextlib.suppress(OSError):  # it is slow, or gone
                os.write(self._process.stdin.fileno(), line)

    def close(self) -> None:
        """Wipe the line."""
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
            try:
                process.wait(READY_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main() -> None:
    """Be the process: draw what comes on standard input, until that ends, at Ctrl-C too."""
    draw(sys.stdin.buffer, sys.argv[2])


def draw(lines: IO[bytes], title: str) -> None:
    """Draw lines of JSON on standard error."""
    from rich.console import Console  # noqa: PLC0415 - only this process needs it
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    parts: list[Any] = [TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn()]
    parts += [TextColumn("{task.fields[told]}", markup=False), TimeRemainingColumn()]
    console = Console(stderr=True)
    # Else the cursor would stay hidden when a signal to the group ends or stops this process, as Ctrl-\ and Ctrl-Z do.
    console.show_cursor = lambda show=True: False  # type: ignore[method-assign]  # noqa: ARG005 - the signature is given
    progress = Progress(*parts, console=console, auto_refresh=False, transient=True)
    task = progress.add_task(clean(title, 60), total=1.0, told="")
    sys.stdout.write("\n")  # it is ready
    sys.stdout.flush()
    is_drawing = False
    try:
        for line in lines:
            part, calls, errors, rate = json.loads(line)
            failed = f", {errors:,} errors" if errors else ""
            progress.update(task, completed=part, told=f"{calls:,} calls, {rate:,}/s{failed}")
            if not is_drawing:
                is_drawing = True
                progress.start()
            progress.refresh()
    finally:
        if is_drawing:
            progress.stop()
