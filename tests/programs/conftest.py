"""What the log daemon serves, and where."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Return a directory of logs with all sorts of things in it, and a secret beside it."""
    (tmp_path / "secret").write_text("secret\n")
    directory = tmp_path / "log"
    (directory / "apt").mkdir(parents=True)
    (directory / "system.log").write_bytes(b"".join(b"line %d\n" % number for number in range(10_000)))
    (directory / "apt" / "history.log").write_text("first\nlast, without an end")
    (directory / "empty.log").touch()
    (directory / "file-link").symlink_to("../secret")
    (directory / "inner-link").symlink_to("system.log")
    (directory / "directory-link").symlink_to("..", target_is_directory=True)
    (directory / "loop").symlink_to("loop")
    os.mkfifo(directory / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.open(directory, os.O_PATH)
        sock.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    (Path(os.fsdecode(os.fsencode(directory) + b"/not-utf-8-\xff.log"))).write_text("odd\n")
    (directory / "with\nnewline").write_text("odd\n")
    return directory


@pytest.fixture
def open_socket_path(socket_path: Path) -> Path:
    """Return a socket path that other users can reach."""
    socket_path.parent.chmod(0o711)
    return socket_path
