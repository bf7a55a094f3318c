"""What one user asks for on a great many connections keeps others waiting no longer than on one."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import msgpack
import pytest
from support.daemons import daemon, own_loop, said_ready
from support.processes import AS_ROOT, OTHER_UID, running_child

import seqrpc

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="needs to be another user")

CONNECTIONS = 100
SLOW = 0.02
"""Seconds that a method, or a policy, of the daemon takes by itself."""

_DAEMON = """
import asyncio, sys, time
import uvloop
import seqrpc

def ponders(caller):
    time.sleep(0.02)
    return False

class Slow(seqrpc.Service):
    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def compute(self) -> None:
        time.sleep(0.02)

    @seqrpc.method(allow=ponders)
    async def guarded(self) -> None: ...

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def add(self, a: int, b: int) -> int:
        return a + b

async def main():
    async with seqrpc.serve(Slow(), sys.argv[1], mode=0o666, pass_credentials=len(sys.argv) > 3):
        print("ready", flush=True)
        await asyncio.Event().wait()

with asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[2] == "uvloop" else None) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize(
    "method, options", [("Slow.compute", []), ("Slow.guarded", []), ("Slow.guarded", ["pass_credentials"])]
)
async def test_others_are_served_in_between(socket_path: Path, method: str, options: list[str]) -> None:
    def ask_all_at_once() -> list[socket.socket]:
        peers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(CONNECTIONS)]
        for peer in peers:
            peer.connect(str(socket_path))
        for number in range(2):  # so that it is known of each that it sends one packet at a time
            for peer in peers:
                peer.send(msgpack.packb([0, number, "rpc.ping", []]))
                peer.recv(100)
        for peer in peers:
            peer.send(msgpack.packb([0, 2, method, []]))
        return peers

    socket_path.parent.chmod(0o755)
    with daemon(_DAEMON, socket_path, own_loop(), *options) as child:
        await said_ready(child)
        async with seqrpc.connect(socket_path) as friend:
            with running_child(ask_all_at_once, uid=OTHER_UID):
                worst, begin = 0.0, time.monotonic()
                while time.monotonic() - begin < CONNECTIONS * SLOW / 4:
                    before = time.monotonic()
                    assert await friend.call("Slow.add", 1, 2) == 3
                    worst = max(worst, time.monotonic() - before)
    assert worst < CONNECTIONS * SLOW / 3
