"""seqrpc beside what people would pick instead, in one run: ``python -m benchmarks``.

Each peer has a server process and a client process, and rounds of all of them are interleaved: what counts is the ratio
within one run. It installs nothing; peers that are not there are left out, and it says so. The extra ``seqrpc[bench]``
has those that are on the package index. Run it on a machine that does nothing else. docs/benchmarks.md says more.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from benchmarks.peers.base import BlockingPeer, Peer
from benchmarks.peers.registry import FLOORS, MODULES, LeftOutError, load
from benchmarks.report import Report
from benchmarks.run import Run
from benchmarks.workloads import WORKLOADS


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return what reads a list of names with commas."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}, but {', '.join(known)}")
        return [name for name in known if name in names]  # in the order of the tables

    return parse


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", metavar="PEER,...", type=_names(MODULES), default=list(MODULES), help="measure these, and the floors")
    add("--workloads", metavar="NAME,...", type=_names(WORKLOADS), default=list(WORKLOADS), help="measure these")
    add("--rounds", metavar="N", type=int, default=5, help="how many (default: %(default)s)")
    add("--seconds", type=float, default=0.3, help="how long a round is to take, about (default: %(default)s)")
    add("--json", metavar="FILE", type=Path, help="write all figures there")
    add("--charts", metavar="DIR", type=Path, help="draw bar charts there, as SVG; needs matplotlib")
    add("--list", action="store_true", help="say which workloads and peers there are, and measure nothing")
    return parser


def _load(names: Collection[str]) -> tuple[dict[str, Peer | BlockingPeer], dict[str, str]]:
    """Return the peers that are there, and why others are not."""
    peers: dict[str, Peer | BlockingPeer] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            peers[name] = load(name)
        except LeftOutError as exc:
            left_out[name] = str(exc)
    return peers, left_out


def _list(peers: dict[str, Peer | BlockingPeer], left_out: dict[str, str]) -> None:
    print("workloads:")
    for workload in WORKLOADS.values():
        print(f"  {workload.name:<18} {workload.what} ({workload.unit})")
    print("peers:")
    for name in MODULES:
        what = f"left out: {left_out[name]}" if name in left_out else ", ".join(_workloads_of(peers[name]))
        print(f"  {name:<26} {what}")


def _workloads_of(peer: Peer | BlockingPeer) -> list[str]:
    return [name for name in WORKLOADS if name in peer.workloads]


def _say(what: str) -> None:
    """Say what is going on, to whoever watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Measure."""
    parser = _options()
    args = parser.parse_args()
    if args.rounds < 1 or args.seconds <= 0:
        parser.error("--rounds and --seconds are positive")
    if args.charts is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--charts needs matplotlib, which is not installed; the extra seqrpc[bench] has it")
    peers, left_out = _load([name for name in MODULES if name in args.only or name in FLOORS])
    if args.list:
        _list(peers, left_out)
        return
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))  # by way of the ends of the processes
    versions = {name: version for name, peer in peers.items() if (version := peer.version())}
    report = Report(args.rounds, args.seconds, versions, left_out)
    print(report.heading(), flush=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory, Run(peers, directory, args.seconds) as run:
        for name in args.workloads:
            workload = WORKLOADS[name]
            figures = run.measure(workload, args.rounds, _say)
            _say("")
            report.add(workload, figures, run.left_out[name])
            print(report.table(workload), flush=True)
    if args.json is not None:
        args.json.write_text(report.as_json(), encoding="utf-8")
    if args.charts is not None:
        from benchmarks.charts import draw  # noqa: PLC0415 - it needs matplotlib

        draw(json.loads(report.as_json()), str(args.charts))


if __name__ == "__main__":
    main()
