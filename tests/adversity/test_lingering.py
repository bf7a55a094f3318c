"""Descriptors whose close waits, sent by somebody who may call nothing, keep nobody else waiting."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import daemon, descriptor, own_loop, said_ready
from support.lingering import LINGER_SECONDS, Lingering, can_mount, hidden, lingering, silent_file_system
from support.processes import AS_ROOT, OTHER_UID, running_child
from support.waiting import PATIENCE

import seqrpc

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="needs to be another user")

WATCHED = 0.15
CALLS = 500
"""Calls are made for as many seconds, and at least as many of them: each takes a turn of the daemon's loop, so what was
sent before has been looked at. One that is held up meanwhile is waited for, however long that takes."""

SLOWEST = LINGER_SECONDS / 3
"""Seconds that a call may take at most: far more than one takes, and less than waiting for one descriptor would."""

_DAEMON = """
import asyncio, os, resource, sys
import uvloop
from collections.abc import AsyncIterator
import seqrpc

class Open(seqrpc.Service):
    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def pid(self) -> int:
        return os.getpid()

class Lists(seqrpc.Service):
    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def take(self, files: list[seqrpc.OwnedFd]) -> int:
        return len(files)

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def one_of(self, items: AsyncIterator[seqrpc.OwnedFd]) -> str:
        async for item in items:
            return "one"
        return "none"

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def hold(self, files: list[seqrpc.OwnedFd]) -> None:
        await asyncio.Event().wait()

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def count(self) -> AsyncIterator[int]:
        for number in range(1_000_000):
            yield number

async def main():
    if sys.argv[3:]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]),) * 2)
    async with seqrpc.serve([Open(), Lists()], sys.argv[1], mode=0o666):
        print("ready", flush=True)
        await asyncio.Event().wait()

with asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[2] == "uvloop" else None) as runner:
    runner.run(main())
"""


@asynccontextmanager
async def served(path: Path, *arguments: str) -> AsyncIterator[tuple[seqrpc.Connection, int]]:
    """Serve in a process of its own, whose socket everybody may connect to; yield a connection, and its pid."""
    path.parent.chmod(0o755)
    with daemon(_DAEMON, path, *arguments) as child:
        await said_ready(child)
        async with seqrpc.connect(path) as friend:
            yield friend, child.pid


async def slowest(friend: seqrpc.Connection, seconds: float = WATCHED, calls: int = CALLS) -> float:
    """Call for some seconds; return how long the slowest call took."""
    worst, begin = 0.0, time.monotonic()
    while calls > 0 or time.monotonic() - begin < seconds:
        before = time.monotonic()
        assert await friend.call("Open.add", 1, 2) == 3
        worst = max(worst, time.monotonic() - before)
        calls -= 1
    return worst


class Attacker:
    """Somebody with a connection, and descriptors whose close waits."""

    def __init__(self, path: Path, made: Lingering) -> None:
        self.path = path
        self.made = made
        self.kept: list[socket.socket] = []

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(os.fspath(self.path))
        self.kept.append(sock)
        return sock

    def send(self, sock: socket.socket, message: Any, fds: Sequence[socket.socket]) -> None:
        """Send a message, and give its descriptors away."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd.fileno() for fd in fds]))]
        sock.sendmsg([msgpack.packb(message)], control)
        for fd in fds:
            fd.close()

    def call(self, method: str, *params: Any, fds: Sequence[socket.socket]) -> None:
        self.send(self.connect(), [0, 1, method, list(params)], fds)


def refused(by: Attacker) -> None:
    for _ in range(5):
        by.call("Open.pid", descriptor(0), descriptor(1), fds=[by.made.make(), by.made.make()])


def unknown_kind(by: Attacker) -> None:
    by.send(by.connect(), [17, descriptor(0)], [by.made.make()])


def malformed(by: Attacker) -> None:
    by.send(by.connect(), [0, 1, "Open.add", descriptor(200)], [by.made.make()])


def empty_packet(by: Attacker) -> None:
    sock = by.connect()
    with by.made.make() as lingers:
        sock.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [lingers.fileno()]))])


def hidden_in_a_queue(by: Attacker) -> None:
    by.call("Open.pid", descriptor(0), fds=[hidden(hidden(by.made.make()))])


def unread(by: Attacker) -> None:
    """Leave them unread in a connection that the server closes."""
    for first in (b"\xc1", msgpack.packb([0, 1, "Open.add", []]) + b"?"):
        sock = by.connect()
        for packet in (first, msgpack.packb([3, 7]), b"", b""):
            sock.send(packet)
        by.send(sock, [0, 2, "Open.add", [descriptor(0)]], [by.made.make()])


def unread_as_we_go(by: Attacker) -> None:
    """Leave them unread in a connection that is closed by who sent them."""
    sock = by.connect()
    for number in range(100):
        by.send(sock, [0, number, "Open.pid", [descriptor(0)]], [by.made.make()])
    sock.close()


def stream(by: Attacker) -> None:
    """Send some as a stream, with more of them unread in it; the handler reads one item."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for _ in range(3):
        by.send(ours, [0, descriptor(0)], [by.made.make()])
    by.kept.append(ours)
    by.call("Lists.one_of", msgpack.ExtType(2, b"\0"), fds=[theirs])


def living(kind: int) -> Callable[[Attacker], None]:
    def send(by: Attacker) -> None:
        for method in ("Open.pid", "Lists.one_of", "Lists.take"):
            by.call(method, msgpack.ExtType(kind, b"\0"), fds=[hidden(by.made.make())])

    return send


def admitted(by: Attacker) -> None:
    for _ in range(5):
        by.call("Lists.take", [descriptor(0), descriptor(1)], fds=[by.made.make(), by.made.make()])


def producer(by: Attacker) -> None:
    """Write to the end of a stream that one should read."""
    sock = by.connect()
    sock.send(msgpack.packb([0, 1, "Lists.count", []]))
    _data, (number,), _flags, _address = socket.recv_fds(sock, 1000, 1)
    with socket.socket(fileno=number) as reading:
        by.send(reading, [0], [by.made.make()])


def large(by: Attacker) -> None:
    """Say that a message is in a memory file, and send what is none."""
    by.send(by.connect(), [4, 100_000], [by.made.make()])
    by.send(by.connect(), [4, 100, 1], [by.made.make(), by.made.make()])


def many(by: Attacker) -> None:
    """Send more than are closed at once, on more than one connection."""
    for _ in range(6):
        sock = by.connect()
        for number in range(8):
            lingers = by.made.make()
            by.send(
                sock, [0, number, "Open.pid", [descriptor(i) for i in range(50)]], [lingers.dup() for _ in range(50)]
            )
            lingers.close()


WAYS = [
    refused, unknown_kind, malformed, empty_packet, hidden_in_a_queue, unread, unread_as_we_go, stream, admitted,
    producer, large, many,
]  # fmt: skip


@pytest.mark.parametrize(
    "attack", [*WAYS, living(2), living(3)], ids=[*(way.__name__ for way in WAYS), "as a stream", "as a channel"]
)
async def test_others_are_served_while_what_somebody_sent_lingers(
    socket_path: Path, attack: Callable[[Attacker], None]
) -> None:
    async with served(socket_path, own_loop()) as (friend, pid):
        usual = await slowest(friend, WATCHED / 8, CALLS // 8)
        with lingering() as made:
            attacker = Attacker(socket_path, made)
            if attack is not producer:  # which waits for an answer
                os.kill(pid, signal.SIGSTOP)  # so that what is sent is let go by who sent it before the daemon sees it
            with running_child(lambda: attack(attacker), uid=OTHER_UID):
                os.kill(pid, signal.SIGCONT)
                worst = await slowest(friend)
    assert usual < SLOWEST
    assert worst < SLOWEST


async def test_descriptors_for_which_there_is_no_number_keep_nobody_waiting(socket_path: Path) -> None:
    def fill_and_send() -> Attacker:
        sock = attacker.connect()
        with socket.socket() as other:
            for number in range(4):  # hold what there may be, and then some more
                fds = [other.dup() for _ in range(60)]
                attacker.send(sock, [0, number, "Lists.hold", [[descriptor(i) for i in range(60)]]], fds)
        lingers = attacker.made.make()
        for number in range(4, 8):
            fds = [lingers.dup() for _ in range(60)]
            attacker.send(sock, [0, number, "Lists.hold", [[descriptor(i) for i in range(60)]]], fds)
        lingers.close()
        return attacker

    async with served(socket_path, own_loop(), "256") as (friend, pid):
        with lingering() as made:
            attacker = Attacker(socket_path, made)
            os.kill(pid, signal.SIGSTOP)
            with running_child(fill_and_send, uid=OTHER_UID):
                os.kill(pid, signal.SIGCONT)
                worst = await slowest(friend)
    assert worst < SLOWEST


async def test_a_stop_does_not_wait_for_what_lingers_in_the_backlog(socket_path: Path) -> None:
    """A server that stops closes connections that it never read."""
    socket_path.parent.chmod(0o755)
    with lingering() as made, daemon(_DAEMON, socket_path, own_loop()) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        attacker = Attacker(socket_path, made)
        os.kill(child.pid, signal.SIGSTOP)

        def leave_unread() -> Attacker:
            for _ in range(20):
                attacker.call("Open.pid", descriptor(0), fds=[attacker.made.make()])
            return attacker

        with running_child(leave_unread, uid=OTHER_UID):
            begin = time.monotonic()
            os.kill(child.pid, signal.SIGINT)
            os.kill(child.pid, signal.SIGCONT)
            await asyncio.to_thread(child.wait, PATIENCE)
            assert time.monotonic() - begin < LINGER_SECONDS


@pytest.mark.skipif(not can_mount(), reason="needs to mount a file system")
@pytest.mark.parametrize(
    "message",
    [
        [0, 1, "Open.pid", [descriptor(0)]],
        [4, 100_000],
        [4, 100_000, 7],
        [0, 1, "Lists.take", [msgpack.ExtType(4, bytes(17))]],
    ],
)
async def test_a_file_system_that_does_not_answer_keeps_nobody_waiting(socket_path: Path, message: list[Any]) -> None:
    async with served(socket_path, own_loop()) as (friend, _pid):
        with silent_file_system() as mounted:
            number = mounted.open()
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
                peer.connect(os.fspath(socket_path))
                mounted.fall_silent()
                control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [number]))]
                peer.sendmsg([msgpack.packb(message)], control)
                worst = await slowest(friend)
        with pytest.raises(OSError, match="not connected"):
            os.close(number)
    assert worst < SLOWEST
