"""A client in C, written from docs/protocol.md, against a served process."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WITHIN = 60.0  # seconds: far more than anything here takes

COMPILER = shutil.which("gcc") or shutil.which("cc")

EXPECTED = """\
ping: [1, 0, nil, nil]
by position: [1, 1, nil, 42]
by name: [1, 4294967295, nil, 1000001]
descriptors passed: [1, 2, nil, [5, 10]]
descriptors got: [1, 3, nil, {"from Python": descriptor 0, "to C": descriptor 1}], \
holding "from Python", holding "to C"
refused: [1, 4, ["rpc.PermissionDenied", "…", nil], nil]
no such method: [1, 5, ["rpc.MethodNotFound", "…", nil], nil]
wrong arguments: [1, 6, ["rpc.InvalidParams", "…", nil], nil]
an error of the service's own: [1, 7, ["foreign.Empty", "nothing is left", [1, 2]], nil]
waiting: [1, 9, nil, 1]
cancelled: [1, 8, ["rpc.Cancelled", "…", nil], nil]
no longer waiting: [1, 8, nil, 0]
too late: [1, 10, ["rpc.DeadlineExceeded", "…", nil], nil]
after a notification: [1, 11, nil, ["noted"]]
called back: [0, 0, "Client.greet", ["Python"]]
the answer, after its own: [1, 12, nil, "hello from C"]
malformed: [5, "…"]
then: the end
"""

TEXT_FOR_PEOPLE = r'("rpc\.\w+", |malformed: \[5, )".*?"(?=[,\]])'


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """Return the client, compiled."""
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    program = tmp_path / "client"
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wpedantic"]
    compiled = subprocess.run(
        [COMPILER, "-std=c11", "-O1", *warnings, "-o", str(program), str(HERE / "client.c")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stderr
    return program


def test_a_client_in_c_is_understood_and_understands(client: Path, socket_path: Path) -> None:
    service = [sys.executable, "-W", "error", str(HERE / "service.py"), str(socket_path)]
    with subprocess.Popen(service, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            wait_for(socket_path)
            called = subprocess.run(
                [str(client), str(socket_path)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=WITHIN,
                check=False,
            )
        finally:
            process.send_signal(signal.SIGTERM)
            _out, complaints = process.communicate(timeout=WITHIN)

    assert called.stderr == ""
    assert re.sub(TEXT_FOR_PEOPLE, r'\1"…"', called.stdout) == EXPECTED
    assert called.returncode == 0
    assert (process.returncode, complaints) == (0, b"")


def wait_for(path: Path) -> None:
    until = time.monotonic() + WITHIN
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            if sock.connect_ex(str(path)) == 0:
                return
        assert time.monotonic() < until
        time.sleep(0.005)
