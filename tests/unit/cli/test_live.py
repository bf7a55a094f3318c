"""A server's state on a terminal, drawn anew until a key ends it."""

from __future__ import annotations

import io
import os
import select
import shlex
import signal
import sys
import termios
import time
from pathlib import Path

import pytest
from support.commands import SEQRPC, Terminal, terminal
from support.desk import both
from support.sync import Thread, served
from support.waiting import PATIENCE

from seqrpc.cli import live
from seqrpc.cli.looks import Looker
from seqrpc.cli.places import Elsewhere, place_of
from seqrpc.cli.screen import Screen

ENTERS, LEAVES, SHOWS_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


def is_as_it_was(opened: Terminal) -> bool:
    seen = opened.seen.decode()
    return (
        opened.after == opened.before
        and seen.count(ENTERS) == seen.count(LEAVES) > 0
        and seen.rindex(SHOWS_CURSOR) > seen.rindex("\x1b[?25l")
        and seen.rstrip("\r\n").rindex(LEAVES) > seen.rindex("calls ")
    )


def wait_for(opened: Terminal, text: str, after: int) -> None:
    """Read until a text is there, after so many bytes; something comes all the time."""
    until = time.monotonic() + PATIENCE
    while text.encode() not in opened.seen[after:]:
        assert time.monotonic() < until, f"{text!r} does not come"
        opened.read()


def last_frame(opened: Terminal) -> list[str]:
    """Return the lines that stand on the screen."""
    return opened.text.rpartition("\x1b[H")[2].split("\n")


def test_q_ends_it_and_the_terminal_is_as_it_was(desk: Path) -> None:
    with terminal("top", desk, "--interval", "0.05") as opened:
        opened.wait_for("rates of the last ")
        opened.type("q")
        assert opened.end() == 0
        assert is_as_it_was(opened)
        assert "every 0.05 s, by calls; q ends it" in opened.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_as_it_ends_others(desk: Path, number: signal.Signals) -> None:
    with terminal("top", desk, "--interval", "0.05") as opened:
        opened.wait_for("rates of the last ")
        if number in (signal.SIGINT, signal.SIGQUIT):
            opened.type("\x03" if number == signal.SIGINT else "\x1c")
        else:
            opened.process.send_signal(number)
        assert opened.end() == -number
        assert is_as_it_was(opened)


def test_it_fits_in_the_window_and_follows_it(desk: Path) -> None:
    with terminal("top", desk, "--interval", "3600") as opened:
        opened.wait_for("calls 1 in flight")
        for columns, lines in ((20, 5), (100, 30), (1, 1), (300, 70)):
            seen = len(opened.seen)
            termios.tcsetwinsize(opened.master, (lines, columns))
            wait_for(opened, "\x1b[H", seen)
            frame = last_frame(opened)
            while len(frame) < lines or len(frame[-1]) < columns:
                opened.read()
                frame = last_frame(opened)
            assert len(frame) == lines
            assert {len(line) for line in frame} == {columns}
        opened.type("q")
        assert opened.end() == 0
        assert is_as_it_was(opened)


def test_other_keys_do_nothing_and_s_sorts(desk: Path) -> None:
    with terminal("top", desk, "--interval", "3600", "--sort", "latency") as opened:
        opened.wait_for("every 3600 s, by latency; q ends it")
        opened.type("x\x1b[A")
        opened.type("s")
        opened.wait_for("by name")
        opened.type("s")
        opened.wait_for("by calls")
        opened.type("q")
        assert opened.end() == 0


def test_ctrl_z_stops_it_with_the_terminal_as_it_was(desk: Path) -> None:
    with terminal("top", desk, "--interval", "0.05") as opened:
        opened.wait_for("rates of the last ")
        opened.type("\x1a")  # its group of processes is an orphan, which nobody could let go on: it goes on by itself
        wait_for(opened, LEAVES, 0)
        wait_for(opened, ENTERS, opened.seen.index(LEAVES.encode()))
        opened.type("q")
        assert opened.end() == 0
        assert is_as_it_was(opened)


def test_it_says_that_the_server_is_gone_and_when_it_is_back(socket_path: Path) -> None:
    with terminal("top", socket_path, "--interval", "0.05") as opened:
        assert opened.end() == 3
        assert "NobodyListens: " in opened.text
    with served(socket_path, both()):
        opened = Terminal([*SEQRPC, "top", str(socket_path), "--interval", "0.05"])
        opened.wait_for("rates of the last ")
    try:
        opened.wait_for("NobodyListens: cannot connect to")
        opened.wait_for("the next look is in 0.05 s")
        with served(socket_path, both()):
            seen = len(opened.seen)
            wait_for(opened, "rates since the start", seen)
            opened.type("q")
            assert opened.end() == 0
            assert is_as_it_was(opened)
    finally:
        opened.close()


def test_a_program_that_was_started_ends_it(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "import seqrpc, os\n"
        "class A(seqrpc.Service):\n"
        "    @seqrpc.method\n"
        "    async def nothing(self) -> None: ...\n"
        "seqrpc.run(A(), 'fd:3')\n"
    )
    with terminal("top", f"exec:{sys.executable} {tmp_path}/a.py", "--interval", "0.05") as opened:
        opened.wait_for("rates of the last ")
        pid = int(opened.text.partition("pid ")[2].split()[0])
        os.kill(pid, signal.SIGKILL)
        assert opened.end() in (1, 3)
        assert is_as_it_was(opened)
        assert opened.text.splitlines()[-1].partition("seqrpc: ")[2]
    with terminal("top", f"exec:{sys.executable} {tmp_path}/a.py", "--interval", "3600") as opened:
        opened.wait_for("calls 1 in flight")
        pid = int(opened.text.partition("pid ")[2].split()[0])
        opened.type("q")
        assert opened.end() == 0
        with pytest.raises(ProcessLookupError):  # it is ended with it
            os.kill(pid, 0)


def test_a_terminal_that_only_knows_lines_gets_them(desk: Path) -> None:
    with terminal("top", desk, "--interval", "0.05", env={"TERM": "dumb"}) as opened:
        opened.wait_for("rates of the last ")
        opened.type("\x03")
        assert opened.end() == -signal.SIGINT
        assert "\x1b" not in opened.text
        assert opened.after == opened.before


def test_once_is_a_look_of_totals(desk: Path) -> None:
    with terminal("top", desk, "--once") as opened:
        assert opened.end() == 0
        assert opened.after == opened.before
        assert "rates since the start\n" in opened.text
        assert opened.text.splitlines()[-1].split()[1:3] == ["connections", "1,"]
        assert "\x1b" not in opened.text


def test_without_a_keyboard_ctrl_c_ends_it(desk: Path) -> None:
    opened = Terminal(["sh", "-c", f"exec {shlex.join([*SEQRPC, 'top', str(desk)])} </dev/null"])
    try:
        opened.wait_for("Ctrl-C ends it")
        opened.type("\x03")
        assert opened.end() == -signal.SIGINT
        assert is_as_it_was(opened)
    finally:
        opened.close()


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_ctrl_c_is_an_interrupt_in_this_process_too(desk: Path, monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setenv("TERM", term)
    master, slave = os.openpty()
    looker = Looker(place_of(str(desk)), PATIENCE)
    seen = b""

    def interrupt() -> None:
        nonlocal seen
        while b"rates of the last " not in seen:
            seen += os.read(master, 65_536)
        os.kill(os.getpid(), signal.SIGINT)
        while select.select([master], [], [], 0.1)[0]:
            seen += os.read(master, 65_536)

    with open(slave, "w") as out:
        watched = live.Watched(str(desk), place_of(str(desk)), looker, looker.look(), "calls")
        thread = Thread(interrupt)
        with pytest.raises(KeyboardInterrupt):
            watched.show(Screen(out), 0.05)
        thread.result()
    looker.close()
    os.close(master)
    assert (ENTERS.encode() in seen, LEAVES.encode() in seen) == ((True, True) if term == "xterm" else (False, False))


def test_users_of_another_machine_have_no_names(desk: Path) -> None:
    looker = Looker(place_of(str(desk)), PATIENCE)
    out = io.StringIO()
    try:
        stats = looker.look()
        live.Watched("ssh://there/x", Elsewhere("there", None, "/x"), looker, stats, "calls").write(Screen(out))
    finally:
        looker.close()
    rows = out.getvalue().splitlines()
    assert rows[0].startswith("ssh://there/x   Desk, Other   pid ")
    assert rows[-1].startswith(f"{os.getuid()} ")


def test_all_that_draws_is_loaded_beforehand() -> None:
    live.prepare()
