"""How much memory a server needs for a connection, and for a call that it has not answered."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from benchmarks.loops import close_all, connect_many, patiently
from benchmarks.peers.base import BlockingClient, BlockingPeer, Client, Peer, Unsupported

_WARM = 20  # connections made and closed before, so that what a server does but once is not counted
_QUIET = 0.05  # seconds between two looks


def private(pid: int) -> int:
    """Return the bytes that a process, and those that it started, have for themselves and have written.

    proc_pid_smaps(5). Pages that are only read, of programs and libraries, are no matter of connections.

    Raises:
        Unsupported: this system does not say.
    """
    proc = Path("/proc", str(pid))
    try:
        rollup = proc.joinpath("smaps_rollup").read_text()
        children = proc.joinpath("task", str(pid), "children").read_text()
    except FileNotFoundError as exc:
        raise Unsupported(f"there is no {exc.filename}") from exc
    lines = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
    return int(lines["Private_Dirty"].removesuffix("kB")) * 1024 + sum(map(private, map(int, children.split())))


async def settled(pid: int) -> int:
    """Return ``private`` once it does not change any more."""
    seen = [private(pid)]
    while len(seen) < 40 and (len(seen) < 3 or seen[-3:] != [seen[-1]] * 3):
        await asyncio.sleep(_QUIET)
        seen.append(private(pid))
    return seen[-1]


async def server_memory(peer: Peer | BlockingPeer, address: str, pid: int, count: int) -> dict[str, float]:
    """Return the KiB that each of ``count`` idle connections takes, and each call in flight, one on each."""
    if isinstance(peer, BlockingPeer):
        return await _blocking_memory(peer, address, pid, count)
    await close_all(await connect_many(peer, address, _WARM))
    before = await settled(pid)
    clients = await connect_many(peer, address, count)
    try:
        idle = await settled(pid)
        figures = {"idle": (idle - before) / 1024 / count}
        with contextlib.suppress(Unsupported):
            figures["in-flight"] = (await _parked(clients, pid) - idle) / 1024 / count
        return figures
    finally:
        await close_all(clients)


async def _parked(clients: list[Client], pid: int) -> int:
    """Return ``private`` while each connection has a call that is not answered."""
    calls = [asyncio.ensure_future(client.park()) for client in clients]
    try:
        done, _waiting = await asyncio.wait(calls, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        for call in done:
            await call  # it was not to end: this raises why it did
        return await settled(pid)
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _blocking_memory(peer: BlockingPeer, address: str, pid: int, count: int) -> dict[str, float]:
    def connect(count: int) -> list[BlockingClient]:
        clients = [peer.connect(address) for _ in range(count)]
        for client in clients:
            assert client.add(2, 3) == 5
        return clients

    async def warmed() -> list[BlockingClient]:
        return connect(_WARM)

    for client in await patiently(warmed):
        client.close()
    before = await settled(pid)
    clients = connect(count)
    try:
        return {"idle": (await settled(pid) - before) / 1024 / count}
    finally:
        for client in clients:
            client.close()
