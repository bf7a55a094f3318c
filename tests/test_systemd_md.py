"""What docs/systemd.md says is true: its daemon does what units, command and tables say of it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.pages import ROOT, check_types, text_of
from support.programs import WITHIN
from support.waiting import PATIENCE

import seqrpc
from seqrpc.kernel import systemd

PAGE = text_of("systemd.md")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {text.split("\n")[0].removeprefix("# "): text for kind, text in BLOCKS if kind != "sh"}
UNITS = [name for name in FILES if not name.endswith(".py")]
(COMMAND,) = (text for kind, text in BLOCKS if kind == "sh")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a directory in which everything from the page is in files, and the units name the daemon there."""
    for name, text in FILES.items():
        here = text.replace("/usr/bin/python3", sys.executable).replace(
            "/usr/local/lib/counter.py", f"{tmp_path}/counter.py"
        )
        (tmp_path / name).write_text(here, encoding="utf-8")
    return tmp_path


def program_of(unit: str, directory: Path) -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", (directory / unit).read_text(), re.MULTILINE)
    return shlex.split(line)


# It becomes the program, which so has the number that it writes down.
STARTER = """
import os, sys
fd, name, *command = sys.argv[1:]
os.dup2(int(fd), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": name}
os.execv(command[0], command)
"""


@contextmanager
def started(command: list[str], sock: socket.socket, name: str, notify: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program as systemd does: with a socket as descriptor 3, and what there is to say of it."""
    variables = {**os.environ, "NOTIFY_SOCKET": os.fspath(notify), "WATCHDOG_USEC": "20000"}
    starter = [sys.executable, "-c", STARTER, str(sock.fileno()), name, *command]
    with subprocess.Popen(starter, pass_fds=[sock.fileno()], env=variables) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def listening(socket_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(os.fspath(socket_path))
        sock.listen()
        yield sock


@pytest.fixture
def manager(socket_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(os.fspath(socket_path.with_name("notify")))
        sock.settimeout(PATIENCE)
        yield sock


def ask(directory: Path, address: Path) -> str:
    asked = [sys.executable, "-W", "error", "ask.py", os.fspath(address)]
    return subprocess.run(asked, cwd=directory, stdout=subprocess.PIPE, text=True, check=True, timeout=WITHIN).stdout


def test_the_daemon_of_its_units_is_started_says_what_it_does_and_ends(
    written: Path, socket_path: Path, listening: socket.socket, manager: socket.socket
) -> None:
    command = program_of("counter.service", written)
    assert command[-1] == "60"
    for _ in range(2):  # the next one serves the same socket
        with started([*command[:-1], "0.1"], listening, "counter", socket_path.with_name("notify")) as daemon:
            assert ask(written, socket_path) == "1\n"
            words = [manager.recv(100).decode()]
            while words[-1] != "STOPPING=1":
                words.append(manager.recv(100).decode())
            assert daemon.wait(WITHIN) == 0
        assert {"READY=1", "WATCHDOG=1"} < {*words}
        assert any(word.startswith("WATCHDOG=1\nSTATUS=") for word in words)


def test_the_instance_of_its_template_serves_one_connection(
    written: Path, socket_path: Path, listening: socket.socket, manager: socket.socket
) -> None:
    command = program_of("counter-each@.service", written)
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE)
    ours.connect(os.fspath(socket_path))
    theirs, _address = listening.accept()
    with ours, theirs, started(command, theirs, "connection", socket_path.with_name("notify")) as instance:
        theirs.close()
        assert manager.recv(100)
        ours.send(b"\x94\x00\x01\xacCounter.next\x90")
        assert ours.recv(100) == b"\x94\x01\x01\xc0\x01"
        ours.close()
        assert instance.wait(WITHIN) == 0


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed")
def test_its_command_starts_the_daemon_for_the_first_caller(written: Path) -> None:
    command = shlex.split(COMMAND.replace("$PWD", str(written)))
    command[command.index("python3")] = sys.executable
    variables = [f"--setenv={name}" for name in os.environ if name.startswith(("COV", "PYTHON", "SEQRPC"))]
    command[1:1] = variables
    command[-1] = "0.05"
    with subprocess.Popen(command, cwd=written, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        assert "Listening on" in daemon.stderr.readline()
        assert ask(written, written / "counter.sock") == "1\n"
        daemon.stderr.read()
        assert daemon.wait(WITHIN) == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_has_nothing_to_say_about_its_units(written: Path) -> None:
    looked = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", *UNITS],
        cwd=written,
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN,
    )
    assert (looked.returncode, looked.stdout, looked.stderr) == (0, "", "")


def test_each_error_of_its_table_is_one_that_is_raised() -> None:
    sources = "".join(path.read_text() for path in Path(seqrpc.__file__).parent.rglob("*.py"))
    written_there = "".join(re.findall(r'f?"(.*)"', sources))
    rows = re.findall(r"^\| `(.*?)` \| ", PAGE.partition("| it says |")[2], re.MULTILINE)
    assert len(rows) == 7
    for row in rows:
        constant = re.sub(r"^mode=| 7 .*| READY=1", "", row)
        assert constant in written_there, row


def test_its_words_to_systemd_are_those_of_the_code() -> None:
    source = Path(systemd.__file__).read_text()
    said = re.findall(r"^\| `([A-Z]+)=", PAGE, re.MULTILINE)
    assert said == ["READY", "RELOADING", "STOPPING", "STATUS", "WATCHDOG"]
    assert all(f'"{word}=' in source for word in said)


def test_what_it_says_of_hardening_is_what_the_unit_has() -> None:
    unit = (ROOT / "examples" / "systemd" / "logdaemon.service").read_text()
    directives = re.findall(r"`(\w+=[\w@-]*)`", PAGE.partition("\n## Hardening\n")[2].partition("\n## ")[0])
    assert len(directives) == 6
    for directive in directives:
        assert re.search(rf"^{'# Not ' if directive == 'PrivateUsers=yes' else ''}{directive}", unit, re.MULTILINE)


def test_everything_passes_the_type_checker(written: Path) -> None:
    check_types(written, [name for name in FILES if name.endswith(".py")])


def test_every_public_name_it_writes_exists() -> None:
    for name in set(re.findall(r"\bseqrpc\.([A-Za-z_]+)", PAGE)):
        assert hasattr(seqrpc, name) or name == "blocking", name


def test_it_can_be_found() -> None:
    assert "docs/systemd.md" in (ROOT / "README.md").read_text(encoding="utf-8")
