"""A daemon that ends when it is idle, under a manager that starts it again: whoever calls at that moment is served.

SEQRPC_IDLE_EXITS says how many times that is tried.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from support.daemons import daemon
from support.waiting import PATIENCE

TRIES = int(os.environ.get("SEQRPC_IDLE_EXITS", "20"))

IDLE = 0.02  # seconds after which the daemon ends

# It does what systemd does with a socket unit: it holds the socket, looks at it while no daemon runs, and starts one
# when somebody waits. The daemons are forked, for Python takes longer to start than all the rest.
MANAGER = """
import os, select, signal, socket, sys
import seqrpc

class Daemon(seqrpc.Service):
    @seqrpc.method
    async def pid(self) -> int:
        return os.getpid()

    @seqrpc.method(oneway=True)
    async def note(self, path: str) -> None:
        with open(path, "a") as file:
            file.write("+")

listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listening.bind(sys.argv[1])
listening.listen()
listening.setblocking(False)
waiting = select.poll()
waiting.register(listening, select.POLLIN)
print("ready", flush=True)
while True:
    waiting.poll()
    pid = os.fork()
    if pid == 0:
        try:
            seqrpc.run(Daemon(), f"fd:{listening.fileno()}", idle_timeout=float(sys.argv[2]))
        except BaseException as exc:
            sys.excepthook(type(exc), exc, exc.__traceback__)
            os._exit(1)
        os._exit(0)
    _pid, status = os.waitpid(pid, 0)
    if status:
        sys.exit(f"a daemon ended with {status}")
"""


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(PATIENCE)
    sock.connect(os.fspath(path))
    return sock


def call(sock: socket.socket) -> int:
    """Return the pid of the daemon that answers; nothing but the answer may come."""
    sock.send(msgpack.packb([0, 1, "Daemon.pid", []]))
    kind, _id, error, pid = msgpack.unpackb(sock.recv(1000))
    assert (kind, error) == (1, None)
    assert isinstance(pid, int)
    return pid


@pytest.fixture
def managed(socket_path: Path) -> Iterator[Path]:
    """Return where the manager listens."""
    with daemon(MANAGER, socket_path, str(IDLE)) as manager:
        assert manager.stdout is not None
        assert manager.stdout.readline() == b"ready\n"
        yield socket_path
        assert manager.poll() is None


def test_each_call_around_the_end_of_an_idle_daemon_is_answered(managed: Path) -> None:
    """What is tried in turn: a call at once; a connection that says nothing for a while; one that leaves at once."""
    chance = random.Random(14)
    pids = set()
    for number in range(TRIES):
        with connected(managed) as sock:
            if number % 3 == 1:
                time.sleep(chance.uniform(0, 2 * IDLE))
            pids.add(call(sock))
        if number % 3 == 2:
            connected(managed).close()
        time.sleep(chance.uniform(0.9, 1.4) * IDLE)  # it ends between 1 and 1.25 times, and is gone a little later
    while len(pids) == 1:
        time.sleep(IDLE)
        with connected(managed) as sock:
            pids.add(call(sock))


def test_each_notification_around_the_end_of_an_idle_daemon_is_taken(managed: Path) -> None:
    """Whoever sends it closes at once, and hears of nothing: what was sent is all there is."""
    chance = random.Random(41)
    notes = managed.with_name("notes")
    for _ in range(TRIES // 2):
        with connected(managed) as sock:
            sock.send(msgpack.packb([2, "Daemon.note", [str(notes)]]))
        time.sleep(chance.uniform(0.9, 1.4) * IDLE)
    deadline = time.monotonic() + PATIENCE
    while not notes.exists() or notes.stat().st_size < TRIES // 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert notes.read_text() == "+" * (TRIES // 2)
