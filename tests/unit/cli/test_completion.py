"""How shells ask for completion."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Done, environment
from support.waiting import PATIENCE

from seqrpc.cli.completion import _mended
from seqrpc.cli.program import COMPLETION

Run = Callable[..., Done]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(seqrpc_run: Run, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = seqrpc_run("completion", shell)
    assert (done.status, done.err) == (0, "")
    assert f"{COMPLETION}={shell}_complete" in done.out
    monkeypatch.setenv(COMPLETION, f"{shell}_source")
    assert seqrpc_run() == done


def test_other_shells_are_misuse(seqrpc_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seqrpc_run("completion", "csh").status == 2
    for instruction in ("csh_complete", "bash_nonsense"):
        monkeypatch.setenv(COMPLETION, instruction)
        assert seqrpc_run() == Done(1, "", "")


@pytest.mark.parametrize(
    "typed, offered",
    [
        ("de", ["plain,describe"]),
        ("call {desk} Desk.ad", ["plain,Desk.add"]),
        ("call {desk} Desk.add ", ["plain,a=", "plain,b="]),
        ("call {desk} add a=1 ", ["plain,b="]),
        ("call {desk} told colour=b", ["plain,colour=blue"]),
        ("describe {desk} Box", []),
        ("call --tim", ["plain,--timeout"]),
        ("rel", []),
    ],
)
def test_zsh_and_fish_are_answered(
    desk: Path, seqrpc_run: Run, monkeypatch: pytest.MonkeyPatch, typed: str, offered: list[str]
) -> None:
    typed = typed.format(desk=desk)
    words = ["seqrpc", *typed.split(" ")]
    monkeypatch.setenv(COMPLETION, "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", shlex.join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    lines = seqrpc_run().out.strip().splitlines()
    assert [f"{kind},{value}" for kind, value in zip(lines[::3], lines[1::3], strict=True)] == offered
    monkeypatch.setenv(COMPLETION, "fish_complete")
    monkeypatch.setenv("COMP_CWORD", words[-1])
    kinds = [",".join(line.split("\t")[0].split(",")[:2]) for line in seqrpc_run().out.strip().splitlines()]
    assert kinds == offered


@pytest.mark.parametrize(
    "words, expected",
    [
        (["seqrpc", "call", "@", "name", "x"], ["seqrpc", "call", "@name", "x"]),
        (["seqrpc", "call", "ssh", "://", "me", "@", "host/x", "y"], ["seqrpc", "call", "ssh://me@host/x", "y"]),
        (["seqrpc", "call", "/x", "M", "a", "=", "1", "b", "="], ["seqrpc", "call", "/x", "M", "a=1", "b="]),
        (["seqrpc", "call", "'exec:a b'", "M"], ["seqrpc", "call", "exec:a b", "M"]),
        (["seqrpc", "call", "'exec:a b", ""], ["seqrpc", "call", "exec:a b", ""]),
    ],
)
def test_what_bash_tears_is_put_together(words: list[str], expected: list[str]) -> None:
    assert _mended(words) == expected


@pytest.mark.parametrize(
    "typed, offered",
    [
        ("call {desk} Desk.ad", ["Desk.add"]),
        ("call {desk} Desk.add ", ["a=", "b="]),
        ("call {desk} told colour=", ["red", "blue"]),
        ("call {desk} told colour=b", ["blue"]),
        ("li", ["list"]),
    ],
)
def test_bash_completes(desk: Path, typed: str, offered: list[str], tmp_path: Path) -> None:
    """Bash itself sources the script and calls its function, with words torn as readline tears them."""
    program = tmp_path / "seqrpc"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m seqrpc "$@"\n')
    program.chmod(0o755)
    words: list[str] = []
    for word in ["seqrpc", *typed.format(desk=desk).split(" ")]:
        name, equals, value = word.partition("=")
        words += [name, equals, value] if value else [name, equals] if equals else [name]
    script = f"""
        eval "$({shlex.quote(str(program))} completion bash)"
        COMP_WORDS=({shlex.join(words)})
        COMP_CWORD={len(words) - 1}
        compopt() {{ :; }}
        _seqrpc_completion {shlex.quote(str(program))}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, env=environment(), timeout=PATIENCE, check=False
    )
    assert (done.stderr.decode(), done.stdout.decode().splitlines()) == ("", offered)
