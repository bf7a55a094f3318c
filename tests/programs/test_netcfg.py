"""The netcfg daemon, its app and its script, and the tests that come with them."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from support.processes import AS_ROOT, OTHER_UID, ChildFailed, in_child
from support.programs import EXAMPLES, WITHIN, as_root, command, output_of, wait_for

import seqrpc
import seqrpc.blocking

GROUP = next((group for group in grp.getgrall() if group.gr_gid), grp.getgrgid(0))


WITHOUT_CAPABILITIES = [
    sys.executable,
    "-c",
    "import ctypes, os, sys; assert not ctypes.CDLL(None).prctl(28, 3, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])",
]
"""Runs what follows as a root who has no power (prctl(2), PR_SET_SECUREBITS)."""

POWERLESS = WITHOUT_CAPABILITIES if AS_ROOT else []


class Daemon:
    """The daemon, which can be stopped and started again.

    Args:
        address: where it listens.
        run_by: the command that runs it.
    """

    def __init__(self, address: Path, run_by: Sequence[str] = ()) -> None:
        self.address = address
        self.config = address.with_name("netcfg.toml")
        self._run_by = run_by
        self._log = address.with_name("log")
        self.process: subprocess.Popen[bytes]
        self.configure([0])

    def configure(self, ports: list[int]) -> None:
        self.config.write_text(f'tunnels = ["seqrpc-test"]\nprotocols = [1]\nports = {ports}\n')

    def start(self) -> None:
        options = ("--address", self.address, "--config", self.config, "--group", GROUP.gr_name)
        args = [*self._run_by, *command("netcfg/netcfgd.py", *options)]
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stderr=log)
        wait_for(self.address, self.process)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(WITHIN)

    def reload(self, ports: list[int]) -> None:
        self.configure(ports)
        self.process.send_signal(signal.SIGHUP)

    def audit(self) -> list[str]:
        """Return what it logged of calls."""
        lines = self._log.read_text().splitlines()
        return [line.removeprefix("INFO:netcfg.audit:") for line in lines if line.startswith("INFO:netcfg.audit:")]

    def log(self) -> str:
        return self._log.read_text()


@contextlib.contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    """Run the daemon; it must end well when it is told to stop."""
    daemon.start()
    try:
        yield daemon
    finally:
        assert daemon.end(signal.SIGTERM) == 0
    assert not daemon.address.exists()


@pytest.fixture
def daemon(socket_path: Path) -> Iterator[Daemon]:
    with running(Daemon(socket_path)) as daemon:
        yield daemon


@contextlib.contextmanager
def client(program: str, *args: str | Path) -> Iterator[Callable[[], str]]:
    """Run a client until it is interrupted, which must end it well; yield what returns the next line that it prints."""
    with subprocess.Popen(
        command(program, *args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        lines = process.stdout
        try:
            yield lambda: lines.readline().decode().rstrip("\n")
        finally:
            process.send_signal(signal.SIGINT)
            _rest, complaints = process.communicate(timeout=WITHIN)
    assert (process.returncode, complaints.decode()) == (0, "")


def interfaces() -> list[str]:
    return [name for _number, name in socket.if_nameindex()]


def test_the_script_shows_and_tries_what_is_configured(daemon: Daemon) -> None:
    assert output_of("netcfg/ctl.py", "show", "--address", daemon.address) == (
        "Configuration(tunnels=['seqrpc-test'], protocols=[1], ports=[0], version=1)\n"
    )
    *others, port = output_of("netcfg/ctl.py", "try", "--address", daemon.address).splitlines()
    assert port == "port 0 is ours"
    for what, line in zip(("tunnel seqrpc-test", "raw socket of protocol 1"), others, strict=True):
        refused = re.fullmatch(rf"cannot open {what}: .+ \(errno (\d+)\)", line)
        assert line == f"{what} is ours" or (refused is not None and int(refused[1]) in (errno.EPERM, errno.ENOENT))


def test_a_daemon_that_lacks_a_capability_says_so_in_its_own_error(socket_path: Path) -> None:
    with running(Daemon(socket_path, POWERLESS)) as daemon:
        tunnel, *others = output_of("netcfg/ctl.py", "try", "--address", daemon.address).splitlines()

    assert tunnel.startswith("cannot open tunnel seqrpc-test: ")
    assert others == [
        f"cannot open raw socket of protocol 1: Operation not permitted (errno {errno.EPERM})",
        "port 0 is ours",
    ]
    assert [line.partition(" called ")[2] for line in daemon.audit()] == [
        "'Settings.current': ok",
        "'Sockets.open_tunnel': netcfg.CannotOpen",
        "'Sockets.open_raw': netcfg.CannotOpen",
        "'Sockets.listen': ok",
    ]


@as_root
@pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="this machine has no tun interfaces")
def test_a_tunnel_is_an_interface_as_long_as_it_is_held(daemon: Daemon) -> None:
    with seqrpc.blocking.connect(daemon.address) as connection:
        with connection.call("Sockets.open_tunnel", "seqrpc-test"):
            assert "seqrpc-test" in interfaces()
        until = time.monotonic() + WITHIN
        while "seqrpc-test" in interfaces():  # the daemon closes its copy a moment later
            assert time.monotonic() < until
            time.sleep(0.005)


@as_root
def test_members_of_the_group_are_served_and_others_refused(open_socket_path: Path) -> None:
    def listens() -> bool:
        with seqrpc.blocking.connect(open_socket_path) as connection:
            fd = connection.call("Sockets.listen", 0)
        with socket.socket(fileno=fd.detach()) as listener:
            return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def watched() -> list[int]:
        with seqrpc.blocking.connect(open_socket_path) as connection:
            ports: list[int] = next(connection.call("Settings.watch"))["ports"]
            return ports

    with running(Daemon(open_socket_path)) as daemon:
        assert in_child(listens, uid=OTHER_UID, groups=[GROUP.gr_gid])
        with pytest.raises(ChildFailed, match="PermissionDenied"):
            in_child(listens, uid=OTHER_UID)
        assert in_child(watched, uid=OTHER_UID) == [0]

    called = [re.sub(r"process \d+", "process N", line) for line in daemon.audit()]
    assert called == [
        f"user {OTHER_UID}, process N, called 'Sockets.listen': ok",
        f"user {OTHER_UID}, process N, called 'Sockets.listen': rpc.PermissionDenied",
        f"user {OTHER_UID}, process N, called 'Settings.watch': ok",
    ]


def test_whoever_watches_sees_each_reload(daemon: Daemon) -> None:
    with client("netcfg/ctl.py", "watch", "--address", daemon.address) as next_line:
        assert next_line().endswith("ports=[0], version=1)")
        daemon.reload([0, 80])
        assert next_line().endswith("ports=[0, 80], version=2)")
        daemon.config.write_text("ports = nonsense")
        daemon.process.send_signal(signal.SIGHUP)
        while "on_reload" not in daemon.log():
            assert daemon.process.poll() is None
            time.sleep(0.005)
        daemon.reload([])
        assert next_line().endswith("ports=[], version=3)")


def test_the_app_follows_the_configuration_and_the_daemons_that_come_and_go(daemon: Daemon) -> None:
    with client("netcfg/app.py", "--address", daemon.address) as next_line:
        assert [next_line(), next_line()] == ["app: port 0 is open", "app: this is version 1"]
        daemon.reload([])
        assert [next_line(), next_line()] == ["app: port 0 is closed", "app: this is version 2"]
        for number in (signal.SIGTERM, signal.SIGKILL):
            daemon.end(number)
            daemon.configure([0])
            daemon.start()
            assert next_line() == "app: connected again"
            assert [next_line(), next_line()] == ["app: port 0 is open", "app: this is version 1"]
            daemon.reload([])
            assert [next_line(), next_line()] == ["app: port 0 is closed", "app: this is version 2"]


def test_the_app_waits_for_a_daemon_that_is_not_there_yet(socket_path: Path) -> None:
    with client("netcfg/app.py", "--address", socket_path) as next_line, running(Daemon(socket_path)):
        assert [next_line(), next_line()] == ["app: port 0 is open", "app: this is version 1"]


def test_the_script_says_what_went_wrong(socket_path: Path) -> None:
    args = command("netcfg/ctl.py", "show", "--address", socket_path)
    done = subprocess.run(args, capture_output=True, timeout=WITHIN, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"ctl: cannot connect to ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("text", [None, "ports = ", "ports = 80"])
def test_the_daemon_says_what_is_wrong_with_its_configuration(socket_path: Path, text: str | None) -> None:
    config = socket_path.with_name("netcfg.toml")
    if text is not None:
        config.write_text(text)
    args = command("netcfg/netcfgd.py", "--address", socket_path, "--config", config, "--group", "daemon")
    done = subprocess.run(args, capture_output=True, timeout=WITHIN, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"netcfgd: {config}: ".encode())
    assert done.stderr.count(b"\n") == 1


def test_the_tests_that_come_with_it_need_no_root(tmp_path: Path) -> None:
    """If this is root, it has no capability there."""
    args = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}"]
    done = subprocess.run(
        [*POWERLESS, *args, EXAMPLES / "netcfg/test_netcfg.py"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d passed in ", done.stdout, re.MULTILINE), done.stdout


def test_it_does_without_what_one_would_have_to_write() -> None:
    """No loop in the script, no way back in the app, no other users in the tests; and an audit of a few lines."""
    ctl, app, tests, daemon = (
        (EXAMPLES / "netcfg" / name).read_text() for name in ("ctl.py", "app.py", "test_netcfg.py", "netcfgd.py")
    )
    assert not re.search(r"asyncio|thread|async ", ctl)
    assert not re.search(r"sleep|ConnectError|closing_reason", app)
    assert app.count("seqrpc.connect(") == 1
    assert not re.search(r"setpriv|setuid|setresuid|os\.fork|subprocess|skip", tests)
    audit = re.search(r"^class Audit.*?\n\n\n", daemon, re.MULTILINE | re.DOTALL)
    assert audit is not None
    assert len(audit[0].splitlines()) < 12


def test_its_page_shows_commands_that_there_are() -> None:
    page = (EXAMPLES / "netcfg/README.md").read_text()
    named = re.findall(r"examples/(netcfg\S*)", page)
    assert len(named) >= 5
    assert [name for name in named if not (EXAMPLES / name).exists()] == []
    listed = re.findall(r"^\| `(.*?)`", page, re.MULTILINE)
    files = {path.name for path in (EXAMPLES / "netcfg").glob("*.*")}
    assert files - {*listed} == {"README.md", "pytest.ini"}
