"""The commands, each loaded when it is asked for, and how the program ends."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from support.commands import SEQRPC, Done, environment
from support.waiting import PATIENCE

import seqrpc.cli.call
from seqrpc.cli.commands import COMMANDS, is_there, program, run
from seqrpc.cli.program import COMPLETION
from seqrpc.cli.versions import versions

Run = Callable[..., Done]


def test_the_help_lists_the_commands_that_there_are(seqrpc_run: Run) -> None:
    done = seqrpc_run("--help")
    assert (done.status, done.err) == (0, "")
    listed = [line.split()[0] for line in done.out.partition("Commands:\n")[2].splitlines() if line.startswith("  ")]
    there = [name for name, (module, told) in COMMANDS.items() if is_there(module) and told]
    assert listed[: len(there)] == sorted(there)
    assert "relay" not in done.out
    assert "  Exit status:\n    0    success\n" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_every_command_has_help_with_the_statuses(seqrpc_run: Run) -> None:
    for name in program.list_commands(click.Context(program)):
        done = seqrpc_run(name, "--help")
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith(f"Usage: seqrpc {name} ")
        assert name in ("completion", "relay") or "Exit status:\n" in done.out


def test_a_command_that_is_not_asked_for_is_not_loaded() -> None:
    code = (
        "import sys; from seqrpc.cli.commands import run; run(['--help']); print([m for m in sys.modules if m in %r])"
    )
    modules = [module for module, _help in COMMANDS.values()] + ["asyncio", "rich", "seqrpc.blocking", "msgspec"]
    done = subprocess.run(
        [sys.executable, "-c", code % modules], capture_output=True, timeout=PATIENCE, check=True, env=environment()
    )
    assert done.stdout.splitlines()[-1] == b"[]"


def test_a_call_loads_no_event_loop(desk: Path) -> None:
    code = "import sys; from seqrpc.cli.commands import run; run(['call', sys.argv[1], 'add', '1']); print(%s)"
    found = "[each for each in sys.modules if each in ('asyncio', 'rich', 'uvloop', 'readline')]"
    done = subprocess.run(
        [sys.executable, "-c", code % found, str(desk)],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
        env=environment(),
    )
    assert done.stdout.splitlines() == [b"2", b"[]"]


@pytest.mark.parametrize(
    "args, text",
    [
        ((), "Usage: seqrpc"),
        (("nothing",), "seqrpc: there is no command 'nothing' ('seqrpc --help' says more)\n"),
        (("cal",), "seqrpc: there is no command 'cal'; did you mean 'call'? ('seqrpc --help' says more)\n"),
        (("--verison",), "seqrpc: No such option"),
        (
            ("completion",),
            "seqrpc: Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish ('seqrpc completion --help'",
        ),
        (("call",), "seqrpc: Missing argument 'ADDRESS' ('seqrpc call --help' says more)\n"),
        (
            ("list", "--timeout", "x"),
            (
                "seqrpc: Invalid value for '--timeout': 'x' is no number of seconds, of 0.01 or more ('seqrpc list"
                " --help' says more)\n"
            ),
        ),
    ],
)
def test_wrong_use_is_told(seqrpc_run: Run, args: tuple[str, ...], text: str) -> None:
    done = seqrpc_run(*args)
    assert done.status == 2
    assert done.err.startswith(text) or done.out.startswith(text)


def test_the_version_is_told(seqrpc_run: Run) -> None:
    assert seqrpc_run("--version") == Done(0, f"{versions()}\n", "")


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(seqrpc.cli.call, "command", command)


@pytest.mark.parametrize(
    "error, status, err",
    [
        (click.FileError("x\x1b", "no"), 2, "seqrpc: Could not open file 'x\\x1b': no\n"),
        (click.exceptions.Exit(7), 7, ""),
        (SystemExit(0), 1, "seqrpc: SystemExit: 0\n"),
        (RuntimeError("odd"), 1, "seqrpc: RuntimeError: odd\n"),
        (
            ModuleNotFoundError("no", name="rich.table"),
            2,
            (
                "seqrpc: rich.table is not there, which the command line needs: "
                "pip install 'seqrpc[cli]', or in a checkout '.[cli]'\n"
            ),
        ),
        (ModuleNotFoundError("no", name="theirs"), 1, "seqrpc: ModuleNotFoundError: no\n"),
        (seqrpc.cli.endings.Ending(3), 3, ""),
    ],
)
def test_errors_end_it_with_their_status(
    seqrpc_run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, err: str
) -> None:
    failing(monkeypatch, error)
    assert seqrpc_run("call") == Done(status, "", err)


class Died(Exception):
    """In place of the end of the process."""


@pytest.mark.parametrize("error, number", [(KeyboardInterrupt(), signal.SIGINT), (BrokenPipeError(), signal.SIGPIPE)])
def test_some_ends_are_those_of_signals(monkeypatch: pytest.MonkeyPatch, error: BaseException, number: int) -> None:
    def die(signalled: int) -> Any:
        raise Died(signalled)

    failing(monkeypatch, error)
    monkeypatch.setattr("seqrpc.cli.endings.die_of", die)
    with pytest.raises(Died) as raised:
        run(["call"])
    assert raised.value.args == (number,)


def test_ctrl_c_and_a_closed_pipe_end_it_quietly(desk: Path) -> None:
    with subprocess.Popen(
        [*SEQRPC, "call", str(desk), "forever"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT
        assert process.stderr.read() == b""
    with subprocess.Popen(
        [*SEQRPC, "call", str(desk), "forever"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == -signal.SIGPIPE
        assert process.stderr.read() == b""


def test_a_shell_is_offered_commands_and_options(seqrpc_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPLETION, "fish_complete")
    monkeypatch.setenv("COMP_WORDS", "seqrpc ")
    for typed, offered in (("des", "plain,describe"), ("--ver", "plain,--version"), ("rela", "")):
        monkeypatch.setenv("COMP_CWORD", typed)
        done = seqrpc_run()
        assert (done.status, done.err) == (0, "")
        assert done.out.strip().partition("\t")[0] == offered


@pytest.mark.parametrize(
    "redirected, status, err",
    [
        (">/dev/full", 1, "seqrpc: ENOSPC: No space left on device\n"),
        (">&-", 1, "seqrpc: EBADF: Bad file descriptor\n"),
        (">&- 2>&-", 1, ""),
    ],
)
def test_output_that_cannot_be_written_is_told_once(redirected: str, status: int, err: str) -> None:
    line = f"exec {shlex.join(SEQRPC)} --help {redirected}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=PATIENCE, check=False, env=environment())
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (status, "", err)
