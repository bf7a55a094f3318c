"""The command line, run as people and programs run it: as a process, through pipes and in a pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from support.waiting import PATIENCE

TESTS = Path(__file__).parents[1]

SEQRPC = [sys.executable, "-W", "error", "-m", "seqrpc"]


class Done(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    paths = [str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TERM": "xterm",
        "PYTHONUTF8": "1",
        **(more or {}),
    }


def seqrpc_command(
    *args: object, given: bytes = b"", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Done:
    """Run a command through pipes."""
    done = subprocess.run(
        [*SEQRPC, *map(str, args)],
        input=given,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env=environment(env),
        cwd=cwd,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Terminal:
    """A pseudo-terminal in which a program runs."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.master, slave = os.openpty()
        try:
            termios.tcsetwinsize(slave, (40, 200))
            modes = termios.tcgetattr(slave)
            modes[3] |= termios.NOFLSH  # else what is written as Ctrl-C is typed may be thrown away (n_tty.c, isig)
            termios.tcsetattr(slave, termios.TCSANOW, modes)
            self.before = termios.tcgetattr(slave)
            self._slave = slave
            self.process = subprocess.Popen(
                argv,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environment(env),
                cwd=cwd,
                preexec_fn=self._take,  # noqa: PLW1509 - it only takes its terminal
            )
        except BaseException:
            os.close(self.master)
            os.close(slave)
            raise
        self.seen = b""

    def _take(self) -> None:
        os.login_tty(os.dup(self._slave))

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def read(self) -> None:
        """Read what is there, and wait for something if it is nothing."""
        readable, _, _ = select.select([self.master], [], [], PATIENCE)
        assert readable, f"nothing comes after {self.seen!r}"
        self.seen += os.read(self.master, 65_536)

    def wait_for(self, text: str, *, after: str = "") -> None:
        """Read until a text is there, and that after another one."""
        while text.encode() not in self.seen.partition(after.encode())[2] if after else text.encode() not in self.seen:
            self.read()

    def end(self) -> int:
        """Wait until the program has ended, and read all that it wrote; return its status as shells tell it."""
        until = time.monotonic() + PATIENCE
        while True:
            readable, _, _ = select.select([self.master], [], [], 0.01)
            if readable:
                self.seen += os.read(self.master, 65_536)
            elif self.process.poll() is not None:
                break
            assert time.monotonic() < until, f"it does not end after {self.seen[-1_000:]!r}"
        self.after = termios.tcgetattr(self._slave)
        return self.process.returncode

    @property
    def text(self) -> str:
        """What was shown, without colours of ours and with plain line breaks."""
        text = self.seen.decode()
        for number in ("0", "1", "2", "31", "32", "36"):
            text = text.replace(f"\x1b[{number}m", "")
        return text.replace("\r\n", "\n")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self._slave)


@contextlib.contextmanager
def terminal(*args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Iterator[Terminal]:
    """Run a command in a terminal; at the end it is killed."""
    opened = Terminal([*SEQRPC, *map(str, args)], env, cwd)
    try:
        yield opened
    finally:
        opened.close()


def at_terminal(*args: object, keys: str = "", env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command in a terminal to its end; return its status and what was shown. The terminal must be as it was."""
    with terminal(*args, env=env) as opened:
        if keys:
            opened.type(keys)
        status = opened.end()
        assert opened.after == opened.before
        return status, opened.text


@contextlib.contextmanager
def started(*args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Iterator[Any]:
    """Run a command in the background, with pipes; it is killed at the end if it runs."""
    with subprocess.Popen(
        [*SEQRPC, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(env),
        cwd=cwd,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait()
