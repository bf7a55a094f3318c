"""What the tests of services share: a service on a socket pair, clients of other users, and clients of raw packets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

import seqrpc
from seqrpc.testing import serve_in_memory
from support.processes import AS_ROOT, OTHER_GID, OTHER_UID
from support.waiting import PATIENCE

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")

_PRELUDE = """
import json, os, socket, sys, msgpack
uid, gid, groups = json.loads(sys.argv[1])
argv = sys.argv[2:]
os.setgroups(groups)
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, 0)

def connected(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(20)
    sock.connect(path)
    return sock

def ask(sock, *message):
    sock.send(msgpack.packb(message))
    while True:
        answer = msgpack.unpackb(sock.recv(65536))
        if answer[0] == 1:
            return answer[2:]

def show(value):
    print(json.dumps(value))
    sys.stdout.flush()
"""

_POSTLUDE = """
os.seteuid(0)  # for whoever measures coverage: the files are root's
"""


class Stage:
    """Events by name, for handlers and tests to tell each other how far they are."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self._events: dict[str, asyncio.Event] = {}

    def _event(self, name: str) -> asyncio.Event:
        return self._events.setdefault(name, asyncio.Event())

    def reach(self, name: str) -> None:
        self.reached.append(name)
        self._event(name).set()

    async def wait(self, name: str) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._event(name).wait()


@asynccontextmanager
async def on_a_pair(
    *services: seqrpc.Service,
    client: Sequence[seqrpc.Service] = (),
    allow: Any = None,
    limits: seqrpc.Limits | None = None,
    client_limits: seqrpc.Limits | None = None,
    interceptors: Sequence[seqrpc.Interceptor] = (),
    client_interceptors: Sequence[seqrpc.Interceptor] = (),
) -> AsyncIterator[seqrpc.Connection]:
    """Serve on one end of a socket pair; yield the connection at the other."""
    async with serve_in_memory(
        services,
        allow=allow,
        accept_descriptors=True,
        interceptors=interceptors,
        limits=limits or seqrpc.Limits(),
        services=client,
        client_interceptors=client_interceptors,
        client_limits=client_limits or seqrpc.Limits(),
    ) as connection:
        yield connection


class RawClient:
    """A client that sends whatever it is told."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    async def send(self, *message: Any, fds: Sequence[int] = ()) -> None:
        packed: bytes = msgpack.packb(message)
        if fds:
            socket.send_fds(self.sock, [packed], fds)
        else:
            await asyncio.get_running_loop().sock_sendall(self.sock, packed)

    async def receive(self) -> Any:
        """Return the next message; None at the end."""
        async with asyncio.timeout(PATIENCE):
            data = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
        return msgpack.unpackb(data) if data else None


@contextmanager
def raw_client(address: Path | socket.socket) -> Iterator[RawClient]:
    """Connect without seqrpc, or take a connected socket."""
    if isinstance(address, socket.socket):
        sock = address
    else:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(os.fspath(address))
    with sock:
        yield RawClient(sock)


def descriptor(number: int) -> msgpack.ExtType:
    """Return how a message refers to a descriptor."""
    return msgpack.ExtType(1, bytes((number,)))


def exists(path: Path) -> bool:
    """Look whether there is a file; it takes no time worth a thread."""
    return path.exists()


async def as_user(
    program: str,
    *arguments: str | Path,
    uid: int = OTHER_UID,
    gid: int = OTHER_GID,
    groups: Sequence[int] = (),
    pass_fds: Sequence[int] = (),
) -> Any:
    """Run a program as another user; return what it showed. It has ``connected``, ``ask``, ``argv`` and ``show``."""
    command = [sys.executable, "-c", _PRELUDE + program + _POSTLUDE, json.dumps([uid, gid, list(groups)])]
    child = await asyncio.create_subprocess_exec(
        *command, *map(str, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=tuple(pass_fds)
    )
    async with asyncio.timeout(PATIENCE):
        output, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()
    return json.loads(output)


@contextmanager
def daemon(program: str, *arguments: str | Path, pass_fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until it ends; at the end of the block it is killed."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=tuple(pass_fds)) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)


async def said_ready(child: subprocess.Popen[bytes]) -> None:
    """Wait for the first line that a program writes, which says that it is ready."""
    assert child.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.to_thread(child.stdout.readline) == b"ready\n"


def own_loop() -> str:
    """Return which loop this test runs on, for a daemon that is to run on one of the same kind."""
    return "uvloop" if "uvloop" in type(asyncio.get_running_loop()).__module__ else "asyncio"


def wait_until_it_listens(path: Path) -> None:
    """Wait for a daemon to listen; there is no event for it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            try:
                sock.connect(os.fspath(path))
                return
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                assert time.monotonic() < deadline, "the daemon does not listen"
        time.sleep(0.01)


async def said_closing(connection: seqrpc.Connection | seqrpc.Channel) -> None:
    """Wait until the other side has said that it takes no more calls: none is sent from then on."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(seqrpc.Unavailable):
            while True:
                await connection.call("rpc.ping")
