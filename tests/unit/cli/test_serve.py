"""The command ``serve``."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest
from support.commands import Done, environment, seqrpc_command, started
from support.waiting import PATIENCE

from seqrpc import PermissionDenied, Service, blocking
from seqrpc.cli.endings import Ending
from seqrpc.cli.serve import services_of

Run = Callable[..., Done]

MODULE = """
import seqrpc
from seqrpc_helper import VALUE


class Thing(seqrpc.Service):
    @seqrpc.method
    async def value(self) -> int:
        return VALUE
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "seqrpc_served.py").write_text(MODULE)
    (tmp_path / "seqrpc_helper.py").write_text("VALUE = 1\n")
    return tmp_path


def change(path: Path, text: str) -> None:
    """Write a file anew as editors do, so that nobody reads half of it."""
    written = path.with_suffix(".new")
    written.write_text(text)
    written.replace(path)


def lines_until(process: object, text: str) -> list[str]:
    """Return what is on standard error until a line has some text."""
    lines: list[str] = []
    assert select.select([process.stderr], [], [], PATIENCE)[0], "it says nothing"  # type: ignore[attr-defined]
    while not lines or text not in lines[-1]:
        line = process.stderr.readline().decode()  # type: ignore[attr-defined]
        assert line, f"it ended: {lines}"
        lines.append(line)
    return lines


def test_a_class_is_served_until_it_is_told_to_stop(directory: Path, socket_path: Path) -> None:
    with started("serve", "seqrpc_served:Thing", socket_path, "--mode", "660", cwd=directory) as process:
        (line,) = lines_until(process, "serving")
        assert line == f"serving Thing at {socket_path}, as process {process.pid}\n"
        assert socket_path.stat().st_mode & 0o777 == 0o660
        with blocking.connect(socket_path) as connection:
            assert connection.call("Thing.value") == 1
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert not socket_path.exists()


@pytest.mark.parametrize("level, is_told", [("info", True), ("INFO", True), ("warning", False)])
def test_who_is_refused_is_logged_if_that_is_asked_for(socket_path: Path, level: str, is_told: bool) -> None:
    with started("serve", "support.desk:Desk", socket_path, "--log-level", level) as process:
        lines_until(process, "serving Desk")
        with blocking.connect(socket_path) as connection, pytest.raises(PermissionDenied):
            connection.call("Desk.secret")
        process.send_signal(signal.SIGTERM)
        _out, err = process.communicate(timeout=PATIENCE)
    assert (b"seqrpc.dispatch INFO" in err) == is_told
    assert (b"Desk.secret" in err) == is_told


@pytest.mark.parametrize(
    "args, status, text",
    [
        (("nothing", "{path}"), 2, "a service is named as MODULE:CLASS, got 'nothing'"),
        (("seqrpc_no_such:X", "{path}"), 2, "there is no module seqrpc_no_such"),
        (("support.desk:Dek", "{path}"), 2, "support.desk has no 'Dek'; did you mean 'Desk'?"),
        (("support.desk:Colour.RED", "{path}"), 2, "support.desk:Colour.RED is no seqrpc.Service, nor makes any"),
        (("support.desk:Desk", "/nothing/here/x"), 1, "ListenError: .*there is no directory"),
        (("support.desk:Point", "{path}"), 2, "support.desk:Point is no seqrpc.Service, nor makes any"),
        (
            ("support.desk:Box", "{path}"),
            2,
            r"support\.desk:Box needs arguments \(missing a required argument: 'name'\): name a function without",
        ),
        (("support.desk:Desk", "exec:thing"), 2, "exec:thing is no place to serve at: "),
        (("support.desk:Desk", "ssh://host/x"), 2, "ssh://host/x is no place to serve at: "),
        (("support.desk:Desk", "fd:3", "--reload"), 2, "--reload needs an address that can be listened at again"),
        (("support.desk:Desk", "{path}", "--mode", "x"), 2, "'x' is no number in octal, as 660 is"),
        (
            ("support.desk:Desk", "{path}", "--group", "0"),
            2,
            "AddressError: --group has no effect with mode 0o600, .*: write --mode 660, too",
        ),
        (
            ("support.desk:Desk", "{path}", "--group", "no-such-group"),
            2,
            "AddressError: --group names no group of this machine: 'no-such-group'",
        ),
        (("support.desk:Desk", "{path}", "--log-level", "loud"), 2, "'loud' is not one of"),
        (("support.desk:Desk", "/nothing/here/x", "--reload"), 1, "ListenError: .*there is no directory"),
    ],
)
def test_what_cannot_be_served_is_told(
    socket_path: Path, seqrpc_run: Run, args: tuple[str, ...], status: int, text: str
) -> None:
    done = seqrpc_run("serve", *(arg.format(path=socket_path) for arg in args))
    assert (done.status, done.out) == (status, "")
    assert re.search(text, done.err)
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("is_abstract", [False, True])
def test_who_has_an_address_is_told(socket_path: Path, is_abstract: bool) -> None:
    address = f"@{socket_path}" if is_abstract else str(socket_path)
    with started("serve", "support.desk:Desk", address) as process:
        lines_until(process, "serving Desk")
        done = seqrpc_command("serve", "support.desk:Desk", address)
        assert (done.status, done.out) == (1, "")
        assert re.search(
            rf"AddressInUse: .* is in use: .* \(process {process.pid}, of user {os.getuid()}\)\n", done.err
        )


def test_nobody_is_named_where_nobody_can_be_asked(socket_path: Path) -> None:
    socket_path.write_text("a file")
    done = seqrpc_command("serve", "support.desk:Desk", socket_path)
    assert done.err.endswith("exists and is no socket; it was left alone\n")


def test_a_name_stands_for_services() -> None:
    assert [type(each).__name__ for each in services_of("support.desk", "both")] == ["Desk", "Other"]
    assert isinstance(services_of("support.desk", "Desk")[0], Service)
    with pytest.raises(Ending):
        services_of("support.desk", "Point.__name__")


def test_a_change_of_any_module_begins_it_anew_in_the_same_process(directory: Path, socket_path: Path) -> None:
    with started("serve", "--reload", "seqrpc_served:Thing", socket_path, cwd=directory) as process:
        lines_until(process, "serving")
        change(directory / "seqrpc_helper.py", "VALUE = 22\n")
        changed, serving = lines_until(process, "serving")
        assert changed == f"{directory}/seqrpc_helper.py has changed\n"
        assert serving.endswith(f"as process {process.pid}\n")
        with blocking.connect(socket_path) as connection:
            assert connection.call("Thing.value") == 22
        change(directory / "seqrpc_helper.py", "VALUE = (\n")
        told = lines_until(process, "waiting for a change")
        assert any("SyntaxError" in line for line in told)
        change(directory / "seqrpc_helper.py", "VALUE = 333\n")
        lines_until(process, "serving")
        with blocking.connect(socket_path) as connection:
            assert connection.call("Thing.value") == 333
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


@pytest.mark.parametrize(
    "text, told",
    [
        (
            "import seqrpc_helper\n\nseqrpc_helper.nothing\n",
            ":3: AttributeError: module 'seqrpc_helper' has",
        ),
        ("import seqrpc_no_such_at_all\n", ":1: seqrpc_app imports seqrpc_no_such_at_all, which is not there"),
        ("x = (\n", ":1: SyntaxError: '(' was never closed"),
        ("raise SystemExit(3)\n", ":1: seqrpc_app ends the program where it is imported: SystemExit(3)"),
        (
            "def App():\n    open('/nothing/here')\n",
            ":2: FileNotFoundError: [Errno 2] No such file",
        ),
    ],
)
@pytest.mark.parametrize("command", ["serve", "describe", "stub"])
def test_a_broken_module_is_told_with_its_line(directory: Path, command: str, text: str, told: str) -> None:
    (directory / "seqrpc_app.py").write_text(text)
    more = ["x.sock"] if command == "serve" else []
    done = seqrpc_command(command, "seqrpc_app:App", *more, cwd=directory)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"seqrpc: seqrpc_app.py{told}")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("name", ["seqrpc_served.py", "seqrpc_helper.py"])
def test_a_file_that_is_away_for_a_moment_is_waited_for(directory: Path, socket_path: Path, name: str) -> None:
    with started("serve", "--reload", "seqrpc_served:Thing", socket_path, cwd=directory) as process:
        lines_until(process, "serving")
        (directory / name).rename(directory / "away")
        lines_until(process, "waiting for a change")
        (directory / "away").rename(directory / name)
        assert lines_until(process, "serving")[0] == f"{directory / name} has changed\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_the_program_itself_may_be_away_for_a_moment(directory: Path, socket_path: Path) -> None:
    """As while it is installed anew."""
    program = directory / "program"
    program.write_text("from seqrpc.cli.main import main\nmain()\n")
    argv = [sys.executable, str(program), "serve", "--reload", "seqrpc_served:Thing", str(socket_path)]
    with subprocess.Popen(argv, stdout=PIPE, stderr=PIPE, cwd=directory, env=environment()) as process:
        try:
            lines_until(process, "serving")
            program.rename(directory / "away")
            lines_until(process, "program has changed")
            (directory / "away").rename(program)
            lines_until(process, "serving")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0


def test_what_does_not_import_is_told_and_waited_for(
    tmp_path: Path, socket_path: Path, seqrpc_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, which is not to begin anew."""
    begun: list[str] = []
    path = tmp_path / "seqrpc_broken.py"
    path.write_text("x = (\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("seqrpc.cli.reloading.execute_anew", lambda: begun.append("anew"))
    timer = threading.Timer(0.5, change, [path, "x = 1\n"])
    timer.start()
    done = seqrpc_run("serve", "--reload", "seqrpc_broken:Thing", socket_path)
    timer.join()
    assert (done.status, begun) == (0, ["anew"])
    assert "SyntaxError" in done.err
    assert done.err.endswith(f"waiting for a change\n{path} has changed\n")
