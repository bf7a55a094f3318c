"""Whether a daemon grows while it serves: ``python -m benchmarks.soak --minutes 30 --clients 200``.

Clients make every kind of call with every kind of value, and fail in every way; they come and go, and are killed at
random. After the first minute, and at the end, all clients leave, and the daemon's resident memory, descriptors and
tasks are read. It ends with status 1 if the memory grew by more than 5 %, if descriptors or tasks are not the same, or
if a call came to something that it should not.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgpack

from benchmarks.processes import ServerProcess, memory
from benchmarks.workloads import MIB

MOST_GROWTH = 0.05
"""Of the memory after the first minute."""

_PER_PROCESS = 25  # clients
_KILLS_EVERY = 3.0  # seconds, on average
_SETTLES_WITHIN = 30.0  # seconds
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class State:
    """What a daemon has when nobody calls it."""

    resident: int
    descriptors: int
    tasks: int
    connections: int


class Clients:
    """So many clients, in some processes, which are killed at random, and come again."""

    def __init__(self, address: str, count: int, directory: Path) -> None:
        self._address = address
        self._counts = [min(_PER_PROCESS, count - first) for first in range(0, count, _PER_PROCESS)]
        self._directory = directory
        self._numbers = itertools.count()
        self._running: dict[subprocess.Popen[bytes], int] = {}
        self._said: list[Path] = []
        self._ended: collections.Counter[str] = collections.Counter()
        self._chance = random.Random(3)
        self.killed = 0

    def start(self) -> None:
        """Start those that do not run."""
        while len(self._running) < len(self._counts):
            number = next(self._numbers)
            clients = self._counts[len(self._running)]
            said = self._directory / f"clients-{number}"
            with said.open("wb") as file, said.with_suffix(".err").open("wb") as errors:
                command = [sys.executable, "-m", "benchmarks.soaking", self._address, str(clients), str(number)]
                process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=errors)
            self._running[process] = clients
            self._said.append(said)

    def live(self, seconds: float) -> None:
        """Let them call for so long, and kill some."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.start()
            nap, left = self._chance.expovariate(1 / _KILLS_EVERY), end - time.monotonic()
            time.sleep(max(0.0, min(nap, left)))
            if nap < left:
                self._end(self._chance.choice(list(self._running)), signal.SIGKILL)
                self.killed += 1
        for process in list(self._running):
            self._end(process, signal.SIGTERM)

    def _end(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        if process.poll() is not None:
            self._ended["UNEXPECTED end of a process"] += 1
        process.send_signal(number)
        try:
            process.wait(_SETTLES_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        del self._running[process]

    def kill(self) -> None:
        """End all of them."""
        for process in list(self._running):
            self._end(process, signal.SIGKILL)

    def outcomes(self) -> collections.Counter[str]:
        """Return what came of the calls; those who were killed have not told of their last second."""
        total: collections.Counter[str] = collections.Counter()
        for said in self._said:
            lines = said.read_bytes().split(b"\n")[:-1]
            if lines:
                total.update(json.loads(lines[-1]))
        return total + self._ended


def state(server: ServerProcess) -> State:
    """Return what a daemon has once everybody has left it."""
    end = time.monotonic() + _SETTLES_WITHIN
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_SETTLES_WITHIN)
        sock.connect(server.address)
        while True:
            server.settle()
            sock.send(msgpack.packb([0, 0, "Target.state", []]))  # it collects garbage, which closes what that holds
            sock.recv(65_536)
            server.settle()
            sock.send(msgpack.packb([0, 1, "Target.state", []]))
            told = msgpack.unpackb(sock.recv(65_536))[3]
            count = len(os.listdir(f"/proc/{server.pid}/fd"))
            now = State(memory(server.pid).resident, count, told["tasks"], told["connections"])
            if now.connections == 1 or time.monotonic() > end:
                return now
            time.sleep(0.1)


def faults(first: State, last: State, outcomes: collections.Counter[str]) -> list[str]:
    """Return what is not as it should be."""
    found = []
    if last.resident > first.resident * (1 + MOST_GROWTH):
        found.append(f"the memory grew by {last.resident / first.resident - 1:.1%}")
    found += [
        f"{name} were {getattr(first, name)} and are {getattr(last, name)}"
        for name in ("descriptors", "tasks", "connections")
        if getattr(first, name) != getattr(last, name)
    ]
    found += [f"{count} times {what}" for what, count in outcomes.items() if what.startswith("UNEXPECTED")]
    return found


def soak(minutes: float, clients: int, directory: Path, *, asyncio: bool) -> dict[str, Any]:
    """Return the report."""
    seconds = 60 * minutes
    first_part = min(60.0, seconds / 2)
    options = ["--log", str(directory / "log"), *(["--asyncio"] if asyncio else [])]
    with ServerProcess(directory, *options) as server, ExitStack() as stack:
        callers = Clients(server.address, clients, directory)
        stack.callback(callers.kill)
        states = []
        for part in (first_part, seconds - first_part):
            callers.live(part)
            states.append(state(server))
            print(f"{states[-1].resident / MIB:.1f} MiB, {states[-1]}", flush=True)
        outcomes = callers.outcomes()
    return {
        "minutes": minutes,
        "clients": clients,
        "killed": callers.killed,
        "first": asdict(states[0]),
        "last": asdict(states[1]),
        "outcomes": dict(sorted(outcomes.items())),
        "faults": faults(states[0], states[1], outcomes),
    }


def main() -> int:
    """Soak; return 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--asyncio", action="store_true", help="serve on asyncio's own loop")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report there")
    args = parser.parse_args()
    if args.minutes <= 0 or args.clients < 1:
        parser.error("--minutes and --clients are positive")
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        report = soak(args.minutes, args.clients, Path(name), asyncio=args.asyncio)
    for what, count in report["outcomes"].items():
        print(f"{count:>9}  {what}")
    print(f"{report['killed']} times {_PER_PROCESS} clients were killed")
    print("\n".join(report["faults"]) or "all is well")
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
