"""The server process of a peer: ``python -m benchmarks.serving NAME ADDRESS``, until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import threading

from benchmarks.peers.base import Peer
from benchmarks.peers.registry import find


def many_files() -> None:
    """Have as many descriptors as this process may: 1,000 connections need as many."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems have a bound below "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def new_loop(peer: Peer) -> asyncio.AbstractEventLoop:
    """Return the kind of loop on which this peer's users would run it."""
    if not peer.uvloop:
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - who does not run on it need not have it

    return uvloop.new_event_loop()


async def _until_sigterm(peer: Peer, address: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await peer.serve(address)


def _end_with_whoever_started_us() -> None:
    """End when the standard input does: also whoever is killed leaves no servers behind."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Serve."""
    name, address = sys.argv[1:]
    many_files()
    _end_with_whoever_started_us()
    peer = find(name)
    if isinstance(peer, Peer):
        with asyncio.Runner(loop_factory=lambda: new_loop(peer)) as runner:
            runner.run(_until_sigterm(peer, address))
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        peer.serve(address)


if __name__ == "__main__":
    main()
