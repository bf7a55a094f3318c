"""What kernels do with child processes, on which workers lean."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.workers import gone_within

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pidfds and F_SETSIG are Linux's")

F_SETSIG = 10


@pytest.fixture
def sleeper() -> "subprocess.Popen[bytes]":  # noqa: UP037 - it is a generic of the standard library
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def ask_for_signal(reader: int, pid: int, number: int) -> None:
    fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
    fcntl.fcntl(reader, F_SETSIG, number)
    fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_pipe_sends_a_signal_to_its_owner_when_its_last_writer_goes(
    sleeper: subprocess.Popen[bytes], number: int
) -> None:
    reader, writer = os.pipe()
    ask_for_signal(reader, sleeper.pid, number)
    os.close(writer)
    assert sleeper.wait(20) == -number
    os.close(reader)


def test_a_pipe_whose_reader_goes_first_sends_nothing(sleeper: subprocess.Popen[bytes]) -> None:
    reader, writer = os.pipe()
    ask_for_signal(reader, sleeper.pid, signal.SIGKILL)
    os.close(reader)
    os.close(writer)
    assert sleeper.poll() is None
    sleeper.kill()
    assert sleeper.wait(20) == -signal.SIGKILL


@pytest.mark.parametrize("first", ["socket", "writer"])
def test_a_reader_on_its_way_outlives_the_writer_when_a_process_goes(
    sleeper: subprocess.Popen[bytes], first: str
) -> None:
    """In whatever order the kernel closes them: closing the socket closes the reader as a consequence."""
    holder = os.fork()
    if not holder:
        reader, writer = os.pipe()
        ask_for_signal(reader, sleeper.pid, signal.SIGKILL)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(ours, [b"x"], [reader])
        ours.close()
        os.close(reader)
        low, high = (theirs.fileno(), writer) if first == "socket" else (writer, theirs.fileno())
        os.dup2(high, 201)
        os.dup2(low, 200)
        os.close(low)
        os.close(high)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(holder, 0)
    assert sleeper.wait(20) == -signal.SIGKILL


@pytest.mark.parametrize("how", [os.getpid, lambda: os.kill(os.getpid(), signal.SIGSTOP)], ids=["runs", "stopped"])
def test_a_pidfd_is_readable_once_its_process_has_ended(how: Callable[[], object]) -> None:
    child = os.fork()
    if not child:
        how()
        signal.pause()
    pidfd = os.pidfd_open(child)
    assert os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is None
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert gone_within(20, [child])
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert ended is not None
    assert (ended.si_pid, ended.si_code, ended.si_status) == (child, os.CLD_KILLED, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
