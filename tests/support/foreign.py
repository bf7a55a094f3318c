"""Serves what the clients here call, in a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAM = Path(__file__).with_name("foreign_service.py")
WITHIN = 60.0  # seconds: far more than anything here takes


@contextmanager
def served(path: Path, loop: str = "uvloop") -> Iterator[subprocess.Popen[bytes]]:
    """Serve; at the end of the block the service is told to stop, and must not have complained."""
    service = [sys.executable, "-W", "error", str(_PROGRAM), str(path), loop]
    with subprocess.Popen(service, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _wait_for(path)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            _out, complaints = process.communicate(timeout=WITHIN)
    assert complaints == b""


def _wait_for(path: Path) -> None:
    until = time.monotonic() + WITHIN
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            if sock.connect_ex(str(path)) == 0:
                return
        assert time.monotonic() < until
        time.sleep(0.005)
