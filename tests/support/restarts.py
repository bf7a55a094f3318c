"""What tests of restarts have in common: a daemon as a real process, and the service manager that it tells."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvloop

import seqrpc
from seqrpc.aio.conversation import Conversation
from seqrpc.aio.succession import Predecessor
from seqrpc.kernel.addresses import PathAddress
from seqrpc.kernel.handover import Talk, Word
from seqrpc.kernel.listening import ListeningSocket, listen
from seqrpc.kernel.sockets import socket_pair
from support.daemons import daemon
from support.waiting import PATIENCE

DAEMON = """
import asyncio, logging, os, pathlib, signal, sys
import seqrpc
path, more = sys.argv[1], pathlib.Path(sys.argv[1]).with_suffix(".py")

class Count(seqrpc.Service):
    def __init__(self):
        self.number = 0

    @seqrpc.method
    async def up(self) -> tuple[int, int]:
        self.number += 1
        return os.getpid(), self.number

class Work(seqrpc.Service):
    @seqrpc.method
    async def pid(self) -> int:
        return os.getpid()

    @seqrpc.method
    async def numbers(self, *, end: bool = True):
        yield os.getpid()
        while not pathlib.Path(path + ".end").exists():
            await asyncio.sleep(0.001)
        yield os.getpid()

    @seqrpc.method
    async def count(self) -> Count:
        return Count()

    @seqrpc.method
    async def busy(self) -> int:
        pathlib.Path(path + ".busy").touch()
        while not pathlib.Path(path + ".end").exists():
            await asyncio.sleep(0.001)
        return os.getpid()

logging.basicConfig(format="%(message)s")
options = {"restart": True, "limits": seqrpc.Limits(restart_timeout=20, close_timeout=1)}
if more.exists():
    exec(more.read_text())
seqrpc.run(Work(), path, **options)
"""


class Watch:
    """A daemon, and the service manager that it tells how it is."""

    def __init__(self, path: Path, sock: socket.socket, first: subprocess.Popen[bytes]) -> None:
        self.path = path
        self._sock = sock
        self.first = first

    def hear(self) -> str:
        return self._sock.recv(1000).decode().split("\n")[0]

    def end_work(self) -> None:
        Path(f"{self.path}.end").touch()

    async def keep_busy(self, connection: seqrpc.Connection) -> asyncio.Future[Any]:
        """Make a call that runs until :meth:`end_work`, and return once it does."""
        call = asyncio.ensure_future(connection.call("Work.busy"))
        while not os.path.exists(f"{self.path}.busy"):  # noqa: ASYNC110, ASYNC240 - no event tells
            await asyncio.sleep(0.001)
        return call

    def change_program(self, text: str) -> None:
        self.path.with_suffix(".py").write_text(text, encoding="utf-8")

    def restart(self, pid: int) -> int:
        """Restart a process; return which one is the daemon then."""
        os.kill(pid, signal.SIGHUP)
        assert self.hear() == "RELOADING=1"
        name, _, successor = self.hear().partition("=")
        assert name == "MAINPID"
        assert self.hear() == "READY=1"
        return int(successor)


def status_of(pid: int) -> int | None:
    """Wait for a process, and return its exit status; None if it is no child of this one."""
    pidfd = os.pidfd_open(pid)
    assert select.select([pidfd], [], [], PATIENCE)[0], f"process {pid} has not ended"
    os.close(pidfd)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


@contextlib.contextmanager
def reaping() -> Iterator[None]:
    """Be the parent of successors whose parent has ended (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    prctl = ctypes.CDLL(None).prctl
    assert prctl(36, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(36, 0, 0, 0, 0)


@contextlib.contextmanager
def watched(path: Path) -> Iterator[Watch]:
    """Run a daemon until the end of the block; it tells a manager at ``notify`` beside it (``NOTIFY_SOCKET``)."""
    with reaping(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(os.fspath(path.with_name("notify")))
        sock.settimeout(PATIENCE)
        with daemon(DAEMON, path) as first:
            watch = Watch(path, sock, first)
            assert watch.hear() == "READY=1"
            yield watch


@contextlib.asynccontextmanager
async def connected(watch: Watch) -> AsyncIterator[seqrpc.Connection]:
    async with asyncio.timeout(PATIENCE), seqrpc.connect(watch.path) as connection:
        yield connection


async def handed_over(connection: seqrpc.Connection, predecessor: int, successor: int) -> None:
    """Wait until a connection is the successor's: that is ready before it has all connections."""
    while (pid := await connection.call("Work.pid")) == predecessor:
        pass
    assert pid == successor


def run(work: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def stop(watch: Watch, pid: int) -> None:
    """Stop the daemon, which leaves nothing."""
    os.kill(pid, signal.SIGTERM)
    assert watch.hear() == "STOPPING=1"
    assert status_of(pid) in (0, None)
    assert not watch.path.exists()
    assert not watch.path.with_name("test.sock.lock").exists()


class Listening:
    """A predecessor that the test plays, and what its successor has of it."""

    def __init__(self, path: Path) -> None:
        self.listening = listen(PathAddress(os.fspath(path)))
        ours, theirs = socket_pair()
        self.conversation = Conversation(Talk(ours, os.getpid()))
        self.predecessor = Predecessor(Talk(theirs, os.getpid()))
        self.address = PathAddress(os.fspath(path))

    async def give(self) -> ListeningSocket:
        asking = asyncio.ensure_future(self.predecessor.ask(self.address, 10, **ASKED))
        heard = await self.conversation.hear()
        assert heard is not None
        assert heard.word is Word.ASK
        self.conversation.give(self.listening)
        return await asking


ASKED: dict[str, Any] = {"mode": None, "group": None, "accept_descriptors": True, "pass_credentials": False}


@contextlib.asynccontextmanager
async def played(path: Path) -> AsyncIterator[Listening]:
    listening = Listening(path)
    try:
        async with asyncio.timeout(PATIENCE):
            yield listening
    finally:
        await listening.predecessor.end()
        listening.conversation.close()
        listening.listening.close()
