"""What the service manager is told, at a datagram socket as it has one."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seqrpc.kernel import systemd
from seqrpc.kernel.systemd import Manager


@contextmanager
def listening_at(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name[1:] if name[0] == "@" else name)
        sock.settimeout(20)
        yield sock


@pytest.mark.parametrize("how", ["path", "abstract"])
def test_it_is_told_and_children_have_no_part_in_it(
    how: str, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fspath(socket_path) if how == "path" else f"@seqrpc-manager-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with listening_at(name) as sock:
        manager = Manager()
        assert "NOTIFY_SOCKET" not in os.environ
        assert manager.where == name
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        manager.ready()
        manager.reloading()
        manager.stopping()
        manager.main_pid(1234)
        assert sock.recv(100) == b"READY=1"
        first, second = sock.recv(100).decode().split("\n")
        assert first == "RELOADING=1"
        name, _, when = second.partition("=")
        assert name == "MONOTONIC_USEC"
        assert before <= int(when) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert sock.recv(100) == b"STOPPING=1"
        assert sock.recv(100) == b"MAINPID=1234"


@pytest.mark.parametrize("empty", [False, True])
def test_where_there_is_no_manager_nothing_is_told(
    empty: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    if not empty:
        monkeypatch.delenv("NOTIFY_SOCKET")
    Manager().ready()
    assert caplog.text == ""


@pytest.mark.parametrize("name, reason", [
    ("vsock:2:1234", "neither a path nor an abstract name"), ("/nowhere/there", "No such file"),
    ("/" + "x" * 200, "too long"),
])  # fmt: skip
def test_a_manager_that_cannot_be_told_is_logged_and_no_more(
    name: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    Manager().ready()
    assert "the service manager was not told READY=1" in caplog.text
    assert reason in caplog.text


def test_a_manager_that_does_not_read_is_waited_for_so_long_and_no_longer(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(socket_path))
    monkeypatch.setattr(systemd, "NOTIFY_TIMEOUT", 0.05)
    with listening_at(os.fspath(socket_path)), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # it is full
            while True:
                other.sendto(b"x", os.fspath(socket_path))
        began = time.process_time()
        Manager().stopping()
        assert time.process_time() - began < 0.03, "it does not spin"
    assert "the service manager was not told STOPPING=1: timed out" in caplog.text
