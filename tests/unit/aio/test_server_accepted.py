"""Connections that a service manager accepted (``Accept=yes``): each is served by a process of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.daemons import as_user, needs_root, raw_client
from support.processes import OTHER_UID, fork
from support.waiting import PATIENCE

INSTANCE = """
import os, sys
import seqrpc

class Instance(seqrpc.Service):
    @seqrpc.method
    async def who(self) -> tuple[int | None, int | None, str]:
        caller = seqrpc.current_call().caller
        assert caller is not None
        return caller.uid, caller.pid, repr(caller.groups)

    @seqrpc.method(allow=seqrpc.policy.same_user)
    async def secret(self) -> str:
        return "secret"

seqrpc.run(Instance(), "systemd:connection", allow=seqrpc.policy.anyone, pass_credentials=sys.argv[1] == "by packet")
"""


def start_instance(connection: socket.socket, how: str = "") -> int:
    """Exec a process as the manager does for a connection; return its pid."""
    pid = fork()
    if pid == 0:
        try:
            os.dup2(connection.fileno(), 100)
            os.dup2(100, 3)
            os.closerange(4, 200)
            variables = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "connection"}
            os.execve(sys.executable, [sys.executable, "-c", INSTANCE, how], {**os.environ, **variables})
        finally:
            os._exit(127)
    return pid


@contextmanager
def instances(path: Path) -> Iterator[socket.socket]:
    """Yield a listening socket that everybody may connect to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(os.fspath(path))
        path.chmod(0o666)
        path.parent.chmod(0o711)
        listening.listen()
        listening.setblocking(False)
        yield listening


async def serve_one(listening: socket.socket, how: str = "") -> int:
    """Accept one connection and start its instance; return the status with which that ended."""
    async with asyncio.timeout(PATIENCE):
        connection, _address = await asyncio.get_running_loop().sock_accept(listening)
        with connection:
            pid = start_instance(connection, how)
        _pid, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return os.waitstatus_to_exitcode(status)


ASK = """
sock = connected(argv[0])
show([ask(sock, 0, 1, "Instance.who", []), ask(sock, 0, 2, "Instance.secret", [])[0][0], os.getpid()])
"""


@needs_root
async def test_the_caller_is_who_connected_and_the_process_ends_with_the_connection(socket_path: Path) -> None:
    with instances(socket_path) as listening:
        serving = asyncio.ensure_future(serve_one(listening))
        (error, who), refusal, pid = await as_user(ASK, socket_path, groups=[17])
        assert (error, who) == (None, [OTHER_UID, pid, "(17,)"])
        assert refusal == "rpc.PermissionDenied"
        assert await serving == 0


@needs_root
async def test_who_passes_a_connection_on_is_its_caller_still_and_a_name_of_the_client_s_changes_nothing(
    socket_path: Path,
) -> None:
    """As with a listening socket: SO_PEERCRED names who connected, whatever name the client's end has."""
    program = """
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.bind("\\0" + argv[0] + " uid=0")
sock.connect(argv[0])
child = os.fork()
if child == 0:
    os.seteuid(0)
    sock.send(msgpack.packb([0, 1, "Instance.who", []]))
    os._exit(0)
os.waitpid(child, 0)
show([msgpack.unpackb(sock.recv(65536)), os.getpid()])
"""
    with instances(socket_path) as listening:
        serving = asyncio.ensure_future(serve_one(listening))
        (_kind, _id, error, who), pid = await as_user(program, socket_path)
        assert error is None
        assert who[:2] == [OTHER_UID, pid]
        assert await serving == 0


async def test_what_was_sent_before_the_instance_asked_for_senders_is_nobody_s(socket_path: Path) -> None:
    """A socket unit whose daemon wants senders has PassCredentials=yes, which accepted sockets inherit."""
    with instances(socket_path) as listening, raw_client(socket_path) as client:
        connection, _address = listening.accept()
        with connection:
            await client.send(0, 1, "Instance.who", [])
            pid = start_instance(connection, "by packet")
        answers = [await client.receive()]
        await client.send(0, 2, "Instance.who", [])
        answers.append(await client.receive())
        client.sock.close()
        await asyncio.to_thread(os.waitpid, pid, 0)
    assert answers[0][2][0] == "rpc.PermissionDenied"
    assert answers[1][3][:2] == [os.geteuid(), os.getpid()]


async def test_one_whose_client_is_gone_ends_at_once(socket_path: Path) -> None:
    with instances(socket_path) as listening:
        with raw_client(socket_path):
            pass
        assert await serve_one(listening) == 0


async def test_an_end_of_a_pair_is_no_accepted_connection(socket_path: Path) -> None:
    """Its packets name their sender, and not the pair's maker, whatever name the other end was given."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.bind(os.fspath(socket_path))
    pid = start_instance(theirs)
    theirs.close()
    with raw_client(ours) as client:
        answers = []
        for number in (1, 2):
            await client.send(0, number, "Instance.who", [])
            answers.append(await client.receive())
    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread(os.waitpid, pid, 0)
    assert answers[1][3] == [os.geteuid(), os.getpid(), "None"], "no groups are known of the sender of a packet"
