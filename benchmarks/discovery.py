"""What it costs to ask a server what it can do: ``python -m benchmarks.discovery``.

A daemon of its own serves one service with so many methods. This process, on asyncio's loop as programs are by default,
asks it for its document, and pings it, in interleaved rounds: what counts is the ratio. Each call is timed as the
caller sees it, and by the clock of the daemon's process. To the caller most of it is making the maps and strings of the
document. The quickest counts: what else runs here makes things slower, never quicker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgpack

import seqrpc
from benchmarks.processes import processor_ns

MOST_TIMES = 20.0
"""How many pings one document may cost, once it is kept."""

_STARTS_WITHIN = 20.0  # seconds


@dataclass
class Job:
    """What methods take and give."""

    name: str
    priority: int = 0
    tags: list[str] = field(default_factory=list)


def service(methods: int) -> type[seqrpc.Service]:
    """Return a service with so many methods, of four kinds by turns."""

    async def look(self: Any, name: str) -> Job:
        """Return a job."""
        raise NotImplementedError

    async def put(self: Any, job: Job, *, replace: bool = False) -> None:
        """Put a job in, in place of another one of its name if that is wished."""

    async def names(self: Any, limit: int = 100) -> list[str]:
        """Return the names of jobs."""
        raise NotImplementedError

    async def wait(self: Any, name: str, seconds: float | None = None) -> bool:
        """Wait for a job, and return whether it has ended."""
        raise NotImplementedError

    made = {}
    for number in range(methods):
        written: Callable[..., Any] = (look, put, names, wait)[number % 4]
        made[f"{written.__name__}_{number}"] = seqrpc.method(_copy(written))
    return type("Jobs", (seqrpc.Service,), made)


def _copy(function: Any) -> Any:
    made = type(function)(function.__code__, globals(), function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__, made.__annotations__ = function.__kwdefaults__, function.__annotations__
    made.__doc__ = function.__doc__
    return made


@dataclass
class Figures:
    """What was measured, in microseconds."""

    methods: int
    document_bytes: int
    first: float
    """Asking for the first time, when the document is made."""
    ping: float
    discover: float
    daemon_ping: float
    """Of the daemon's processor."""
    daemon_discover: float

    @property
    def ratio(self) -> float:
        """How many pings asking once is, to the caller."""
        return self.discover / self.ping

    @property
    def daemon_ratio(self) -> float:
        """The same to the daemon."""
        return self.daemon_discover / self.daemon_ping


@contextmanager
def _daemon(path: Path, methods: int) -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.discovery", "--serve", str(path), "--methods", str(methods)]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent) as process:
        try:
            until = time.monotonic() + _STARTS_WITHIN
            while not path.exists() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            yield process.pid
        finally:
            process.terminate()


async def measure(path: Path, pid: int, methods: int, rounds: int) -> Figures:
    """Ask and ping by turns; return what each costs at best: one call to the caller, one of a round to the daemon."""
    caller: dict[str, float] = {}
    daemon: dict[str, float] = {}
    async with seqrpc.connect(path) as connection:
        began = time.perf_counter()
        told = await connection.call("rpc.discover")
        first = time.perf_counter() - began
        assert len(told["methods"]) == methods
        size = len(msgpack.packb(told))
        for _ in range(rounds):
            for name, times in (("rpc.ping", 50), ("rpc.discover", 10)):
                worked = processor_ns(pid)
                for _ in range(times):
                    began = time.perf_counter()
                    told = await connection.call(name)
                    took = time.perf_counter() - began
                    caller[name] = min(caller.get(name, took), took)
                took = max(processor_ns(pid) - worked, 1) / times / 1e9
                daemon[name] = min(daemon.get(name, took), took)
    return Figures(
        methods=methods,
        document_bytes=size,
        first=first * 1e6,
        ping=caller["rpc.ping"] * 1e6,
        discover=caller["rpc.discover"] * 1e6,
        daemon_ping=daemon["rpc.ping"] * 1e6,
        daemon_discover=daemon["rpc.discover"] * 1e6,
    )


def _serve(path: str, methods: int) -> None:
    seqrpc.run(service(methods)(), path)


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description="Measure what it costs to ask a server what it can do.")
    parser.add_argument("--methods", type=int, default=200, help="of the service")
    parser.add_argument("--rounds", type=int, default=100, help="of each; the quickest counts")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(options.serve, options.methods)
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "jobs.sock")
        with _daemon(path, options.methods) as pid:
            figures = asyncio.run(measure(path, pid, options.methods, options.rounds))
    print(f"{figures.methods} methods, {figures.document_bytes} bytes, made in {figures.first / 1e3:.1f} ms")
    print(f"caller: ping {figures.ping:.0f} us, discover {figures.discover:.0f} us: {figures.ratio:.1f} times")
    print(
        f"daemon: ping {figures.daemon_ping:.0f} us, discover {figures.daemon_discover:.0f} us:"
        f" {figures.daemon_ratio:.1f} times"
    )
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(figures)))
    sys.exit(figures.ratio > MOST_TIMES)


if __name__ == "__main__":
    main()
