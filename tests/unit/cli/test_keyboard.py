"""The modes of a terminal, when a signal ends or stops who has changed them."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import termios
import threading
import tty
from pathlib import Path

import pytest
from support.commands import Terminal
from support.waiting import PATIENCE

from seqrpc.cli.keyboard import _set, given_back

PROMPT = """
import sys
from seqrpc.cli.keyboard import given_back
import readline, termios
with given_back(0):
    print("ready", flush=True)
    while (line := input("? ")) != "end":
        print("got", line)
print("over")
"""

ENDS = [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]


@pytest.mark.parametrize("number", ENDS)
def test_who_is_ended_leaves_a_terminal_as_it_was(number: int) -> None:
    opened = Terminal([sys.executable, "-c", PROMPT])
    try:
        opened.wait_for("ready\r\n? ")
        opened.type("half a line")
        opened.process.send_signal(number)  # it may come between two looks at the keyboard
        assert opened.end() == -number
        assert opened.after == opened.before
    finally:
        opened.close()


def test_who_is_stopped_gives_it_back_and_takes_it_again() -> None:
    """By a shell, for who has none to go on with is not stopped."""
    command = shlex.join([sys.executable, "-c", PROMPT])
    opened = Terminal(
        ["bash", "--norc", "--noprofile", "-i"], env={"PS1": "$ ", "HISTFILE": "", "INPUTRC": "/dev/null"}
    )
    try:
        opened.type(f"set +o emacs; {command}\n")
        opened.wait_for("? ", after="ready\r\n")
        opened.type("half")
        opened.wait_for("half", after="? ")
        opened.type("\x1a")
        opened.wait_for("$ ", after="Stopped")
        opened.type("stty -a | grep -o ' -\\?icanon'\n")
        opened.wait_for("$ ", after="\r\n icanon\r\n")
        opened.type("fg\n")
        opened.type(" a line\n")
        opened.wait_for("got half a line\r\n", after="icanon\r\n")
        opened.type("end\n")
        opened.wait_for("over\r\n")
        opened.type("exit\n")
        opened.end()
        assert opened.after == opened.before
    finally:
        opened.close()


def test_afterwards_signals_are_as_they_were() -> None:
    master, slave = os.openpty()
    before = [signal.getsignal(number) for number in (*ENDS, signal.SIGTSTP, signal.SIGURG)]
    try:
        with given_back(slave):
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert termios.tcgetattr(slave)[3] & termios.ICANON
    finally:
        os.close(master)
        os.close(slave)
    assert [signal.getsignal(number) for number in (*ENDS, signal.SIGTSTP, signal.SIGURG)] == before
    assert "seqrpc-keys" not in [thread.name for thread in threading.enumerate()]


def test_an_interrupt_that_comes_before_the_waiting_ends_it() -> None:
    """As one that another thread of the program gets: this one's waiting goes on."""
    master, slave = os.openpty()
    reading, writing = os.pipe()

    def interrupt() -> None:
        while Path(f"/proc/self/task/{main}/syscall").read_text().split()[1:2] != [hex(reading)]:
            pass  # it does not wait yet
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        if not interrupted.wait(PATIENCE / 2):
            late.append(True)
            os.write(writing, b"x")

    late: list[bool] = []
    interrupted, main = threading.Event(), threading.get_native_id()
    other = threading.Thread(target=interrupt)
    try:
        other.start()
        with given_back(slave), pytest.raises(KeyboardInterrupt):
            os.read(reading, 1)
        interrupted.set()
        other.join()
    finally:
        for fd in (master, slave, reading, writing):
            os.close(fd)
    assert not late


def test_the_modes_are_given_back_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which is not to end."""
    master, slave = os.openpty()
    ended: list[tuple[int, bool]] = []
    enough = threading.Event()

    def is_cooked() -> bool:
        return bool(termios.tcgetattr(slave)[3] & termios.ICANON)

    def die(number: int) -> None:
        ended.append((number, is_cooked()))
        enough.set()

    monkeypatch.setattr("seqrpc.cli.keyboard.die_of", die)
    try:
        with given_back(slave):
            tty.setraw(slave)
            signal.raise_signal(signal.SIGTERM)
            assert enough.wait(PATIENCE)
        modes = termios.tcgetattr(slave)
        os.close(master)
        with pytest.raises(termios.error):
            termios.tcgetattr(slave)
        _set(slave, modes)
    finally:
        os.close(slave)
    assert {*ended} == {(signal.SIGTERM, True)}
