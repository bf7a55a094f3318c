"""Socket activation with real processes: descriptors from 3 on and LISTEN_* in the environment."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.processes import fork

from seqrpc.errors import AddressError
from seqrpc.kernel import systemd
from seqrpc.kernel.systemd import take_passed_socket

PRELUDE = """
import fcntl, json, os, socket
from seqrpc.errors import AddressError
from seqrpc.kernel.systemd import take_passed_socket

def take(name):
    try:
        fd = take_passed_socket(name)
    except AddressError as exc:
        return str(exc)
    return fd.detach()

def pidfd_id():
    pidfd = os.pidfd_open(os.getpid())
    try:
        return str(os.fstat(pidfd).st_ino)
    finally:
        os.close(pidfd)

def show(*values):
    print(json.dumps(values))
"""


def run_activated(program: str, fds: Sequence[int], environment: Mapping[str, str]) -> list[Any]:
    """Exec a Python program as a service manager would, and return what it showed.

    Its descriptors from 3 on are ``fds``; ``LISTEN_PID`` is its pid, unless ``environment`` says otherwise.
    """
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            high = [os.dup2(fd, 100 + index) for index, fd in enumerate(fds)]
            os.dup2(writer, 1)
            for index, fd in enumerate(high):
                os.dup2(fd, 3 + index)
            os.closerange(3 + len(fds), 200)
            variables = {**os.environ, "LISTEN_PID": str(os.getpid()), **environment}
            os.execve(sys.executable, [sys.executable, "-c", PRELUDE + program], variables)
        finally:
            os._exit(127)
    os.close(writer)
    with open(reader, "rb") as pipe:
        output = pipe.read()
    _pid, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    shown: list[Any] = json.loads(output)
    return shown


def test_sockets_are_taken_by_name_in_order_close_on_exec_and_the_variables_go(pipe: tuple[int, int]) -> None:
    program = """
first, again, other = take("web"), take("web"), take("log")
flags = [fcntl.fcntl(fd, fcntl.F_GETFD) for fd in (3, 4, 5)]
show(first, again, other, flags, take("web"), [name for name in os.environ if name.startswith("LISTEN_")])
"""
    shown = run_activated(program, [pipe[0]] * 3, {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:log:web"})
    assert shown == [
        3,
        5,
        4,
        [1, 1, 1],
        "systemd:web: all sockets of that name are in use already (passed and not yet used: none)",
        [],
    ]


def test_sockets_without_a_name_are_called_unknown(pipe: tuple[int, int]) -> None:
    environment = {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:"}
    shown = run_activated('show(take("unknown"), take("unknown"), take("web"))', [pipe[0]] * 3, environment)
    assert shown == [4, 5, 3]
    shown = run_activated('show(take("unknown"))', [pipe[0]], {"LISTEN_FDS": "1"})
    assert shown == [3]


def test_the_error_names_what_is_left(pipe: tuple[int, int]) -> None:
    environment = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:log"}
    (shown,) = run_activated('show(take("wbe"))', [pipe[0]] * 2, environment)
    assert shown == (
        "systemd:wbe: the service manager passed no socket of that name (passed and not yet used: log, web)"
    )


def test_children_of_an_activated_process_get_neither_the_variables_nor_the_sockets(pipe: tuple[int, int]) -> None:
    program = """
import subprocess, sys
take("unknown")
child = (
    "import json, os\\n"
    "fds = [os.readlink(f'/proc/self/fd/{fd}') for fd in range(3, 50) if os.path.islink(f'/proc/self/fd/{fd}')]\\n"
    "print(json.dumps([fds, [name for name in os.environ if name.startswith('LISTEN_')]]))"
)
ran = subprocess.run([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True, check=True, close_fds=False)
show(os.readlink("/proc/self/fd/3"), *json.loads(ran.stdout))
"""
    passed, fds, variables = run_activated(program, [pipe[0]], {"LISTEN_FDS": "1"})
    assert passed == os.readlink(f"/proc/self/fd/{pipe[0]}")
    assert passed not in fds
    assert variables == []


def test_more_sockets_than_there_are_is_an_error(pipe: tuple[int, int]) -> None:
    (shown,) = run_activated('show(take("unknown"))', [pipe[0]], {"LISTEN_FDS": "90"})
    assert shown.startswith("systemd:unknown: LISTEN_FDS says 90, but descriptor ")
    assert shown.endswith(" is not open")


def test_the_pidfd_id_must_be_ours(pipe: tuple[int, int]) -> None:
    """Newer service managers add the inode of the process's pidfd, since pids are used again."""
    program = """
os.environ["LISTEN_PIDFDID"] = pidfd_id() + "0"
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = "1"
another = take("unknown")
os.environ["LISTEN_PIDFDID"] = pidfd_id()
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = "1"
show(os.getpid(), another, take("unknown"))
"""
    pid, another, ours = run_activated(program, [pipe[0]], {"LISTEN_PID": ""})
    assert another.endswith(" that had the number " + str(pid) + ", too (LISTEN_PIDFDID)")
    assert ours == 3


def no_pidfs(_pid: int) -> int:
    """Return a descriptor whose inode many share, as pidfds had before Linux 6.9."""
    return os.eventfd(0, os.EFD_CLOEXEC)


def forbidden(_pid: int) -> int:
    raise PermissionError("by a filter")


@pytest.mark.parametrize("pidfd_open", [no_pidfs, forbidden, None])
def test_where_the_kernel_gives_no_id_the_pid_says_it_alone(
    pidfd_open: Callable[[int], int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pidfd_open is None:
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    for variable, value in (("PIDFDID", "1"), ("PID", str(os.getpid())), ("FDS", "0")):
        monkeypatch.setenv(f"LISTEN_{variable}", value)
    with pytest.raises(AddressError, match="passed no socket to this process"):
        take_passed_socket("unknown")
    assert systemd._trouble == []


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test know what the environment of another said."""
    monkeypatch.setattr(systemd, "_passed", {})
    monkeypatch.setattr(systemd, "_trouble", [])


TO_ANOTHER = rf"the sockets were passed to process %s \(LISTEN_PID\), and this is process {os.getpid()}: "


@pytest.mark.parametrize(
    "pid, reason",
    [
        (None, "LISTEN_FDS is set, but LISTEN_PID does not say for which process"),
        ("", "LISTEN_FDS is set, but LISTEN_PID does not say for which process"),
        ("1", TO_ANOTHER % "1" + r"a shell or another wrapper .* \(exec\)$"),
        ("x\n", TO_ANOTHER % r"x\\n"),
    ],
)
def test_what_is_meant_for_another_process_is_left_alone_and_the_error_says_so(
    pid: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LISTEN_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("LISTEN_PID", pid)
    monkeypatch.setenv("LISTEN_FDS", "1")
    for _ in range(2):  # the environment tells it only once
        with pytest.raises(AddressError, match=reason):
            take_passed_socket("unknown")
    assert "LISTEN_FDS" not in os.environ
    assert not any(systemd._passed.values())


def test_a_process_that_no_service_manager_started_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN_PID", "LISTEN_FDS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AddressError, match=r"systemd:web: .* passed no socket to this process .* \.socket unit"):
        take_passed_socket("web")


@pytest.mark.parametrize("count", ["", "x", "1.5", "-1", "9" * 5000])
def test_a_count_that_is_no_number_is_an_error(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    for _ in range(2):
        with pytest.raises(AddressError, match=f"LISTEN_FDS is not the number .*: '{count[:100]}") as caught:
            take_passed_socket("unknown")
        assert len(str(caught.value)) < 500


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed")
def test_a_service_under_systemd_s_own_activation(socket_path: Path) -> None:
    program = """
from seqrpc.kernel.addresses import parse_address
from seqrpc.kernel.listening import listen
listening = listen(parse_address("systemd:greeter"))
connection, _ = listening.sock.accept()
connection.send(b"activated")
connection.close()
listening.close()
"""
    command = ["systemd-socket-activate", "--seqpacket", f"--listen={socket_path}", "--fdname=greeter"]
    variables = [f"--setenv={name}" for name in os.environ if name.startswith(("COV", "PYTHON", "SEQRPC"))]
    with subprocess.Popen(
        [*command, *variables, sys.executable, "-c", PRELUDE + program], stderr=subprocess.DEVNULL
    ) as manager:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            deadline = time.monotonic() + 10
            while True:  # it says only in prose when it listens
                try:
                    client.connect(os.fspath(socket_path))
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            client.settimeout(10)
            assert client.recv(100) == b"activated"
        assert manager.wait(10) == 0
    assert socket_path.is_socket()  # it is the manager's, not the service's
