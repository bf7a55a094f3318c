"""What a terminal is after a command was interrupted, while a server sends what means harm."""

from __future__ import annotations

import os
import shlex
import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import SEQRPC, Terminal, started, terminal
from support.emulator import Emulator
from support.waiting import PATIENCE

EVIL = """
import asyncio
import os
import sys
from collections.abc import AsyncIterator

import seqrpc

TEXT = "\\x1b[2J\\x1b]0;owned\\x07\\x1b[?1049h\\x9b31m\\u202egnp.\\u2066\\x08\\x7f\\r\\x00\\x0eline"


class Evil(seqrpc.Service):
    @seqrpc.method
    async def flow(self) -> AsyncIterator[str]:
        while True:
            yield TEXT

    @seqrpc.method
    async def drops(self) -> AsyncIterator[bytes]:
        while True:
            yield TEXT.encode()

    @seqrpc.method
    async def file(self, size: int) -> seqrpc.OwnedFd:
        fd = os.memfd_create("evil")
        data = (TEXT + "\\n").encode() * 10_000
        while os.lseek(fd, 0, os.SEEK_CUR) < size:
            os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return seqrpc.OwnedFd(fd)

    @seqrpc.method
    async def one(self) -> str:
        return TEXT

    @seqrpc.method
    async def hang(self) -> None:
        print("hanging", file=sys.stderr, flush=True)
        await asyncio.sleep(3600)
"""


SHOWN = r"\x1b[2J\x1b]0;owned\x07\x1b[?1049h\x9b31m\u202egnp.\u2066\x08\x7f\r\x00\x0eline"
"""What is to be seen of its text."""


@pytest.fixture
def evil(tmp_path: Path, socket_path: Path) -> Iterator[Any]:
    """Return the process that serves it."""
    (tmp_path / "evil.py").write_text(EVIL)
    with started("serve", "evil:Evil", socket_path, cwd=tmp_path) as process:
        assert process.stderr.readline().startswith(b"serving ")
        yield process


def check(opened: Terminal, *, is_prompt: bool = False) -> Emulator:
    """Check what is left of a terminal, and return it."""
    assert opened.after == opened.before
    emulator = Emulator(is_prompt=is_prompt).feed(opened.seen)
    assert emulator.is_as_before()
    return emulator


def resized(opened: Terminal, _server: Any) -> int:
    termios.tcsetwinsize(opened.master, (5, 20))
    return interrupted(opened, _server)


def interrupted(opened: Terminal, _server: Any) -> int:
    opened.type("\x03")
    return -signal.SIGINT


def quit_by_key(opened: Terminal, _server: Any) -> int:
    opened.type("\x1c")
    return -signal.SIGQUIT


def ended(opened: Terminal, _server: Any) -> int:
    opened.process.send_signal(signal.SIGTERM)
    return -signal.SIGTERM


def killed(_opened: Terminal, server: Any) -> int:
    server.kill()
    return 1


@pytest.mark.parametrize("happens", [interrupted, quit_by_key, ended, killed, resized])
@pytest.mark.parametrize("args", [("flow",), ("flow", "--json"), ("flow", "--raw"), ("drops",)], ids=" ".join)
def test_a_stream_that_is_cut_short_leaves_nothing(
    evil: Any, socket_path: Path, args: tuple[str, ...], happens: Callable[[Terminal, Any], int]
) -> None:
    with terminal("call", socket_path, *args) as opened:
        while opened.seen.count(b"\r\n") < 3:
            opened.read()
        expected = happens(opened, evil)
        status = opened.end()
        last = opened.seen.rfind(b"\n") + 1
        opened.seen = opened.seen[:last] + opened.seen[last:].decode(errors="ignore").encode()  # it may end anywhere
        emulator = check(opened)
        assert status == expected
        if happens is killed:
            assert emulator.lines[-2].startswith("seqrpc: rpc.Unavailable: the producer of the stream died")


@pytest.mark.parametrize("happens", [interrupted, ended, killed])
def test_a_progress_line_goes_when_it_is_over(
    evil: Any, socket_path: Path, tmp_path: Path, happens: Callable[[Terminal, Any], int]
) -> None:
    with terminal("call", socket_path, "flow", "--save", tmp_path / "saved") as opened:
        opened.wait_for(" items, ")
        expected = happens(opened, evil)
        assert opened.end() == expected
        emulator = check(opened)
        if happens is not ended:  # which is at once
            assert " items, " not in "".join(emulator.lines)


@pytest.mark.parametrize("happens", [interrupted, ended, killed])
def test_a_call_that_hangs_leaves_nothing(
    evil: Any, socket_path: Path, happens: Callable[[Terminal, Any], int]
) -> None:
    with terminal("call", socket_path, "hang", "--json", "--timeout", "600") as opened:
        opened.type("typed ahead")
        opened.wait_for("typed ahead")
        assert evil.stderr.readline() == b"hanging\n"
        comes = happens(opened, evil)
        assert opened.end() == comes
        assert len(check(opened).lines) <= 3


def test_a_hundred_megabytes_of_a_file_are_shown_and_never_obeyed(evil: Any, socket_path: Path) -> None:
    with terminal("call", socket_path, "file", 100_000_000) as opened:
        emulator, size = Emulator(), 0
        while size < 3_000_000:
            opened.read()
            whole, newline, rest = opened.seen.rpartition(b"\n")
            emulator.feed(whole + newline)
            size, opened.seen = size + len(whole), rest
        opened.type("\x03")
        assert opened.end() == -signal.SIGINT
        assert opened.after == opened.before
        emulator.feed(opened.seen.decode(errors="ignore").encode())
        assert emulator.is_as_before()
        assert {*emulator.lines[10:20]} == {SHOWN}


@pytest.mark.parametrize("happens", [ended, killed])
@pytest.mark.parametrize("line", ["", "half a line", "flow\n", "hang\n"])
def test_a_prompt_leaves_nothing(
    evil: Any, socket_path: Path, line: str, happens: Callable[[Terminal, Any], int]
) -> None:
    with terminal("call", socket_path, "--shell") as opened:
        opened.wait_for("seqrpc> ")
        opened.type(line)
        if line == "flow\n":
            opened.wait_for("line\r\n", after="flow\r\n")
        elif line == "hang\n":
            assert evil.stderr.readline() == b"hanging\n"
        elif line:
            opened.wait_for(line, after="seqrpc> ")
        expected = happens(opened, evil)
        if happens is killed and line != "hang\n":  # else the call that runs hears of it
            if line == "flow\n":
                opened.wait_for("seqrpc> ", after="the producer of the stream died")
            opened.type("\x15one\n")
        assert opened.end() == expected
        last = opened.seen.rfind(b"\n") + 1
        opened.seen = opened.seen[:last] + opened.seen[last:].decode(errors="ignore").encode()
        check(opened, is_prompt=True)


def test_a_prompt_that_is_stopped_and_resized_goes_on(evil: Any, socket_path: Path) -> None:
    assert evil.poll() is None
    command = shlex.join([*SEQRPC, "call", str(socket_path), "--shell"])
    opened = Terminal(
        ["bash", "--norc", "--noprofile", "-i"], env={"PS1": "$ ", "HISTFILE": "", "INPUTRC": "/dev/null"}
    )
    try:
        opened.type(f"set +o emacs; set +o vi; {command}\n")
        opened.wait_for("seqrpc> ")
        opened.type("on")
        opened.wait_for("on", after="seqrpc> ")
        opened.type("\x1a")
        opened.wait_for("$ ", after="Stopped")
        opened.type("stty -a | grep -o ' -*icanon'\n")
        opened.wait_for("$ ", after="\r\n icanon\r\n")
        termios.tcsetwinsize(opened.master, (10, 40))
        opened.type("fg\n")
        opened.type("e\n")
        opened.wait_for("seqrpc> ", after="\\x0eline\r\n")
        opened.type("\x04")
        opened.wait_for("$ ", after="\\x0eline\r\nseqrpc> ")
        opened.type("exit\n")
        opened.end()
        assert opened.after == opened.before
    finally:
        opened.close()


def test_what_was_interrupted_in_a_script_is_told_to_it(evil: Any, socket_path: Path) -> None:
    line = f"{shlex.join([*SEQRPC, 'call', str(socket_path), 'flow'])} >/dev/null; echo $?"
    with terminal("call", socket_path, "one") as opened:
        assert opened.end() == 0
    opened = Terminal(["bash", "-c", f"trap : INT; {line}"])
    try:
        until = os.times().elapsed + PATIENCE
        while not runs_it(opened.process.pid) and os.times().elapsed < until:
            pass
        opened.type("\x03")
        opened.wait_for("130\r\n")
        assert opened.end() == 0
        assert opened.after == opened.before
    finally:
        opened.close()
    assert evil.poll() is None


def runs_it(pid: int) -> bool:
    """Return whether a shell runs the command, which is past its beginning: it is connected."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return any("socket:" in link_of(link) for child in children for link in Path(f"/proc/{child}/fd").iterdir())


def link_of(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # it was closed meanwhile
        return ""
