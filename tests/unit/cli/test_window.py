"""A terminal whose keys and signals wait until they are asked for."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from support.commands import Terminal
from support.sync import Thread
from support.waiting import PATIENCE

from seqrpc.cli.window import Window, size_of


@pytest.fixture
def keyboard() -> Iterator[tuple[int, IO[str]]]:
    """Return the keyboard's side of a pseudo-terminal, and the program's."""
    master, slave = os.openpty()
    with open(slave, "r+b", buffering=0) as raw, open(os.dup(slave), "w") as out:
        assert raw.fileno() == slave
        yield master, out
    os.close(master)


def test_keys_come_one_by_one_and_are_not_shown(keyboard: tuple[int, IO[str]]) -> None:
    master, out = keyboard
    fd = out.fileno()
    before = termios.tcgetattr(fd)
    with Window(out, fd) as window:
        assert window.has_keys
        os.write(master, b"q")
        assert window.wait(PATIENCE) == "q"
        os.write(master, "é".encode())
        assert window.wait(PATIENCE) == "é"
        assert window.wait(0) == ""
    assert termios.tcgetattr(fd) == before
    out.write("end")
    out.flush()
    assert os.read(master, 100) == b"end"


def test_it_is_as_large_as_the_terminal_is_now(keyboard: tuple[int, IO[str]], tmp_path: Path) -> None:
    master, out = keyboard
    assert size_of(out) == (80, 24)  # that of one that does not know
    with Window(out, out.fileno()) as window:
        termios.tcsetwinsize(master, (5, 20))
        assert window.size() == (20, 5)
    with open(tmp_path / "file", "w") as file:
        assert size_of(file) == (80, 24)


def test_signals_wait_until_they_are_asked_for(keyboard: tuple[int, IO[str]]) -> None:
    _master, out = keyboard
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)}
    for number in before:
        with Window(out, out.fileno()) as window:
            os.kill(os.getpid(), number)
            assert window.ended_by is None
            assert window.wait(PATIENCE) == ""
            assert window.ended_by == (None if number == signal.SIGWINCH else number)
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_signal_that_is_ignored_stays_so(keyboard: tuple[int, IO[str]]) -> None:
    _master, out = keyboard
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Window(out, out.fileno()) as window:
            os.kill(os.getpid(), signal.SIGHUP)
            assert window.wait(0) == ""
            assert window.ended_by is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_any_thread_can_wake_it(keyboard: tuple[int, IO[str]]) -> None:
    _master, out = keyboard
    with Window(out, out.fileno()) as window:
        thread = Thread(window.wake)
        assert window.wait(PATIENCE) == ""
        thread.result()
        for _ in range(100_000):  # nothing waits for room
            window.wake()


def test_there_may_be_no_keyboard_or_no_more(keyboard: tuple[int, IO[str]]) -> None:
    _master, out = keyboard
    read, write = os.pipe()
    with open(read), Window(out, read) as window:
        os.write(write, b"q")
        assert not window.has_keys
        assert window.wait(0) == ""
    os.close(write)
    master, slave = os.openpty()
    with Window(out, slave) as window:
        os.close(master)
        assert window.wait(PATIENCE) == ""
        assert not window.has_keys
        assert window.wait(0) == ""
    os.close(slave)


def test_a_shell_that_lets_it_go_on_has_changed_the_terminal(keyboard: tuple[int, IO[str]]) -> None:
    master, out = keyboard
    fd = out.fileno()
    before = termios.tcgetattr(fd)
    with Window(out, fd) as window:
        termios.tcsetattr(fd, termios.TCSANOW, before)
        os.kill(os.getpid(), signal.SIGCONT)
        window.wait(PATIENCE)
        os.write(master, b"k")
        assert window.wait(PATIENCE) == "k"
    assert termios.tcgetattr(fd) == before


STOPS = """
import os, sys
from seqrpc.cli.window import Window
with Window(sys.stdout, 0) as window:
    print("begun", flush=True)
    while not window.is_to_stop:
        window.wait()
    window.stop()
    print("again", flush=True)
    while not (pressed := window.wait()):
        pass
    print("pressed", pressed, flush=True)
"""


def test_the_key_that_stops_programs_stops_it_with_the_terminal_as_it_was() -> None:
    """It needs somebody who could let it go on: a parent in the same session, in another group of processes."""
    shell = (
        "import os, signal, subprocess, sys, termios\n"
        "signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
        "before = termios.tcgetattr(0)\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], process_group=0)\n"
        "os.tcsetpgrp(0, child.pid)\n"
        "_, status = os.waitpid(child.pid, os.WUNTRACED)\n"
        "assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGTSTP, status\n"
        "assert termios.tcgetattr(0) == before\n"
        "print('stopped', flush=True)\n"
        "os.kill(child.pid, signal.SIGCONT)\n"
        "_, status = os.waitpid(child.pid, 0)\n"
        "os.tcsetpgrp(0, os.getpid())\n"
        "sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    opened = Terminal([sys.executable, "-c", shell, STOPS])
    try:
        opened.wait_for("begun")
        opened.type("\x1a")
        opened.wait_for("stopped")
        opened.wait_for("again")
        opened.type("x")
        opened.wait_for("pressed x")
        assert opened.end() == 0
        assert opened.after == opened.before
    finally:
        opened.close()


WRITES = """
import sys
from seqrpc.cli import window
window.PATIENCE = 0.1
with window.Window(sys.stdout, 0) as one:
    print("begun", flush=True)
    one.wait()
    while True:
        print("x" * 1_000, flush=True)
"""


def test_a_signal_ends_it_although_the_terminal_takes_nothing() -> None:
    opened = Terminal([sys.executable, "-c", WRITES])
    try:
        opened.wait_for("begun")
        opened.type("\x13k")  # Ctrl-S: nothing leaves any more
        for _ in range(2):
            opened.process.send_signal(signal.SIGTERM)
        assert opened.end() == -signal.SIGTERM
        assert opened.after == opened.before
    finally:
        opened.close()
