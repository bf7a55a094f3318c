"""``docs/cli.md`` shows what the commands write.

``SEQRPC_WRITE_DOCS=1 pytest tests/test_cli_md.py`` writes it anew; as root, for its session has another user.

A comment ``<!-- COMMAND -->`` is followed by what ``seqrpc COMMAND`` writes at a terminal, ``<!-- | COMMAND -->`` by
what it writes into a pipe. What is measured is another number each time: after ``<!-- like: COMMAND -->`` the page
keeps what it has if a run says the same, but for numbers and bars; take the block away to have it written anew.
Comments ``<!-- $ LINE -->`` that follow each other are one session in a shell; with ``^C TEXT`` at its end a line is
followed by Ctrl-C once that text is there.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import SEQRPC, Terminal, environment, started
from support.processes import AS_ROOT
from support.programs import EXAMPLES, daemon
from support.waiting import PATIENCE

import seqrpc
from seqrpc import blocking

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"

BLOCK = r"(?P<block>\n\n```console\n.*?\n```)?(?=\n)"

SHOWN = re.compile(rf"(?P<comment><!-- (?!\$ )(?P<command>[^\n]*?) -->){BLOCK}", re.DOTALL)

SESSION = re.compile(rf"(?P<comment>(?:<!-- \$ [^\n]* -->\n)*<!-- \$ [^\n]* -->){BLOCK}", re.DOTALL)

LIKE = "like: "

DRAWN = re.compile(r"(?:[^\n]*\x1b\[2K|[^\n]*\n\r?\x1b\[1A\x1b\[2K)+")
"""How far a measurement is, which is wiped."""

PREPARATION = re.compile(r"```sh\n(cp examples/.*?)\n```", re.DOTALL)

PROGRAM = re.compile(r"# desk\.py\n.*?(?=\n```)", re.DOTALL)

needs_root = pytest.mark.skipif(not AS_ROOT, reason="the session asks as another user, which only root can become")


def put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def prepare(directory: Path) -> None:
    """Do what the page has done before its first session, in a directory that has the examples."""
    found = PREPARATION.search(PAGE.read_text())
    assert found is not None
    (directory / "examples").symlink_to(EXAMPLES)
    subprocess.run(["sh", "-ec", found[1]], cwd=directory, check=True)
    (directory / "examples").unlink()


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Return a directory in which the daemons of the page run, and which another user can reach."""
    found = PROGRAM.search(PAGE.read_text())
    assert found is not None
    with tempfile.TemporaryDirectory(prefix="seqrpc-") as name:
        path = Path(name)
        path.chmod(0o711)
        (path / "desk.py").write_text(found[0] + "\n")
        (path / "release.txt").write_text("Desk 1.0\n")
        prepare(path)
        (path / "log" / "mail.log").write_text("")
        (path / "bin").mkdir()
        put(path / "bin" / "seqrpc", f'#!/bin/sh\nexec {shlex.join(SEQRPC)} "$@"\n')
        put(path / "bin" / "python3", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        with (
            started("serve", "desk:Desk", "desk.sock", cwd=path) as process,
            daemon(path / "logs.sock", path / "log", "--mode", "666"),
        ):
            assert process.stderr.readline().startswith(b"serving Desk at desk.sock")
            yield path


def env_in(directory: Path) -> dict[str, str]:
    return {**environment(), "PATH": f"{directory}/bin{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}


def typed(command: str) -> str:
    """Return what a person types: the program stands before its command, also behind a pipe."""
    before, bar, after = command.removeprefix("| ").partition(" | ")
    return f"{before} | seqrpc {after}" if bar else f"seqrpc {before}"


def everywhere(text: str) -> str:
    """Return what is shown wherever the page is made: who runs a daemon, and as which process, differs."""
    text = DRAWN.sub("", text)
    text = re.sub(r"(?m)^(ADDRESS +)OWNER +PID +", r"\1OWNER  PID   ", text)
    text = re.sub(r"(?m)^((?:desk|logs)\.sock +)\S+ +\d+ +", r"\1root   1234  ", text)
    text = re.sub(r"(?m)^\d\d:\d\d:\d\d\.\d{3}  \S+/\d+ *(?= \S)", "12:34:56.789  root/1234 ", text)
    text = re.sub(r"(?m)^(12:34:56.*)  \d+(?:\.\d+)? (?:µs|ms|s) *(?=  )", r"\1  123 µs ", text)
    return re.sub(r'"uid":\d+,"pid":\d+', '"uid":0,"pid":1234', text)


def at_terminal(
    line: str, directory: Path, interrupt_after: str = "", *, meanwhile: Callable[[Path], None] | None = None
) -> str:
    """Return what a line writes in a shell at a terminal."""
    opened = Terminal(["sh", "-c", line], env=env_in(directory), cwd=directory)
    try:
        if meanwhile is not None:
            meanwhile(directory / "desk.sock")
        if interrupt_after:
            opened.wait_for(interrupt_after)
            opened.type("\x03")
        opened.end()
        assert opened.after == opened.before
        return opened.text
    finally:
        opened.close()


def shown(command: str, directory: Path) -> str:
    """Run a command, in a terminal or with a pipe behind it, and return what a person sees."""
    line = typed(command)
    if command.startswith("| "):
        done = subprocess.run(
            ["sh", "-c", line], cwd=directory, env=env_in(directory), capture_output=True, timeout=PATIENCE, check=True
        )
        text, told = done.stdout.decode(), "" if ">" in line else " | cat"
    else:
        meanwhile = make_calls if command.startswith("monitor ") else None
        text, told = at_terminal(line, directory, meanwhile=meanwhile), ""
    return f"$ {line}{told}\n{everywhere(text)}".rstrip()


def session(comment: str, directory: Path) -> str:
    """Run lines in a shell, one after the other, and return what a person sees; assignments hold for what follows."""
    said, before = [], ""
    for line in re.findall(r"<!-- \$ (.*) -->", comment):
        command, _, text = line.partition(" ^C ")
        said.append(f"$ {command}\n")
        if re.match(r"[A-Z]+=", command):
            before += f"{command}\n"
        else:
            said.append(everywhere(at_terminal(before + command, directory, text)))
            assert said[-1].endswith("\n") or text
            said.append("\n" if text else "")
    return "".join(said).rstrip()


def form(text: str) -> str:
    """Return what output is like: numbers and units of time are the same, and so are rows, whose bars may be empty."""
    text = re.sub(r"[█▏▎▍▌▋▊▉]+", " ", text)
    text = re.sub(r"(?m)^not answered when it ended: .*\n", "", text)  # if the machine was busy
    text = re.sub(r"(?<![\w.])\d[\d,.]*( [nµm]?s)?", lambda found: "0 s" if found[1] else "0", text)
    text = re.sub(r" +", " ", text)
    return re.sub(r"(?m)^(.+\n)\1+", r"\1", text + "\n")


def make_calls(path: Path) -> None:
    """Make the calls that somebody sees who watches."""
    with blocking.connect(path) as connection:
        while not connection.call("rpc.stats")["methods"]["rpc.monitor"]["calls"]:
            pass
        while not connection.call("rpc.stats")["streams"]:  # of commands before, too, which may not have gone yet
            pass
        connection.call("Desk.add", 2, 3)
        connection.call("Desk.echo", "a pen")
        with pytest.raises(seqrpc.InvalidParams):
            connection.call("Desk.add", "two")
        with pytest.raises(seqrpc.PermissionDenied):
            connection.call("Desk.clear")


def rendered(directory: Path) -> str:
    """Return the page with what the commands write; the sessions are as they are where they cannot be run."""

    def block(found: re.Match[str], text: str) -> str:
        made, before = f"\n\n```console\n{text}\n```", found["block"] or ""
        is_alike = found["comment"].startswith(f"<!-- {LIKE}") and form(made) == form(before)
        return f"{found['comment']}{before if is_alike else made}"

    page = SHOWN.sub(
        lambda found: block(found, shown(found["command"].removeprefix(LIKE), directory)), PAGE.read_text()
    )
    if not AS_ROOT:
        return page
    return SESSION.sub(lambda found: block(found, session(found["comment"], directory)), page)


def test_the_page_shows_what_the_commands_write(directory: Path) -> None:
    text = rendered(directory)
    if "SEQRPC_WRITE_DOCS" in os.environ:
        PAGE.write_text(text)
    assert sys.executable not in text
    assert str(directory) not in text
    assert text == PAGE.read_text()


def test_what_was_measured_is_compared_by_its_form() -> None:
    one = "p50  41.7 µs\nmax  1.20 ms\n  ≥ 39.8 µs  ███▏  7,823\n  ≥ 1.00 ms  ▏         5\n"
    assert form(one) == form("p50  7 ns\nmax  12.2 s\n  ≥ 1.1 ns  █  12\n")
    assert form(one) != form(one.replace("p50", "p90"))
    assert form(one) != form(one.replace("≥", ">"))
    assert form(one) != form(f"{one}errors\n")


@needs_root
def test_the_session_of_an_administrator_is_what_the_page_shows(directory: Path) -> None:
    found = [*SESSION.finditer(PAGE.read_text())]
    assert len(found) == 2
    texts = [session(each["comment"], directory) for each in found]
    for each, text in zip(found, texts, strict=True):
        assert each["block"] == f"\n\n```console\n{text}\n```"
    first, second = texts
    assert "open_log(name: str) -> OwnedFd" in first
    assert "backup: done" in first
    assert "\n^C" in second
    assert "seqrpc: rpc.PermissionDenied: Logs.open_log: this caller is not admitted (who may call it: " in second
    assert second.endswith("\n4")
