"""A daemon that is told to stop while another user, who may call nothing, sends as fast as he can."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import daemon, descriptor, exists, needs_root, wait_until_it_listens
from support.processes import OTHER_GID, OTHER_UID
from support.waiting import PATIENCE

DRAIN_TIMEOUT = 0.5
CLOSE_TIMEOUT = 0.2

LONGEST = 15.0
"""Seconds that a stop may take here: DRAIN_TIMEOUT and some CLOSE_TIMEOUT, on a machine that has other work as well.
Without a bound it takes 30 to 45 on one that has none."""

DAEMON = f"""
import asyncio, sys
import seqrpc

class Daemon(seqrpc.Service):
    @seqrpc.method
    async def wait(self, go_on: seqrpc.OwnedFd) -> str:
        sys.stdout.write("+")
        sys.stdout.flush()
        readable = asyncio.Event()
        asyncio.get_running_loop().add_reader(go_on.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            asyncio.get_running_loop().remove_reader(go_on.fileno())
        return "done"

limits = seqrpc.Limits(close_timeout={CLOSE_TIMEOUT})
seqrpc.run(Daemon(), sys.argv[1], mode=0o666, drain_timeout={DRAIN_TIMEOUT}, limits=limits)
"""

FLOOD = f"""
import os, signal, socket, sys
os.setgroups([])
os.setresgid({OTHER_GID}, {OTHER_GID}, {OTHER_GID})
os.setresuid({OTHER_UID}, {OTHER_UID}, {OTHER_UID})
path, what, newcomers = sys.argv[1], sys.argv[2], sys.argv[3] == "newcomers"

def connected():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        return None
    sock.setblocking(False)
    return sock

def flood(sock, first):
    try:
        for number in range(first, first + 64):
            if what == "notifications":
                sock.send(b"\\x93\\x02\\xabDaemon.wait\\x90")
                continue
            sock.send(b"\\x94\\x00\\xce" + number.to_bytes(4, "big") + b"\\xabDaemon.wait\\x90")
            try:
                while sock.recv(65536):
                    pass
            except BlockingIOError:
                pass
    except BlockingIOError:
        pass
    except OSError:
        return False
    return True

socks = [connected() for _ in range(200)]
sent = 0
while True:
    socks = [sock for sock in socks if flood(sock, sent)]
    if not sent:
        sys.stdout.write("+")
        sys.stdout.flush()
    sent += 64
    for _ in range(100 if newcomers else 0):
        sock = connected()
        if sock is None:
            break
        flood(sock, 0)
        sock.close()
    if not socks:
        signal.pause()
"""


def said(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    readable, _, _ = select.select([child.stdout], [], [], PATIENCE)
    assert readable, "nothing was said"
    assert child.stdout.read(1) == b"+"


def heard(sock: socket.socket) -> Iterator[Any]:
    """Return what comes until the end."""
    sock.settimeout(PATIENCE)
    while data := sock.recv(65_536):
        yield msgpack.unpackb(data)


@needs_root
@pytest.mark.parametrize("flood", [("requests", "nobody new"), ("notifications", "newcomers")], ids="-".join)
@pytest.mark.parametrize("handler", ["nothing runs", "a handler finishes", "a handler does not finish"])
def test_a_stop_has_its_bound_whoever_sends_on(
    flood: tuple[str, str], handler: str, socket_path: Path, pipe: tuple[int, int]
) -> None:
    socket_path.parent.chmod(0o755)
    with daemon(DAEMON, socket_path) as child, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        wait_until_it_listens(socket_path)
        client.connect(os.fspath(socket_path))
        if handler != "nothing runs":
            socket.send_fds(client, [msgpack.packb([0, 1, "Daemon.wait", [descriptor(0)]])], [pipe[0]])
            said(child)
        with daemon(FLOOD, socket_path, *flood) as sender:
            said(sender)
            began = time.monotonic()
            child.send_signal(signal.SIGTERM)
            messages = heard(client)
            assert next(messages) == [5, "the server is stopping"]
            if handler == "a handler finishes":
                os.write(pipe[1], b"+")
            assert child.wait(3 * PATIENCE) == 0
            assert time.monotonic() - began < LONGEST
        assert list(messages) == ([[1, 1, None, "done"]] if handler == "a handler finishes" else [])
    assert not exists(socket_path)
