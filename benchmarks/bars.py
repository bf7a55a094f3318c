"""The bars set for the native part, each with its figure, and whether it is reached: ``python -m benchmarks.bars``.

Bars 1 and 5 are ratios of processor time to commits before it (``benchmarks.checkouts``), which git brings; 2 to 4 are
ratios to peers within one run (``python -m benchmarks``), of whose peers only those are measured that a bar names. A
ratio is that of the medians of interleaved rounds; beside it stand the lowest and the highest of the rounds, and that
of the pure twin. The status is 1 if a bar is missed, and 2 if none is, but one was not measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.checkouts import KINDS, Checkout, FailedError, Settings, distinct, measure
from benchmarks.peers.registry import OURS, PURE, LeftOutError, load
from benchmarks.report import Report
from benchmarks.run import Figures, Run
from benchmarks.verdicts import Bar, Ratio, as_json, status, table
from benchmarks.workloads import WORKLOADS
from seqrpc.twin import REASON, TWIN

OLD = "8f7b92b"
"""Version 0.1, which bar 1 is about."""

BEFORE = "1645d47"
"""The last commit without a native part, which bar 5 is about."""

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Beside:
    """A bar that is a ratio within the benchmark: of a row to another peer's, or to another row of seqrpc's."""

    number: int
    what: str
    row: str
    bound: float
    stretch: float | None = None
    peer: str | None = None
    to_row: str | None = None

    @property
    def workloads(self) -> list[str]:
        """What has to be measured for it."""
        return list(dict.fromkeys(row.partition("/")[0] for row in (self.to_row or self.row, self.row)))

    def bar(self, report: Report, left_out: Mapping[str, str]) -> Bar:
        """Return it with what was measured."""

        def ratio(name: str) -> Ratio | None:
            rows = report.rows
            mine = rows[self.row]["peers"].get(name)
            other = rows[self.to_row or self.row]["peers"].get(self.peer or name)
            return Ratio.of(mine["rounds"], other["rounds"]) if mine and other else None

        at_least = not WORKLOADS[self.workloads[0]].less_is_better
        reasons = {**left_out, **report.rows[self.row]["left_out"], **report.rows[self.to_row or self.row]["left_out"]}
        absent = [f"{name}: {reasons[name]}" for name in (OURS, self.peer) if name in reasons]
        figure = ratio(OURS)
        why = "" if figure else "; ".join(absent)
        return Bar(self.number, self.what, at_least, self.bound, self.stretch, figure, ratio(PURE), why)


BESIDE = (
    Beside(2, "64 in flight: of the rate of handwritten.protocol", "in-flight", 1.0, 1.2, "handwritten.protocol"),
    Beside(
        2, "64 in flight: of the rate of multiprocessing.connection+msgpack", "in-flight", 1.0, 1.2,
        "multiprocessing.connection+msgpack",
    ),
    Beside(3, "one call at a time: of the time of the blocking floor", "lone", 1.6, 1.4, "floor"),
    Beside(
        4, "a descriptor with each call: of the rate of multiprocessing.connection+msgpack", "descriptors", 1.0,
        peer="multiprocessing.connection+msgpack",
    ),
    Beside(4, "a deadline: of the time of a lone call", "features/deadline", 1.1, to_row="features/off"),
    Beside(4, "1 MiB of bytes: of the rate of pyzmq", "upload-1m", 1.0, peer="pyzmq"),
    Beside(4, "1,000 connections: of the rate of 64", "connections-1000", 0.85, to_row="connections-64"),
)  # fmt: skip

OF_OLD: Mapping[str, Mapping[tuple[int, int], tuple[float, float]]] = {
    "in-flight": {(3, 11): (0.72, 0.65), (3, 13): (0.60, 0.50)},
    "lone": {(3, 11): (0.70, 0.65), (3, 13): (0.65, 0.50)},
}
"""Bar 1, and its stretch, by kind and Python: parts of the processor time of the old commit."""

PURE_AT_MOST = 1.03
"""Bar 5: parts of the processor time of the commit before."""


@dataclass(frozen=True)
class Options:
    """What is measured, and how."""

    numbers: Collection[int]
    settings: Settings
    old: Checkout | None = None
    before: Checkout | None = None
    """Where these are, if git is not to bring them."""
    processors: tuple[int, int] | None = None
    """Of servers and of callers, in bars 2 to 4, if the kernel is not to choose."""


def unpacked(commit: str, directory: Path) -> Checkout:
    """Return a commit's package, unpacked into a directory that is made.

    Raises:
        FailedError: git does not have it.
    """
    directory.mkdir()
    try:
        command = ["git", "-C", str(_ROOT), "archive", commit, "seqrpc"]
        archive = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(directory)], input=archive, capture_output=True, check=True)
    except subprocess.CalledProcessError as exc:
        said = exc.stderr.decode(errors="replace").strip().splitlines()
        raise FailedError(f"{commit} cannot be had from git: {said[-1] if said else 'without a word'}") from exc
    except OSError as exc:
        raise FailedError(f"{commit} cannot be had from git: {exc.filename}: {exc.strerror}") from exc
    return Checkout(commit, str(directory))


def bars_of_checkouts(options: Options, directory: Path, tell: Callable[[str], None]) -> list[Bar]:
    """Measure bars 1 and 5."""
    ours, told = Checkout("this", str(_ROOT)), []
    if 1 in options.numbers:
        python = sys.version_info[:2]
        of_old = {kind: bounds.get(python, (None, None)) for kind, bounds in OF_OLD.items()}
        bars = {kind: Bar(1, f"{KINDS[kind]}: of {OLD}'s time", False, *of_old[kind]) for kind in of_old}
        twins = [ours] if TWIN == "pure" else [ours, ours.pure()]
        told += _against(lambda: options.old or unpacked(OLD, directory / "old"), twins, bars, options, tell)
    if 5 in options.numbers:
        bars = {kind: Bar(5, f"{KINDS[kind]}: pure, of {BEFORE}'s time", False, PURE_AT_MOST) for kind in KINDS}
        found = options.before
        told += _against(lambda: found or unpacked(BEFORE, directory / "before"), [ours.pure()], bars, options, tell)
    return told


def _against(
    first: Callable[[], Checkout],
    others: Sequence[Checkout],
    bars: Mapping[str, Bar],
    options: Options,
    tell: Callable[[str], None],
) -> list[Bar]:
    """Return bars of kinds of calls with the ratios of one or two checkouts to the first."""
    try:
        checkouts = distinct([first(), *others])
        kinds = measure(checkouts, bars, options.settings, tell).kinds
    except FailedError as exc:
        return [replace(bar, why=str(exc)) for bar in bars.values()]
    told = []
    for kind, bar in bars.items():
        old, *new = (kinds[kind][checkout.name].rounds for checkout in checkouts)
        figure, pure = [*(Ratio.of(rounds, old) for rounds in new), None][:2]
        told.append(replace(bar, figure=figure, pure=pure))
    return told


def bars_of_peers(options: Options, directory: Path, tell: Callable[[str], None]) -> list[Bar]:
    """Measure bars 2 to 4."""
    wanted = [bar for bar in BESIDE if bar.number in options.numbers]
    names = dict.fromkeys([OURS, PURE, *(bar.peer for bar in wanted if bar.peer)])
    peers, left_out = {}, {}
    for name in names:
        try:
            peers[name] = load(name)
        except LeftOutError as exc:
            left_out[name] = str(exc)
    versions = {name: version for name, peer in peers.items() if (version := peer.version())}
    settings = options.settings
    report = Report(settings.rounds, settings.seconds, versions, left_out)
    if wanted:
        tell(report.heading())
    with Run(peers, str(directory), settings.seconds, options.processors) as run:
        for workloads in dict.fromkeys(tuple(bar.workloads) for bar in wanted):
            only = {OURS, PURE, *(bar.peer for bar in wanted if tuple(bar.workloads) == workloads and bar.peer)}
            figures = _interleaved(run, workloads, settings.rounds, only)
            for name in workloads:
                report.add(WORKLOADS[name], figures[name], run.left_out[name])
                tell(report.table(WORKLOADS[name]))
    return [bar.bar(report, left_out) for bar in wanted]


def _interleaved(run: Run, workloads: Sequence[str], rounds: int, only: Collection[str]) -> dict[str, Figures]:
    """Measure workloads that are set beside each other in turn, round by round; one alone at a time."""
    found: dict[str, Figures] = {}
    turns = 1 if len(workloads) == 1 else rounds
    for _ in range(turns):
        for name in workloads:
            of_name = found.setdefault(name, {row: {} for row in WORKLOADS[name].rows})
            for row, peers in run.measure(WORKLOADS[name], rounds // turns, _say_nothing, only).items():
                for peer, figures in peers.items():
                    of_name[row].setdefault(peer, []).extend(figures)
    return found


def _say_nothing(_text: str) -> None:
    """Be told how far it is."""


def _numbers(text: str) -> list[int]:
    numbers = text.split(",")
    if unknown := [number for number in numbers if number not in ("1", "2", "3", "4", "5")]:
        raise argparse.ArgumentTypeError(f"there is no bar {', '.join(unknown)} that is measured here, but 1 to 5")
    return sorted(set(map(int, numbers)))


def _processors(text: str) -> tuple[int, int]:
    mine = sorted(os.sched_getaffinity(0))
    if text == "one":
        return mine[-1], mine[-1]
    if text != "two" or len(mine) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not one or two, or not as many are there: {len(mine)}")
    return mine[0], mine[-1]


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bars", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--bars", metavar="N,...", type=_numbers, default=[1, 2, 3, 4, 5], help="measure these")
    add("--rounds", metavar="N", type=int, default=5, help="how many (default: %(default)s)")
    add("--seconds", type=float, default=0.3, help="how long a round is to take, about (default: %(default)s)")
    add("--uid", metavar="N", type=int, help="measure bars 1 and 5 as this user; needs root")
    add("--old", metavar="PATH", type=Checkout.parse, help=f"a checkout of {OLD}, if git is not to bring it")
    add("--before", metavar="PATH", type=Checkout.parse, help=f"a checkout of {BEFORE}, as well")
    add(
        "--processors",
        metavar="one|two",
        type=_processors,
        help="where bars 2 to 4 run: both processes of a peer on one"
        " processor, or each on one of its own; else the kernel chooses, which makes all the difference to lone calls",
    )
    add("--json", metavar="FILE", type=Path, help="write the bars there")
    return parser


def main() -> None:
    """Measure."""
    parser = _options()
    args = parser.parse_args()
    if args.rounds < 1 or args.seconds <= 0:
        parser.error("--rounds and --seconds are positive")
    if args.uid is not None and (args.uid < 0 or os.geteuid() != 0):
        parser.error("--uid is a number that is not negative, and needs root")
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))  # by way of the ends of the processes
    settings = Settings(args.rounds, args.seconds, uid=args.uid)
    options = Options(args.bars, settings, args.old, args.before, args.processors)
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(prefix="bars-") as made:
        for of_some in (bars_of_checkouts, bars_of_peers):
            bars += of_some(options, Path(made), lambda text: print(text, flush=True))
    bars.sort(key=lambda bar: bar.number)
    print(f"\nseqrpc is the {TWIN} one{f': {REASON}' if REASON else ''}; Python {platform.python_version()}")
    print(table(bars))
    if args.json is not None:
        args.json.write_text(as_json(bars), encoding="utf-8")
    sys.exit(status(bars))


if __name__ == "__main__":
    main()
