"""The programs in examples/, run as their users run them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import AS_ROOT

EXAMPLES = Path(__file__).parents[2] / "examples"

WITHIN = 60.0  # seconds: far more than anything here takes

as_root = pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")


def command(program: str, *args: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / program), *map(str, args)]


def output_of(program: str, *args: str | Path, env: dict[str, str] | None = None) -> str:
    """Run an example that must succeed without a word on stderr; return what it printed."""
    done = subprocess.run(
        command(program, *args),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WITHIN,
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout.decode(errors="surrogateescape")


@contextlib.contextmanager
def daemon(address: Path, directory: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the log daemon; it must end well when it is told to stop, having said nothing on stderr."""
    args = command("logdaemon.py", "--address", address, "--directory", directory, *options)
    with subprocess.Popen(args, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            wait_for(address, process)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            _out, complaints = process.communicate(timeout=WITHIN)
    assert (process.returncode, complaints.decode()) == (0, "")
    assert not address.exists()


def wait_for(address: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    until = time.monotonic() + WITHIN
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            if sock.connect_ex(str(address)) == 0:
                return
        assert process is None or process.poll() is None, "the daemon did not start"
        assert time.monotonic() < until, "the daemon does not listen"
        time.sleep(0.005)


NO_LOGS = [
    "../secret",
    "apt/../../secret",
    "..",
    ".",
    "",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "apt//history.log",
    "apt/./history.log",
    "system.log/",
    "system.log/..",
    "file-link",
    "inner-link",
    "directory-link/secret",
    "directory-link/log/system.log",
    "loop",
    "loop/secret",
    "fifo",
    "socket",
    "apt",
    "nothing",
    "nothing/at/all",
    "nul\0",
    "x" * 300,
    "x/" * 3000,
    "not-utf-8-\ufffd.log",
    "\x1b[2J",
]


@contextlib.contextmanager
def in_background(work: Callable[..., None], *args: Any) -> Iterator[None]:
    """Run ``work`` over and over in a forked process."""
    pid = os.fork()
    if pid == 0:
        while True:
            work(*args)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
