"""A server that wants to know who sent each call, and not who connected (``pass_credentials``)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemons import as_user, daemon, needs_root, wait_until_it_listens
from support.processes import OTHER_GID, OTHER_UID

import seqrpc
from seqrpc import policy

HANDED = """
sock = socket.socket(fileno=int(argv[0]))
show([ask(sock, 0, 1, name, []) for name in argv[1:]])
"""

CONNECTING = "sock = connected(argv[0])\nshow([ask(sock, 0, 1, name, []) for name in argv[1:]])"


class Who(seqrpc.Service, allow=policy.anyone):
    @seqrpc.method
    async def am_i(self) -> list[Any]:
        caller = seqrpc.current_call().caller
        pidfd = caller.pidfd()
        if pidfd is not None:
            pidfd.close()
        return [caller.uid, caller.gid, caller.groups, pidfd is not None]

    @seqrpc.method(allow=policy.root)
    async def is_root(self) -> bool:
        return True

    @seqrpc.method(allow=policy.gid(27))
    async def is_member(self) -> bool:
        return True


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(os.fspath(path))
    return sock


def listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(os.fspath(path))
    path.chmod(0o666)
    sock.listen()
    return sock


async def handed_to_another_user(sock: socket.socket, *methods: str, **ids: Any) -> Any:
    """Let a process of another user call over a socket that this one, of root, connected."""
    number = sock.fileno()
    return await as_user(HANDED, str(number), *methods, pass_fds=[number], **ids)


@asynccontextmanager
async def served(path: Path, how: str, *, pass_credentials: bool) -> AsyncIterator[socket.socket]:
    """Serve at a path, by a listener of its own or an inherited one; yield a connection of root's."""
    path.parent.chmod(0o755)
    early = None
    if how == "address":
        serving = seqrpc.serve(Who(), path, mode=0o666, pass_credentials=pass_credentials)
    else:
        sock = listening(path)
        if how == "early":  # before the listener wants to know
            early = connected(path)
        serving = seqrpc.serve(Who(), sock=sock, pass_credentials=pass_credentials)
    async with serving:
        with early or connected(path) as client:
            yield client


@needs_root
@pytest.mark.parametrize("how", ["address", "sock", "early"])
async def test_the_caller_is_who_sent_the_call(how: str, socket_path: Path) -> None:
    async with served(socket_path, how, pass_credentials=True) as sock:
        who, root, member = await handed_to_another_user(sock, "Who.am_i", "Who.is_root", "Who.is_member", gid=27)
        assert who == [None, [OTHER_UID, 27, None, False]]
        assert root == [["rpc.PermissionDenied", "Who.is_root: this caller is not admitted", None], None]
        assert member == [None, True], "the primary group is known"
        (member,) = await handed_to_another_user(sock, "Who.is_member", groups=[27])
        assert member[0][0] == "rpc.PermissionDenied", "supplementary groups are not"


@needs_root
@pytest.mark.parametrize("how", ["address", "sock"])
async def test_without_it_the_caller_is_who_connected(how: str, socket_path: Path) -> None:
    async with served(socket_path, how, pass_credentials=False) as sock:
        who, root = await handed_to_another_user(sock, "Who.am_i", "Who.is_root")
        assert (who[0], who[1][:2], who[1][3]) == (None, [0, 0], True)
        assert root == [None, True]


@needs_root
async def test_several_processes_on_one_connection_are_told_apart(socket_path: Path) -> None:
    async with served(socket_path, "address", pass_credentials=True) as sock:
        for uid in (OTHER_UID, OTHER_UID + 1, 0):
            ((_error, answer),) = await handed_to_another_user(sock, "Who.am_i", uid=uid)
            assert answer[0] == uid


@needs_root
async def test_who_connects_for_himself_is_known_too(socket_path: Path) -> None:
    socket_path.parent.chmod(0o755)
    async with seqrpc.serve(Who(), socket_path, mode=0o666, pass_credentials=True):
        ((_error, answer),) = await as_user(CONNECTING, socket_path, "Who.am_i", groups=[4])
        assert answer == [OTHER_UID, OTHER_GID, None, False]
        async with seqrpc.connect(socket_path) as connection:
            assert (await connection.proxy(Who).am_i())[0] == 0
            assert await connection.proxy(Who).is_root()


@needs_root
async def test_so_it_is_with_a_connected_socket_that_was_accepted_elsewhere(socket_path: Path) -> None:
    with listening(socket_path) as listener, connected(socket_path) as client:
        accepted, _address = listener.accept()
        async with seqrpc.serve(Who(), sock=accepted, pass_credentials=True):
            ((_error, answer),) = await handed_to_another_user(client, "Who.am_i")
    assert answer[0] == OTHER_UID


@needs_root
async def test_protocols_below_the_rpc_can_have_it(socket_path: Path) -> None:
    class Listening(seqrpc.SeqpacketProtocol):
        def packet_received(
            self, data: bytes, fds: list[seqrpc.OwnedFd], credentials: seqrpc.Credentials | None
        ) -> None:
            heard.set_result(credentials)

    heard: asyncio.Future[seqrpc.Credentials | None] = asyncio.get_running_loop().create_future()
    async with await seqrpc.create_server(Listening, socket_path, pass_credentials=True):
        with connected(socket_path) as sock:
            number = sock.fileno()
            await as_user("os.write(int(argv[0]), b'x')\nshow(1)", str(number), pass_fds=[number])
            caller = await heard
    assert caller is not None
    assert caller.uid == OTHER_UID


DAEMON = """
import sys
import seqrpc

class Who(seqrpc.Service, allow=seqrpc.policy.anyone):
    @seqrpc.method
    async def am_i(self) -> int | None:
        return seqrpc.current_call().caller.uid

seqrpc.run(Who(), sys.argv[1], mode=0o666, pass_credentials=True)
"""


@needs_root
async def test_a_daemon_takes_the_option(socket_path: Path) -> None:
    with daemon(DAEMON, socket_path):
        await asyncio.to_thread(wait_until_it_listens, socket_path)
        with connected(socket_path) as sock:
            assert await handed_to_another_user(sock, "Who.am_i") == [[None, OTHER_UID]]
