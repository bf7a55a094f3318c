"""What hostile callers cost a friendly one: ``python -m benchmarks.hostile``.

For each attack there is a daemon of its own, a friendly caller that calls it every 10 ms, and a process of another user
that attacks it. The friendly caller's latencies are taken twice: while the other process is only busy, and while it
attacks. The numbers before the names are those of what is attacked:

    6  descriptors whose close waits          11  callers that take the loop's time in their turn
    7  keys of maps that are chosen           12  a flood on 200 connections, and a stop while it goes on
    8  stream items that do not fit           13  what peers say, and how much of it is logged
    9  buffers at odd offsets, full of holes  14  names that are kept
    10 answers that nobody reads

Those that begin with "peer-" are how hostile peers behave (``benchmarks.behaviours``).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.attacker import ALL, WORKS
from benchmarks.friend import EVERY, WAITS
from benchmarks.processes import (
    FailedError,
    ServerProcess,
    Worker,
    forget_peak,
    memory,
    needs_root,
    shared_memory,
)
from benchmarks.refused import names_of
from benchmarks.targets import SLOW
from benchmarks.workloads import MIB

MOST_TIMES = 10.0
"""How many times its idle 99th percentile the friendly caller's may be."""

DRAIN_TIMEOUT, CLOSE_TIMEOUT = 1.0, 0.5
"""Seconds: the limits of the daemon that is stopped."""

STOPS_WITHIN = DRAIN_TIMEOUT + 4 * CLOSE_TIMEOUT
"""Seconds that a stop may take: ``drain_timeout``, and a few times ``close_timeout``."""

_OWN_TIME = dict.fromkeys(("11-handlers", "11-policies", "11-connections"), 2 * SLOW)
"""Seconds by which a call may be held up besides: by the handler, or policy, that runs as it comes, and by the next."""

_GIVEN_UP = 20.0  # seconds after which a stop is taken to have no end
_WARM_UP = 0.3  # seconds of an attack before the friendly calls begin
_LOOK_EVERY = 0.1  # seconds between two looks at the memory

_MS = 1000

_LEGEND = f"""
A friendly call every {_MS * EVERY:g} ms; of its latencies the median and the 99th percentile, in ms, while the other
process is busy without a word to the server (idle) and while it attacks. That process, busy or attacking, works
{_MS * WORKS:g} ms and rests {_MS * WORKS:g} ms: half of a processor at most. A call fails that is answered wrongly,
or not within {WAITS:g} s of the end.
MiB: peak, the most that the server had during the attack beyond what it had before; shm, by what all memory files of
this machine grew meanwhile, the attacker's among them; kept, what the server had more afterwards.
In 11 a handler, or a policy, takes {_MS * SLOW:g} ms by itself: a friendly call is held up by the one that runs and
by the next in any case, so {2 * _MS * SLOW:g} ms are added to the bound there.
12-stop: seconds from SIGTERM, amid the flood, to the end, with drain_timeout {DRAIN_TIMEOUT:g} s and close_timeout
{CLOSE_TIMEOUT:g} s; the bound is {STOPS_WITHIN:g}.
"""


@dataclass
class Row:
    """What is known of an attack."""

    name: str
    calls: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    idle_p50: float = 0.0
    idle_p99: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    peak_bytes: int = 0
    shared_bytes: int = 0
    kept_bytes: int = 0
    log_bytes_per_second: float = 0.0
    attack: dict[str, int] = field(default_factory=dict)
    """What the attacker sent, and what came of it."""
    stop_seconds: float | None = None
    """12: how long the stop took; infinite if it had not ended when it was given up."""
    failed: str = ""

    @property
    def ratio(self) -> float:
        """How many times the idle 99th percentile the attacked one is."""
        return self.p99 / self.idle_p99 if self.idle_p99 else 0.0

    def faults(self) -> list[str]:
        """Return which bars it misses."""
        faults = []
        if self.failed:
            faults.append(self.failed)
        if self.failures:
            faults.append(f"{sum(self.failures.values())} failures")
        if self.p99 > self.idle_p99 * MOST_TIMES + _OWN_TIME.get(self.name, 0.0):
            faults.append("p99")
        if self.stop_seconds is not None and self.stop_seconds > STOPS_WITHIN:
            faults.append("stop")
        return faults


def _percentile(values: list[float], part: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, math.ceil(part * len(ranked)) - 1)]


class Scene:
    """A daemon, its friendly caller and its attacker."""

    def __init__(self, row: Row, server: ServerProcess, friend: Worker, attacker: Worker, log: Path) -> None:
        self._row = row
        self._server = server
        self._friend = friend
        self._attacker = attacker
        self._log = log

    def idle(self, seconds: float) -> None:
        """Measure the friendly caller beside a process that is busy with nothing."""
        self._attacker.tell(do="busy")
        calm = self._friend.ask(seconds + 2 * WAITS, seconds=seconds)
        self._attacker.ask(do="stop")
        if calm["failures"]:
            raise FailedError(f"friendly calls fail without an attack: {calm['failures']}")
        self._row.idle_p50, self._row.idle_p99 = (_percentile(calm["seconds"], part) for part in (0.5, 0.99))

    def attacked(self, seconds: float) -> None:
        """Measure it under attack, and the server's memory and log."""
        row, pid = self._row, self._server.pid
        forget_peak(pid)
        before, shared, logged = memory(pid), shared_memory(), self._log.stat().st_size
        started = time.monotonic()
        self._attacker.tell(do="attack")
        self._watch(_WARM_UP, shared)
        self._friend.tell(seconds=seconds)
        self._watch(seconds, shared)
        row.log_bytes_per_second = (self._log.stat().st_size - logged) / (time.monotonic() - started)
        if self._server.is_running():
            row.peak_bytes = memory(pid).peak - before.resident
        if row.name == "12-flood":
            self._finish_friend(seconds)
            self._stop()
        self._stop_attacking()
        if row.name != "12-flood":
            self._finish_friend(seconds)
            if self._server.is_running():
                self._server.settle()
                row.kept_bytes = memory(pid).own - before.own

    def _watch(self, seconds: float, shared: int) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._row.shared_bytes = max(self._row.shared_bytes, shared_memory() - shared)
            time.sleep(_LOOK_EVERY)

    def _finish_friend(self, seconds: float) -> None:
        row = self._row
        told = self._friend.hear(seconds + 2 * WAITS)
        row.calls, row.failures = len(told["seconds"]), told["failures"]
        row.p50, row.p99 = (_percentile(told["seconds"], part) for part in (0.5, 0.99))

    def _stop(self) -> None:
        seconds = self._server.terminate(_GIVEN_UP)
        self._row.stop_seconds = math.inf if seconds is None else seconds

    def _stop_attacking(self) -> None:
        """Hear what the attack came to. It ends by itself where the server holds it up for good."""
        try:
            self._row.attack = self._attacker.ask(5.0, do="stop")
        except FailedError as exc:
            self._row.attack = {str(exc): 1}


def measure(name: str, directory: Path, seconds: float) -> Row:
    """Return what an attack does to a friendly caller."""
    row = Row(name)
    directory.mkdir(mode=0o755)
    log = directory / "daemon.log"
    log.touch()
    options = ["--log", str(log)]
    if name == "12-flood":
        options += ["--drain-timeout", str(DRAIN_TIMEOUT), "--close-timeout", str(CLOSE_TIMEOUT)]
    try:
        with (
            ServerProcess(directory, *options) as server,
            Worker("friend", server.address, log=directory / "friend.said") as friend,
            Worker("attacker", name, server.address, log=directory / "attacker.said") as attacker,
        ):
            friend.hear(WAITS)
            attacker.hear(WAITS)
            scene = Scene(row, server, friend, attacker, log)
            scene.idle(seconds)
            scene.attacked(seconds)
            if not server.is_running() and row.stop_seconds is None:
                row.failed = f"the server ended: {server.said.read_text()[-200:]}"
    except FailedError as exc:
        row.failed = str(exc)
    return row


def _heading() -> str:
    return (
        f"{'attack':<20} {'calls':>5} {'failed':>6} {'idle p50':>8} {'p99':>7} {'attacked p50':>12} {'p99':>9}"
        f" {'p99 ratio':>9} {'peak':>6} {'shm':>6} {'kept':>6} {'log KB/s':>8}  what came of most packets"
    )


def _line(row: Row) -> str:
    done = {what: count for what, count in row.attack.items() if what != "sent"}
    most = max(done, key=lambda what: done[what], default="-")
    faults = row.faults()
    line = (
        f"{row.name:<20} {row.calls:>5} {sum(row.failures.values()):>6} {row.idle_p50 * 1000:>8.2f}"
        f" {row.idle_p99 * 1000:>7.2f} {row.p50 * 1000:>12.2f} {row.p99 * 1000:>9.2f} {row.ratio:>9.1f}"
        f" {row.peak_bytes / MIB:>6.0f} {row.shared_bytes / MIB:>6.0f} {row.kept_bytes / MIB:>6.0f}"
        f" {row.log_bytes_per_second / 1000:>8.0f}  {row.attack.get('sent', 0)} sent, {done.get(most, 0)} {most}"
        f"{'  << ' + ', '.join(faults) if faults else ''}"
    )
    if row.stop_seconds is not None:
        took = f"{row.stop_seconds:.1f} s" if math.isfinite(row.stop_seconds) else f"not within {_GIVEN_UP:g} s"
        line += f"\n{'12-stop':<20} {took}, of {STOPS_WITHIN:g}{'  << stop' if 'stop' in faults else ''}"
    return line


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hostile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", metavar="ATTACK,...", type=names_of(ALL), default=list(ALL), help="whose names begin so")
    add("--seconds", type=float, default=5.0, help="of friendly calls, idle and attacked (default: %(default)s)")
    add("--json", metavar="FILE", type=Path, help="write all figures there")
    return parser


def main() -> int:
    """Measure; return 1 if a friendly caller is served worse than it may be."""
    parser = _options()
    args = parser.parse_args()
    if args.seconds <= 0:
        parser.error("--seconds is positive")
    if why_not := needs_root():
        print(f"nothing was measured: {why_not}", file=sys.stderr)
        return 2
    print(_heading(), flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for attack in args.only:
            rows.append(measure(attack, directory / attack, args.seconds))
            print(_line(rows[-1]), flush=True)
    bad = [row.name for row in rows if row.faults()]
    print(_LEGEND)
    print(f"{len(bad)} of {len(rows)}: calls fail, p99 is above {MOST_TIMES:g} times the idle one, or the stop is late")
    if args.json is not None:
        told: dict[str, Any] = {row.name: asdict(row) | {"ratio": row.ratio, "faults": row.faults()} for row in rows}
        args.json.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
