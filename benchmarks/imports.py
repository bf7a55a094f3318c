"""What it costs to import a peer, in a new interpreter, over that one's own start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from benchmarks.peers.base import BlockingPeer, Peer

_AT_LEAST = 3  # of each, that one disturbance is not what is told


def _run(code: str, cache: str) -> float:
    """Run it with byte code kept in ``cache``, as it is kept where packages are installed."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


async def time_import(peer: Peer | BlockingPeer, seconds: float) -> dict[str, float]:
    """Return the milliseconds of it: the least with over the least without, for what is more is the machine's."""
    statement = f"import {', '.join(peer.imports or peer.requires)}"
    with tempfile.TemporaryDirectory() as cache:
        _run(statement, cache)  # its files are read, and compiled, by the first
        bare, full = [_run("pass", cache)], [_run(statement, cache)]
        until = time.perf_counter() + seconds
        while len(bare) < _AT_LEAST or time.perf_counter() < until:
            bare.append(_run("pass", cache))
            full.append(_run(statement, cache))
    return {"": (min(full) - min(bare)) * 1e3}
