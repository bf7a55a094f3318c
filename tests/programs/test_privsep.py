"""The daemon in two halves, one of them root and one nobody."""

from __future__ import annotations

import os
import pwd
import re
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import AS_ROOT
from support.programs import WITHIN, as_root, command, output_of


class Daemon:
    """The daemon as it runs."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process = process
        self.log = directory / "log"
        assert process.stdout is not None
        listens = re.fullmatch(r"fingerd: process (\d+) listens at port (\d+)\n", process.stdout.readline())
        serves = re.fullmatch(r"fingerd: process (\d+) serves as nobody\n", process.stdout.readline())
        assert listens is not None
        assert serves is not None
        self.pids = int(listens[1]), int(serves[1])
        self.port = int(listens[2])

    def ask(self, question: bytes) -> bytes:
        with socket.create_connection(("localhost", self.port), WITHIN) as sock:
            sock.sendall(question)
            answer = b""
            try:
                while part := sock.recv(1000):
                    answer += part
            except ConnectionResetError:  # it did not read all
                pass
            return answer


@pytest.fixture
def finger(tmp_path: Path) -> Iterator[Daemon]:
    plans = tmp_path / "plans"
    plans.mkdir(mode=0o700)
    (plans / "ann").write_text("to do little\n")
    (plans / "ann").chmod(0o600)
    (tmp_path / "secret").write_text("secret\n")
    (plans / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(plans / "fifo")
    args = command("privsep/fingerd.py", "--port", "0", "--plans", plans, "--log", tmp_path / "log")
    with subprocess.Popen(
        args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Daemon(process, tmp_path)
        finally:
            process.send_signal(signal.SIGTERM)
            _out, complaints = process.communicate(timeout=WITHIN)
    if process.returncode == 0:
        assert complaints == ""


def test_the_half_without_a_program_does_nothing_by_itself() -> None:
    assert output_of("privsep/finger.py") == ""


@pytest.mark.skipif(AS_ROOT, reason="root it serves")
def test_who_is_not_root_is_told(tmp_path: Path) -> None:
    args = command("privsep/fingerd.py", "--port", "0", "--plans", tmp_path, "--log", tmp_path / "log")
    done = subprocess.run(args, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fingerd: this has to be root, so that a half of it can become nobody\n"


@as_root
def test_it_gives_plans_and_nothing_else(finger: Daemon) -> None:
    assert finger.ask(b"ann\r\n") == b"to do little\n"
    for name in (b"bob", b"link", b"fifo", b"../secret", b"/etc/shadow", b"", b"\xff\n", b"."):
        assert finger.ask(name + b"\n") == b"no plan\r\n"
    assert finger.ask(b"x" * 100_000) == b""
    assert finger.log.read_text().splitlines()[:2] == ["'ann': 13 bytes", "'bob': no plan"]
    assert finger.log.stat().st_uid == 0


@as_root
def test_the_half_that_talks_to_the_network_is_nobody(finger: Daemon) -> None:
    parent, child = finger.pids
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
    nobody = pwd.getpwnam("nobody")
    assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert status["Groups"].split() == []
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0
    directory = Path(f"/proc/{child}/cwd")
    assert (os.listdir(directory), directory.stat().st_uid, directory.stat().st_mode & 0o777) == ([], 0, 0o700)
    assert Path(f"/proc/{parent}").stat().st_uid == 0


@as_root
def test_when_one_half_dies_the_other_ends(finger: Daemon) -> None:
    _parent, child = finger.pids
    os.kill(child, signal.SIGKILL)
    out, complaints = finger.process.communicate(timeout=WITHIN)
    assert (finger.process.returncode, out) == (1, "")
    assert re.fullmatch(rf"fingerd: the worker Finger \(process {child}\) died of SIGKILL\n", complaints)


@as_root
def test_a_half_whose_parent_was_killed_is_gone(finger: Daemon) -> None:
    parent, child = finger.pids
    pidfd = os.pidfd_open(child)
    os.kill(parent, signal.SIGKILL)
    assert select.select([pidfd], [], [], WITHIN)[0]
    os.close(pidfd)


@as_root
def test_it_says_what_it_cannot_open(tmp_path: Path) -> None:
    args = command("privsep/fingerd.py", "--port", "0", "--plans", tmp_path / "no", "--log", tmp_path / "log")
    done = subprocess.run(args, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"fingerd: .*No such file or directory.*\n", done.stderr)
