"""The small prompt."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import Done, seqrpc_command, terminal

from seqrpc import ConnectionLost, blocking
from seqrpc.cli.conversation import Conversation
from seqrpc.cli.endings import Ending
from seqrpc.cli.learning import description_of
from seqrpc.cli.places import bounded
from seqrpc.cli.results import Writer
from seqrpc.cli.screen import Screen
from seqrpc.cli.shell import Shell

Make = Callable[[Screen], Shell]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


class Keyboard(Tty):
    """A terminal that is there, at which nobody types: ``input`` is what a test puts in its place."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


@pytest.fixture
def keyboard() -> Iterator[Keyboard]:
    master, slave = os.openpty()
    yield Keyboard(slave)
    os.close(master)
    os.close(slave)


@pytest.fixture
def make(desk: Path) -> Iterator[Make]:
    with (
        blocking.connect(desk) as connection,
        contextlib.closing(Conversation(connection, description_of(connection))) as conversation,
    ):
        yield lambda screen: Shell(conversation, screen, Writer(screen))


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def shell(make: Make, out: io.StringIO) -> Shell:
    return make(Screen(out, out))


def test_lines_are_calls(shell: Shell, out: io.StringIO) -> None:
    for line in ("add 1 2", "", "# nothing", "b = box a", "b.put 'x y'", "b.look", "box c", "object2.put z", "objects"):
        shell.line(line)
    assert out.getvalue().splitlines() == [
        "3",
        "b: Box.look, Box.put",
        "null",
        '"x y"',
        "object2: Box.look, Box.put",
        "null",
        "b: Box.look, Box.put",
        "object2: Box.look, Box.put",
    ]


def test_it_tells_what_there_is(shell: Shell, out: io.StringIO) -> None:
    shell.line("methods")
    shell.line("help")
    assert "Desk.add\n" in out.getvalue()
    assert "NAME = METHOD ARGS" in out.getvalue()


@pytest.mark.parametrize(
    "line, text",
    [
        ("add 'x", "No closing quotation"),
        ("x = add 1", "add gave no object that could be called x"),
        ("zzz", "no method"),
    ],
)
def test_what_cannot_be_understood_is_told(shell: Shell, line: str, text: str) -> None:
    with pytest.raises(Ending, match=text):
        shell.line(line)


def test_lines_of_a_pipe_end_at_the_first_that_fails(desk: Path) -> None:
    given = b"add 1 2\nb = box a\nb.look\nadd 3 4\n"
    done = seqrpc_command("call", desk, "--shell", given=given)
    assert done == Done(1, "3\nb: Box.look, Box.put\n", "seqrpc: desk.Empty: the box a is empty\n")
    done = seqrpc_command("call", desk, "--shell", given=b"fail_with 7\n")
    assert done == Done(1, "", "seqrpc: desk.Empty: nothing there; data: 7\n")
    assert seqrpc_command("call", desk, "--shell", given=b"add 1 2\nexit\nadd 1 2\n") == Done(0, "3\n", "")


def test_a_prompt_goes_on_after_errors(desk: Path) -> None:
    with terminal("call", desk, "--shell") as opened:
        opened.wait_for("seqrpc> ")
        opened.type("add 1 2\n")
        opened.wait_for("3\r\nseqrpc> ")
        opened.type("fail\n")
        opened.wait_for("desk.Empty: nothing there\r\nseqrpc> ")
        opened.type("sleep 60\n")
        opened.wait_for("sleep 60\r\n")
        opened.type("\x03")
        opened.wait_for("\r\nseqrpc> ", after="sleep 60\r\n")  # "^C" is there if the terminal is the call's again
        opened.type("\x04")
        assert opened.end() == 0
        assert opened.after == opened.before


def prompted(monkeypatch: pytest.MonkeyPatch, keyboard: Keyboard, *lines: str | type[BaseException]) -> None:
    given = iter(lines)

    def read(prompt: str) -> str:
        assert prompt == "seqrpc> "
        line = next(given)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr(builtins, "input", read)
    monkeypatch.setattr(sys, "stdin", keyboard)


def test_a_keyboard_is_asked_again_after_errors(
    make: Make, monkeypatch: pytest.MonkeyPatch, keyboard: Keyboard
) -> None:
    screen, err = Tty(), io.StringIO()
    prompted(monkeypatch, keyboard, "add 1 2", "fail", KeyboardInterrupt, "zzz", EOFError)
    make(Screen(screen, err)).run()
    assert screen.getvalue() == "3\n\n\n"
    assert err.getvalue() == "seqrpc: desk.Empty: nothing there\nseqrpc: there is no method 'zzz'\n"
    prompted(monkeypatch, keyboard, "quit")
    make(Screen(screen, err)).run()


@pytest.mark.parametrize(
    "error, at_keyboard, raised",
    [
        (KeyboardInterrupt, True, None),
        (KeyboardInterrupt, False, KeyboardInterrupt),
        (BrokenPipeError, True, BrokenPipeError),
        (ConnectionLost, True, ConnectionLost),
    ],
)
def test_some_errors_end_it(
    shell: Shell, request: pytest.FixtureRequest, error: Any, at_keyboard: bool, raised: Any
) -> None:
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")

    def fail(_line: str) -> None:
        raise error

    monkeypatch.setattr(shell, "line", fail)
    if at_keyboard:
        prompted(monkeypatch, request.getfixturevalue("keyboard"), "x", "exit")
        monkeypatch.setattr(shell._screen, "is_terminal", True)
    else:
        monkeypatch.setattr(sys, "stdin", io.StringIO("x\n"))
    if raised is None:
        shell.run()
    else:
        with pytest.raises(raised):
            shell.run()


def test_it_ends_when_all_of_the_time_is_up(shell: Shell, monkeypatch: pytest.MonkeyPatch, keyboard: Keyboard) -> None:
    prompted(monkeypatch, keyboard, "sleep 60", "exit")
    monkeypatch.setattr(shell._screen, "is_terminal", True)
    with pytest.raises(Ending, match=r"not done within 0\.1 s"), bounded(0.1):
        shell.run()


def test_names_are_completed(shell: Shell) -> None:
    assert [shell.completed("Desk.a", number) for number in range(3)] == ["Desk.add", "Desk.anything", None]
    shell.line("b = box a")
    assert [shell.completed("b.", number) for number in range(3)] == ["b.look", "b.put", None]


@pytest.mark.parametrize(
    "before, text, expected",
    [
        ("", "onl", ["only"]),
        ("told ", "colour=", ["colour=red", "colour=blue"]),
        ("x = told ", "r", ["red", "ratio="]),
        ("b.put ", "", ["text="]),
        ("b.put ", "@{files}/o", ["@{files}/one"]),
        ("b.put ", "text={files}/", ["text={files}/one"]),
        ("b.zzz ", "", []),
        ("Desk.zzz ", "", []),
    ],
)
def test_arguments_are_completed(shell: Shell, before: str, text: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    shell.line("b = box a")
    shell._typed_before = lambda: before
    shell._completions(text.format(files=tmp_path))
    assert shell._completions(text.format(files=tmp_path)) == [each.format(files=tmp_path) for each in expected]


def test_values_are_completed_at_a_keyboard(desk: Path) -> None:
    with terminal("call", desk, "--shell") as opened:
        opened.wait_for("seqrpc> ")
        opened.type("tol\t colour=bl\t bit\tREAD\n")
        opened.wait_for("told colour=blue bits=READ\r\n")
        opened.wait_for("Colour.BLUE")
        opened.wait_for("\r\nseqrpc> ")  # an end of file before that is lost, as in other shells
        opened.type("\x04")
        assert opened.end() == 0


def test_an_object_alone_is_told(shell: Shell, out: io.StringIO) -> None:
    shell.line("b = box a")
    shell.line("b")
    assert out.getvalue() == "b: Box.look, Box.put\n" * 2
    with pytest.raises(Ending, match=r"b is an object: b\.METHOD calls it"):
        shell.line("b look")
    shell.line("box = box a")
    shell.line("box b")
    assert "object3: Box" in out.getvalue()
    shell.line("echo = box a")
    with pytest.raises(Ending, match="echo: which of"):
        shell.line("echo")


def test_there_may_be_no_standard_input(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Ending, match="there is no standard input"):
        shell.run()
