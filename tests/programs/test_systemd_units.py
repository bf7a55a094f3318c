"""The units in examples/systemd: systemd takes them, and what they start does what they say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.programs import EXAMPLES, WITHIN, wait_for

import seqrpc

UNITS = EXAMPLES / "systemd"
INSTALLED = "/usr/local/lib/logdaemon"

needs_activation = pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed"
)
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def setting(unit: str, name: str) -> str:
    """Return what a unit says once."""
    (value,) = re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
    return str(value)


def program(unit: str, directory: Path) -> list[str]:
    """Return what a unit starts, as it is here, with another directory of logs."""
    python, script, *args = shlex.split(setting(unit, "ExecStart"))
    assert (python, script) == ("/usr/bin/python3", f"{INSTALLED}/logdaemon.py")
    args[args.index("/var/log")] = str(directory)
    return [sys.executable, "-W", "error", str(EXAMPLES / "logdaemon.py"), *args]


def verified(directory: Path) -> subprocess.CompletedProcess[str]:
    """Have systemd look at the units there, whose programs must exist."""
    for path in UNITS.iterdir():
        text = path.read_text().replace("/usr/bin/python3", sys.executable).replace(INSTALLED, str(EXAMPLES))
        (directory / path.name).write_text(text)
    return analyzed(directory)


def analyzed(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", *sorted(map(str, directory.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN,
    )


@needs_analyze
def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    checked = verified(tmp_path)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    service = tmp_path / "logdaemon.service"
    service.write_text(service.read_text().replace("DynamicUser=yes", "DynamicUsers=yes"))
    assert "DynamicUsers" in analyzed(tmp_path).stderr, "it would say so"


def test_each_socket_has_a_service_that_asks_for_it() -> None:
    names = {path.name for path in UNITS.iterdir()}
    assert names == {"logdaemon.socket", "logdaemon.service", "logdaemon-each.socket", "logdaemon-each@.service"}
    assert f"--address systemd:{setting('logdaemon.socket', 'FileDescriptorName')} " in setting(
        "logdaemon.service", "ExecStart"
    )
    assert setting("logdaemon-each.socket", "Accept") == "yes"
    assert "--address systemd:connection " in setting("logdaemon-each@.service", "ExecStart")


def test_an_instance_is_as_restricted_as_the_daemon() -> None:
    reasons = ("Type", "ExecStart", "Restart", "FileDescriptorStoreMax", "LimitNOFILE")

    def restrictions(unit: str) -> list[str]:
        service = (UNITS / unit).read_text().partition("[Service]")[2]
        return [line for line in re.findall(r"^\w.*", service, re.MULTILINE) if line.split("=")[0] not in reasons]

    assert restrictions("logdaemon.service") == restrictions("logdaemon-each@.service")


@contextlib.contextmanager
def activated(address: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have systemd listen and start a program as it starts services; at the end of the block it is killed."""
    variables = [f"--setenv={name}" for name in os.environ if name.startswith(("COV", "PYTHON", "SEQRPC"))]
    with subprocess.Popen(
        ["systemd-socket-activate", "--seqpacket", f"--listen={address}", *variables, *command],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            until = time.monotonic() + WITHIN
            while not address.is_socket():  # connecting to see whether it listens would be the first call
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.005)
            yield process
        finally:
            process.kill()


async def logs_at(address: Path) -> list[str]:
    async with seqrpc.connect(address, reconnect=True) as connection:
        return [log["name"] for log in await connection.call("Logs.list_logs")]


@needs_activation
def test_systemd_starts_the_daemon_for_the_first_call_which_is_answered(logs: Path, socket_path: Path) -> None:
    command = program("logdaemon.service", logs)
    assert command[-2] == "--idle-timeout"
    command[-1] = "0.05"
    name = setting("logdaemon.socket", "FileDescriptorName")
    with activated(socket_path, f"--fdname={name}", *command) as process:
        assert asyncio.run(logs_at(socket_path)) == ["apt/history.log", "empty.log", "system.log"]
        assert process.wait(WITHIN) == 0, "it ends when it is idle"
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert socket_path.is_socket(), "it is the manager's"


@needs_activation
def test_systemd_starts_an_instance_for_each_caller(logs: Path, socket_path: Path) -> None:
    command = program("logdaemon-each@.service", logs)
    with activated(socket_path, "--accept", "--fdname=connection", *command) as process:
        wait_for(socket_path, process)
        for _ in range(2):
            assert asyncio.run(logs_at(socket_path)) == ["apt/history.log", "empty.log", "system.log"]
        assert process.poll() is None
