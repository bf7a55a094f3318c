"""Answers that nobody reads are bounded, also when their calls were all in flight before the first of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from support.daemons import RawClient, daemon, raw_client, said_ready

import seqrpc
from seqrpc.limits import DEFAULT_LIMITS

CALLS = 200
ANSWER = 4 * 1024 * 1024

KEPT = DEFAULT_LIMITS.max_unsent_bytes + ANSWER
"""Bytes that the connection keeps at most."""

UNCOUNTED = 8 * ANSWER
"""Bytes that may be in the kernel's queue and in the making besides."""

OTHERS = 32 * 1024 * 1024
"""Bytes that the process may grow by for other reasons."""

_SERVER = """
import asyncio, os, sys
import seqrpc

class Large(seqrpc.Service):
    def __init__(self):
        self.asked = 0
        self.go = asyncio.Event()

    @seqrpc.method
    async def large(self, size: int) -> bytes:
        self.asked += 1
        await self.go.wait()
        return bytes(size)

    @seqrpc.method
    async def asked_for(self) -> int:
        return self.asked

    @seqrpc.method
    async def answer(self) -> None:
        self.go.set()

async def main():
    async with seqrpc.serve(Large(), sys.argv[1]):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def kept_bytes(pid: int) -> int:
    """Return the memory of a process: its own, and that of its memory files, which are in no mapping of it."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    files = (file for file in Path(f"/proc/{pid}/fd").iterdir() if str(file.readlink()).startswith("/memfd:"))
    return int(found[1]) * 1024 + sum(file.stat().st_blocks * 512 for file in files)


async def test_answers_of_calls_that_were_in_flight_together_are_bounded(socket_path: Path) -> None:
    with daemon(_SERVER, socket_path) as server:
        await said_ready(server)
        async with seqrpc.connect(socket_path) as friend:
            with raw_client(socket_path) as peer:
                before = kept_bytes(server.pid)
                for number in range(CALLS):
                    await peer.send(0, number, "Large.large", [ANSWER])
                while await friend.call("Large.asked_for") < CALLS:
                    pass
                await friend.call("Large.answer")
                for _ in range(100):  # the answers have been made by then, and others are served
                    await friend.call("rpc.ping")
                most = kept_bytes(server.pid) - before
                answers = await _answers(peer)
            assert most < KEPT + UNCOUNTED + OTHERS
        assert sorted(answers) == list(range(CALLS))
        large = [size for size in answers.values() if isinstance(size, int)]
        assert set(large) == {ANSWER}
        assert KEPT - ANSWER < len(large) * ANSWER < KEPT + UNCOUNTED
        assert {error for error in answers.values() if not isinstance(error, int)} == {"rpc.Overloaded"}


async def _answers(peer: RawClient) -> dict[int, Any]:
    """Read on; return the size of each answer, or the code of its error."""
    answers: dict[int, Any] = {}
    while len(answers) < CALLS:
        kind, *rest = await peer.receive()
        if kind == 4:  # its memory file goes as it comes: recv has no room for it
            answers[rest[1]] = rest[0] - 9 - (rest[1] >= 128)  # less what is around the bytes
        else:
            answers[rest[0]] = rest[1][0]
    return answers
