"""How shells ask for completion."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Done, Terminal

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
        ("call {desk} Desk.add ", ["open,a=", "open,b="]),
        ("call {desk} add a=1 ", ["open,b="]),
        ("call {desk} box a -- l", ["plain,look"]),
        ("call {desk} Desk.echo @{files}/o", ["plain,@{files}/one"]),
        ("call {desk} Desk.echo value=@{files}/", ["open,value=@{files}/dir/", "plain,value=@{files}/one"]),
        ("call {desk} Desk.echo value=@{files}/no/", []),
        ("call {desk} write --fd file={files}/o", ["plain,file={files}/one"]),
        ("call {desk} blob --save {files}/o", ["file,{files}/o"]),
        ("stub {desk} --check {files}/o", ["file,{files}/o"]),
        ("call {desk} told colour=b", ["plain,colour=blue"]),
        ("describe {desk} Box", []),
        ("call --tim", ["plain,--timeout"]),
        ("rel", []),
    ],
)
def test_zsh_and_fish_are_answered(  # noqa: PLR0917 - fixtures
    desk: Path, seqrpc_run: Run, monkeypatch: pytest.MonkeyPatch, typed: str, offered: list[str], tmp_path: Path
) -> None:
    for name in ("one", ".hidden", "a b"):
        (tmp_path / name).touch()
    (tmp_path / "dir").mkdir()
    typed = typed.format(desk=desk, files=tmp_path)
    offered = [each.format(files=tmp_path) for each in offered]
    words = ["seqrpc", *typed.split(" ")]
    monkeypatch.setenv(COMPLETION, "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", shlex.join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    lines = seqrpc_run().out.strip().splitlines()
    assert [f"{kind},{value}" for kind, value in zip(lines[::3], lines[1::3], strict=True)] == offered
    monkeypatch.setenv(COMPLETION, "fish_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", words[-1])
    kinds = [",".join(line.split("\t")[0].split(",")[:2]) for line in seqrpc_run().out.strip().splitlines()]
    assert kinds == [each.replace("open,", "plain,") for each in offered]


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
    "typed, shown",
    [
        ("li\t", "seqrpc list "),
        ("call desk.sock Desk.ad\t!", "seqrpc call desk.sock Desk.add !"),
        ("call desk.sock on\t!", "seqrpc call desk.sock only !"),
        ("call desk.sock Desk.echo va\t@fi\t!", "seqrpc call desk.sock Desk.echo value=@file !"),
        ("call desk.sock told colour=b\t!", "seqrpc call desk.sock told colour=blue !"),
        ("call desk.sock told bl\tbi\t!", "seqrpc call desk.sock told blue bits=!"),
        ("call desk.sock Desk.echo @fi\t!", "seqrpc call desk.sock Desk.echo @file !"),
        ("call desk.sock Desk.echo '@fi\t!", "seqrpc call desk.sock Desk.echo '@file' !"),
        ("call desk.sock Desk.echo @di\t!", "seqrpc call desk.sock Desk.echo @directory/!"),
        ("call desk.sock Desk.echo '@di\t!", "seqrpc call desk.sock Desk.echo '@directory/'!"),
        ("call desk.sock Desk.echo @a\\ \t!", "seqrpc call desk.sock Desk.echo @a\\ b !"),
        ("call desk.sock Desk.echo @directory/\t!", "seqrpc call desk.sock Desk.echo @directory/inner !"),
        ("call desk.sock Desk.echo @a\t!", "seqrpc call desk.sock Desk.echo @a\\ b !"),
        ("call desk.sock Desk.echo value=fi\t!", "seqrpc call desk.sock Desk.echo value=file !"),
        ("call desk.sock write --fd f\tfi\t!", "seqrpc call desk.sock write --fd file=file !"),
        ("call desk.sock blob 1 --save fi\t!", "seqrpc call desk.sock blob 1 --save file !"),
        ("call desk.sock box a -- pu\tte\t!", "seqrpc call desk.sock box a -- put text=!"),
        ("stub desk.sock --check fi\t!", "seqrpc stub desk.sock --check file !"),
    ],
)
def test_bash_completes(desk: Path, typed: str, shown: str, tmp_path: Path) -> None:
    """What is typed at a real bash becomes what is shown, with a space exactly where a word has ended."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "seqrpc"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m seqrpc "$@"\n')
    program.chmod(0o755)
    (tmp_path / "desk.sock").symlink_to(desk)
    (tmp_path / "directory").mkdir()
    for name in ("file", "a b", "directory/inner"):
        (tmp_path / name).touch()
    path = f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "PS1": "$ ", "HISTFILE": "", "INPUTRC": "/dev/null"}
    opened = Terminal(["bash", "--norc", "--noprofile", "-i"], env=env, cwd=tmp_path)
    try:
        opened.type('eval "$(seqrpc completion bash)"; bind "set enable-bracketed-paste off"; echo $((40 + 2))\n')
        opened.wait_for("$ ", after="\r42\r\n")
        before = len(opened.seen)
        opened.type(f"seqrpc {typed}")
        while not cleaned(opened.seen[before:]).endswith(shown):
            opened.read()
        assert b"\a" not in opened.seen[before:]
    finally:
        opened.close()


def cleaned(seen: bytes) -> str:
    """Return a line as it looks when characters have been erased."""
    line: list[str] = []
    at = 0
    for char in seen.decode():
        if char == "\b":
            at -= 1
        else:
            line[at : at + 1] = char
            at += 1
    return "".join(line)
