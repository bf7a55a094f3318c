"""Daemons that end when nobody needs them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.waiting import PATIENCE

import seqrpc
from seqrpc.aio import run


@pytest.fixture
def listening(socket_path: Path) -> Iterator[socket.socket]:
    """Return a listening socket, as a service manager keeps it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(socket_path))
        sock.listen()
        yield sock


class Work(seqrpc.Service):
    @seqrpc.method
    async def work(self) -> str:
        return "done"


@contextmanager
def calling(sock: socket.socket) -> Iterator[list[bytes]]:
    """Call now, and close the socket once there is an answer, which is in the list at the end of the block."""
    answers: list[bytes] = []

    def wait() -> None:
        answers.append(sock.recv(100))
        sock.close()

    sock.settimeout(PATIENCE)
    sock.send(b"\x94\x00\x01\xa9Work.work\x90")
    waiting = threading.Thread(target=wait)
    waiting.start()
    yield answers
    waiting.join()


def test_a_daemon_that_nobody_needs_says_that_it_stops_and_returns(
    listening: socket.socket, socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = os.fspath(socket_path.with_name("notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(PATIENCE)
        with caplog.at_level("INFO", "seqrpc.server"):
            seqrpc.run(Work(), sock=listening.dup(), idle_timeout=0.01)
        assert manager.recv(100) == b"READY=1"
        while manager.recv(100) != b"STOPPING=1":  # a busy machine may have it tell its status
            pass
    assert "nobody was here for 0.01 s: the daemon stops until somebody comes" in caplog.text
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(str(socket_path))  # it is the manager's to be listened at


def test_who_called_before_the_daemon_was_there_is_answered_first(listening: socket.socket, socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(str(socket_path))
        with calling(caller) as answers:
            seqrpc.run(Work(), f"fd:{listening.dup().detach()}", idle_timeout=1e-6)
    assert answers == [b"\x94\x01\x01\xc0\xa4done"]


def test_it_does_not_leave_while_it_reloads(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    leave_idle = run._Daemon._leave_idle

    def leave(self: Any) -> bool:
        asked.append(leave_idle(self))
        return asked[-1]

    async def reload(_server: seqrpc.Server) -> None:
        while not asked:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.001)

    monkeypatch.setattr(run._Daemon, "_leave_idle", leave)
    seqrpc.run(
        Work(),
        sock=listening.dup(),
        idle_timeout=0.001,
        on_start=lambda _server: os.kill(os.getpid(), signal.SIGHUP),
        on_reload=reload,
    )
    assert asked[0] is False
    assert asked[-1] is True


def test_one_that_stops_already_is_not_hurried(listening: socket.socket) -> None:
    """Idleness is no second signal."""
    left: list[str] = []

    class Slow(Work):
        @seqrpc.method(oneway=True)
        async def note(self) -> None:
            """Do nothing."""

    class Stopping(run._Daemon):
        def _stop_soon(self) -> None:
            super()._stop_soon()
            if not left:
                left.append("stops")
                assert self._leave_idle()
                assert not self._hurry.done()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_Daemon", Stopping)
        seqrpc.run(Slow(), sock=listening.dup(), idle_timeout=0.001)
    assert left == ["stops"]


def test_an_address_of_its_own_ends_run_in_one_line(socket_path: Path) -> None:
    with pytest.raises(SystemExit, match="nobody would be left to start it again for the next caller") as caught:
        seqrpc.run(Work(), socket_path, idle_timeout=5)
    assert type(caught.value.__cause__) is seqrpc.AddressError
    assert os.listdir(socket_path.parent) == []


@pytest.mark.parametrize("timeout, error", [("5", TypeError), (0, ValueError)])
def test_what_is_no_time_is_told(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="idle_timeout= takes seconds, more than 0, or None"):
        seqrpc.run(Work(), "systemd:x", idle_timeout=timeout)


def test_on_a_connected_socket_it_ends_with_the_connection_and_not_before() -> None:
    ours, theirs = seqrpc.socket_pair()
    with calling(ours) as answers:
        seqrpc.run(Work(), sock=theirs, idle_timeout=1e-6)
    assert answers == [b"\x94\x01\x01\xc0\xa4done"]
