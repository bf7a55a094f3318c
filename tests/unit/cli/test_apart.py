"""Work in a process of its own."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest
from support.commands import Done, environment
from support.waiting import PATIENCE

from seqrpc.cli.apart import hand_over
from seqrpc.cli.endings import Ending
from seqrpc.cli.screen import Screen

PROGRAM = """
import os, signal, sys
from seqrpc.cli.apart import done_apart
from seqrpc.cli.endings import Ending
from seqrpc.cli.screen import Screen

def fail(error):
    raise error

try:
    print(done_apart(lambda: {work}, Screen()), os.getpid())
except Ending as exc:
    print(exc.status, exc)
"""


def run(work: str) -> Done:
    """In a program that has one thread, as the command line has."""
    argv = [sys.executable, "-W", "error", "-c", PROGRAM.format(work=work)]
    done = subprocess.run(argv, capture_output=True, timeout=PATIENCE, check=False, env=environment())
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_what_it_returns_comes_back() -> None:
    done = run("[os.getpid(), 'x' * 200_000]")
    assert (done.status, done.err) == (0, "")
    pid = done.out.partition(",")[0].removeprefix("[")
    assert int(pid) != int(done.out.split()[-1])
    assert len(done.out) > 200_000


def test_how_it_fails_is_told_once() -> None:
    assert run("fail(Ending(3, 'away'))") == Done(0, "3 \n", "seqrpc: away\n")
    assert run("fail(ValueError('\\x1b'))") == Done(0, "2 \n", "seqrpc: \\x1b\n")
    assert run("fail(SystemExit(7))") == Done(0, "1 \n", "seqrpc: SystemExit: 7\n")
    assert run("fail(KeyboardInterrupt())") == Done(0, "1 \n", "")
    assert run("object()").out == "2 \n"
    assert run("print('said')").out.startswith("said\nNone ")


@pytest.mark.parametrize(
    "error, status, text",
    [
        (Ending(3, "away"), 3, "seqrpc: away\n"),
        (SystemExit(7), 1, "seqrpc: SystemExit: 7\n"),
        (KeyboardInterrupt(), 1, ""),
        (None, 0, ""),
    ],
)
def test_what_a_child_hands_over(error: BaseException | None, status: int, text: str) -> None:
    """In this process, where it is measured, too."""

    def work() -> str:
        if error is not None:
            raise error
        return "done"

    reading, writing = os.pipe()
    err = io.StringIO()
    assert hand_over(work, writing, Screen(io.StringIO(), err)) == status
    with open(reading, encoding="utf-8") as file:
        assert file.read() == ("" if status else '"done"')
    assert err.getvalue() == text


def test_a_child_that_dies_is_told() -> None:
    done = run("os.kill(os.getpid(), signal.SIGKILL)")
    assert done.out == f"1 the process that was to load it died of {signal.SIGKILL.name}\n"
    assert run("os._exit(0)").out == "1 \n"
