"""A daemon between a friendly caller and a hostile peer: three processes, of three users.

The daemon and the caller are those of ``python -m benchmarks.hostile``; what a peer does is in
``benchmarks.behaviours``.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgpack

from benchmarks.attacker import WORKS
from benchmarks.behaviours import BEHAVIOURS
from benchmarks.processes import OTHER_UID, ServerProcess, Worker, become_other, memory
from benchmarks.serving import many_files
from benchmarks.workloads import MIB
from support.processes import fork
from support.waiting import PATIENCE

SECONDS = 0.3
"""For which a peer misbehaves."""

_MOST_KEPT = 96 * MIB
"""Bytes that the daemon may have more after any number of peers: what an allocator keeps for the next time."""


class Watcher:
    """Asks a daemon, over a connection of root's, how it is."""

    def __init__(self, address: str, pid: int) -> None:
        self._address = address
        self._pid = pid
        self._ids = itertools.count()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(PATIENCE)
        self._sock.connect(address)

    def call(self, method: str, *params: Any) -> Any:
        """Return the answer to a call."""
        self._sock.send(msgpack.packb([0, next(self._ids), method, params]))
        _kind, _id, error, result = msgpack.unpackb(self._sock.recv(65_536))
        assert error is None, error
        return result

    def look(self) -> dict[str, int]:
        """Return what it has that must come back to what it was."""
        state: dict[str, int] = self.call("Target.state")
        return state | {"descriptors": len(os.listdir(f"/proc/{self._pid}/fd"))}

    def close(self) -> None:
        self._sock.close()


class Scene:
    """The daemon, its friendly caller, and how the daemon was before anybody misbehaved."""

    def __init__(self, server: ServerProcess, friend: Worker, watcher: Watcher) -> None:
        self.server = server
        self.friend = friend
        self.watcher = watcher
        friend.hear(PATIENCE)
        self._before = watcher.look()
        self._own = memory(server.pid).own

    @property
    def address(self) -> str:
        return self.server.address

    @contextmanager
    def friendly_calls(self, seconds: float = SECONDS) -> Iterator[None]:
        """Have the friendly caller call meanwhile: none of its calls may fail."""
        self.friend.tell(seconds=seconds)
        yield
        told = self.friend.hear(seconds + 2 * PATIENCE)
        assert told["failures"] == {}, told["failures"]
        assert len(told["seconds"]) == round(seconds / 0.01)

    def is_well(self) -> None:
        """Wait until the daemon has what it had before, and has as much memory, more or less."""
        until = time.monotonic() + PATIENCE
        while (now := self.watcher.look()) != self._before and time.monotonic() < until:
            time.sleep(0.01)
        assert now == self._before, f"{self._before} became {now}"
        assert memory(self.server.pid).own - self._own < _MOST_KEPT


@contextmanager
def scene(loop: str) -> Iterator[Scene]:
    """Start a daemon on a loop of that kind, and a friendly caller."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-")))
        directory.chmod(0o755)
        options = ["--log", str(directory / "log"), *(["--asyncio"] if loop == "asyncio" else [])]
        server = stack.enter_context(ServerProcess(directory, *options))
        friend = stack.enter_context(Worker("friend", server.address, log=directory / "friend.said"))
        watcher = Watcher(server.address, server.pid)
        stack.callback(watcher.close)
        yield Scene(server, friend, watcher)


@contextmanager
def peer(work: Callable[[], object]) -> Iterator[int]:
    """Fork a process of the hostile user that does ``work``; yield its pid, and wait for its end after the block."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        os.close(reader)
        _be_hostile(work, writer)
    os.close(writer)
    with open(reader, "rb") as said:
        try:
            yield pid
        finally:
            _pid, status = os.waitpid(pid, 0)
        failure = said.read().decode()
        assert (status, failure) == (0, ""), failure


def _be_hostile(work: Callable[[], object], writer: int) -> NoReturn:
    try:
        many_files()
        become_other()
        os.set_inheritable(writer, False)
        work()
    except BaseException:
        os.write(writer, traceback.format_exc().encode()[-4_000:])
    finally:
        os._exit(0)


def behave(name: str, address: str, seconds: float = SECONDS) -> Callable[[], None]:
    """Return what a peer does: its behaviour for so many seconds, half of the time."""

    def work() -> None:
        attack = BEHAVIOURS[name](address)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            rest = time.monotonic() + WORKS
            while time.monotonic() < rest:
                attack.step()
            time.sleep(WORKS)
        assert attack.answers, "it did nothing"

    return work


_CALLS = """
import array, fcntl, os, socket, sys
os.setgroups([]); os.setresgid(%d, %d, %d); os.setresuid(%d, %d, %d)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(sys.argv[1])
sock.sendmsg([b"\\x94\\x00\\x01\\xacTarget.count\\x90"])
_data, fds, _flags, _address = socket.recv_fds(sock, 65536, 4)
stream = socket.socket(fileno=fds[0])
stream.recv_into(bytearray(65536))
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
socket.send_fds(sock, [b"\\x94\\x00\\x02\\xacTarget.total\\x91\\xd4\\x02\\x00"], [theirs.fileno()])
theirs.close()
ours.sendmsg([b"\\x92\\x00\\x05"])
file = os.memfd_create("m", os.MFD_ALLOW_SEALING)
os.pwrite(file, b"\\x94\\x00\\x03\\xabTarget.park\\x91\\xc5\\xff\\xff" + bytes(65535), 0)
fcntl.fcntl(file, fcntl.F_ADD_SEALS, 15)
socket.send_fds(sock, [b"\\x93\\x04\\xce\\x00\\x01\\x00\\x12\\x03"], [file])
sock.sendmsg([b"\\x92\\x03\\x03"])
sock.recvmsg(65536, 4096)
sock.shutdown(socket.SHUT_WR)
"""


def killed_at(address: str, call: str, number: int) -> int:
    """Run a peer that strace kills as it begins its ``number``th system call of a name; return how it ended."""
    from benchmarks.processes import OTHER_GID

    program = _CALLS % ((OTHER_GID,) * 3 + (OTHER_UID,) * 3)
    inject = f"--inject={call}:signal=KILL:when={number}"
    command = ["strace", "-qq", "-o", os.devnull, "--trace", call, inject, sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run([*command, address], capture_output=True, timeout=PATIENCE, check=False)
    return done.returncode
