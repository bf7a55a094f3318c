"""What the service manager is told, at a datagram socket as it has one."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.processes import in_child
from support.waiting import PATIENCE

from seqrpc.kernel import ancillary, systemd
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
        assert manager.environment() == {"NOTIFY_SOCKET": name}
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


def test_one_that_reads_again_in_time_is_told(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(socket_path))
    monkeypatch.setattr(systemd, "NOTIFY_TIMEOUT", PATIENCE)
    was_full = threading.Event()

    def send(*args: Any) -> None:
        try:
            ancillary.send(*args)
        except BlockingIOError:
            was_full.set()
            raise

    monkeypatch.setattr(systemd, "ancillary", SimpleNamespace(send=send))
    with listening_at(os.fspath(socket_path)) as sock:
        fill(socket_path)
        telling = threading.Thread(target=Manager().stopping)
        telling.start()
        assert was_full.wait(PATIENCE)
        while sock.recv(100) == b"x":
            pass
        telling.join()


def fill(path: Path) -> None:
    """Send as much as there is room for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"x", os.fspath(path))


@contextmanager
def manager_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Manager, socket.socket]]:
    """Yield a manager, and the socket at which it hears."""
    monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(path))
    with listening_at(os.fspath(path)) as sock:
        yield Manager(), sock


def test_status_and_ping_are_one_message_of_one_line_each(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager_at(socket_path, monkeypatch) as (manager, sock):
        assert manager.report("two\nlines, " + "and more " * 100, ping=True)
        assert manager.report("idle", ping=False)
        assert manager.report(None, ping=True)
        manager.main_pid(17)
        ping, status = sock.recv(4096).split(b"\n")
        assert ping == b"WATCHDOG=1"
        assert status.startswith(b"STATUS=two\\nlines, and more ")
        assert len(status) < 600
        assert [sock.recv(100) for _ in range(3)] == [b"STATUS=idle", b"WATCHDOG=1", b"MAINPID=17"]


def test_a_report_does_not_wait(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with manager_at(socket_path, monkeypatch) as (manager, _sock):
        monkeypatch.setattr(systemd, "NOTIFY_TIMEOUT", 1e9)
        fill(socket_path)
        assert not manager.report("busy", ping=True)
    assert "the service manager was not told WATCHDOG=1: timed out" in caplog.text


def test_a_forked_child_says_nothing(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager_at(socket_path, monkeypatch) as (manager, sock):
        assert not in_child(lambda: manager.report("born", ping=True))
        manager.ready()
        assert sock.recv(100) == b"READY=1"


@pytest.mark.parametrize("poll", [True, False])
def test_descriptors_are_stored_and_forgotten_by_name(
    poll: bool, socket_path: Path, monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    with manager_at(socket_path, monkeypatch) as (manager, sock):
        assert manager.store("pipe", pipe, poll=poll)
        data, fds, _flags, _address = socket.recv_fds(sock, 100, 10)
        try:
            assert data == b"FDSTORE=1\nFDNAME=pipe" + (b"" if poll else b"\nFDPOLL=0")
            assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(fd).st_ino for fd in pipe]
        finally:
            for fd in fds:
                os.close(fd)
        assert manager.forget("pipe")
        assert sock.recv(100) == b"FDSTOREREMOVE=1\nFDNAME=pipe"


def test_more_descriptors_than_a_packet_holds_are_stored_in_several(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    with manager_at(socket_path, monkeypatch) as (manager, sock):
        assert manager.store("many", pipe[:1] * 300)
        came = []
        for _ in range(2):
            _data, fds, _flags, _address = socket.recv_fds(sock, 100, 300)
            came.append(len(fds))
            for fd in fds:
                os.close(fd)
    assert came == [253, 47]


def test_what_is_not_open_is_not_stored(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with manager_at(socket_path, monkeypatch) as (manager, _sock):
        assert not manager.store("gone", [1_000_000])
    assert "the service manager was not told FDSTORE=1: [Errno 9]" in caplog.text


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "\xfc", "x" * 256])
def test_the_names_of_descriptors_are_those_that_systemd_takes(
    name: str, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with manager_at(socket_path, monkeypatch) as (manager, _sock):
        with pytest.raises(ValueError, match=r"printable ASCII without ':'"):
            manager.store(name, [])
        with pytest.raises(ValueError, match=r"printable ASCII without ':'"):
            manager.forget(name)


def test_without_a_manager_nothing_is_stored(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    manager = Manager()
    assert not manager.is_there
    assert manager.environment() == {}
    assert not manager.store("pipe", pipe)
    assert not manager.forget("pipe")


@pytest.mark.parametrize("pid, microseconds, seconds", [
    ("", "20000000", 20.0), (str(os.getpid()), "1500000", 1.5), ("1", "20000000", None), ("", "", None),
    ("", "0", None), ("", "soon", None), ("", "9" * 5000, None),
])  # fmt: skip
def test_the_watchdog_is_this_process_s_and_children_have_no_part_in_it(
    pid: str, microseconds: str, seconds: float | None, *,
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("WATCHDOG_PID", pid)
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    with manager_at(socket_path, monkeypatch) as (manager, _sock):
        assert manager.watchdog == seconds
        given = {} if seconds is None else {"WATCHDOG_USEC": microseconds}
        assert manager.environment() == {"NOTIFY_SOCKET": os.fspath(socket_path), **given}
        assert not any(name.startswith("WATCHDOG") for name in os.environ)
    assert ("WATCHDOG_USEC is not a number" in caplog.text) == (seconds is None and pid == "" and microseconds != "")
    monkeypatch.setenv("WATCHDOG_USEC", "20000000")
    assert Manager().watchdog is None, "there is nobody to be told"
