"""What it costs to refuse a caller, whatever is in the packet: ``python -m benchmarks.refused``.

A daemon of its own admits its own user and root. A process of another user sends it packets of one kind with a raw
socket, and, in turn with them, dull ones of the same frame: as many bytes, all padding, and as many descriptors of
the same files, referred to plainly. The processor time of the daemon is read from the kernel's clock of that process,
before the packets and once it is quiet after them; its memory likewise. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.kinds import KINDS, Kind
from benchmarks.processes import FailedError, Memory, ServerProcess, Worker, forget_peak, memory, needs_root
from benchmarks.sender import HANGS_AFTER

MOST_TIMES = 1.5
"""How much of the dull packet's processor time one of another kind may cost."""

MOST_BYTES = 256 * 1024
"""How much more memory than the dull packet's."""

_BATCH = 1.0  # seconds after which no more packets of one turn are sent: some take the server very long
_ANSWER_WITHIN = HANGS_AFTER * 3


@dataclass
class Turn:
    """One turn's packets of one sort."""

    sent: int
    hung: bool
    microseconds: float
    """Of the server's processor, a packet."""
    peak_bytes: int
    """The most that the server had beyond what it began with."""
    kept_bytes: int
    """What it had more at the end."""


@dataclass
class Row:
    """What is known of a kind."""

    name: str
    what: str
    size: int = 0
    descriptors: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    hostile: list[Turn] = field(default_factory=list)
    dull: list[Turn] = field(default_factory=list)
    failed: str = ""

    @staticmethod
    def _microseconds(turns: list[Turn]) -> float:
        return statistics.median(turn.microseconds for turn in turns) if turns else 0.0

    def figures(self) -> dict[str, Any]:
        """Return what is printed."""
        ours, theirs = self._microseconds(self.dull), self._microseconds(self.hostile)
        peak = max((turn.peak_bytes for turn in self.hostile), default=0)
        kept = sum(turn.kept_bytes for turn in self.hostile)
        return {
            "microseconds": theirs,
            "dull_microseconds": ours,
            "ratio": theirs / ours if ours else 0.0,
            "more_peak_bytes": peak - max((turn.peak_bytes for turn in self.dull), default=0),
            "more_kept_bytes": kept - sum(turn.kept_bytes for turn in self.dull),
            "hung": any(turn.hung for turn in self.hostile + self.dull),
        }

    def is_over(self) -> bool:
        """Return whether it costs more than it may."""
        figures = self.figures()
        more = max(figures["more_peak_bytes"], figures["more_kept_bytes"])
        return bool(self.failed or figures["hung"] or figures["ratio"] > MOST_TIMES or more > MOST_BYTES)


class Measuring:
    """A server for one kind, and the process that sends."""

    def __init__(self, server: ServerProcess, sender: Worker, row: Row) -> None:
        self._server = server
        self._sender = sender
        self._row = row

    def turn(self, which: str, packets: int) -> Turn:
        """Send packets and return what they cost.

        Raises:
            FailedError: the server or the sender ended.
        """
        self._server.settle()
        forget_peak(self._server.pid)
        before, used = memory(self._server.pid), self._server.processor_ns()
        told = self._sender.ask(_ANSWER_WITHIN, do="send", which=which, packets=packets, seconds=_BATCH)
        self._server.settle()
        if not self._server.is_running():
            raise FailedError(f"the server ended: {self._server.said.read_text()[-300:]}")
        microseconds = (self._server.processor_ns() - used) / 1000 / told["sent"]
        after: Memory = memory(self._server.pid)
        if which == "hostile":
            self._row.size, self._row.descriptors = told["bytes"], told["descriptors"]
            for code, count in told["answers"].items():
                self._row.answers[code] = self._row.answers.get(code, 0) + count
        return Turn(told["sent"], told["hung"], microseconds, after.peak - before.resident, after.own - before.own)


def measure(kind: Kind, sender: Worker, directory: Path, rounds: int, packets: int) -> Row:
    """Return what a kind costs, with a server of its own."""
    row = Row(kind.name, kind.what)
    directory.mkdir(mode=0o755)
    try:
        with ServerProcess(directory) as server:
            sender.ask(_ANSWER_WITHIN, do="prepare", address=server.address, kind=kind.name)
            measuring = Measuring(server, sender, row)
            measuring.turn("dull", packets)  # what the server makes once is nobody's
            for number in range(rounds):
                for which, turns in (("hostile", row.hostile), ("dull", row.dull))[:: 1 if number % 2 else -1]:
                    turns.append(measuring.turn(which, packets))
                    if turns[-1].hung:
                        return row
    except FailedError as exc:
        row.failed = str(exc)
    return row


def _heading() -> str:
    return (
        f"{'kind':<30} {'bytes':>7} {'fds':>4} {'us':>10} {'dull us':>9} {'ratio':>7} {'peak KiB':>9} {'kept KiB':>9}"
        f"  answer"
    )


def _line(row: Row) -> str:
    if row.failed:
        return f"{row.name:<30} failed: {row.failed}"
    figures = row.figures()
    answer = max(row.answers, key=lambda code: row.answers[code], default="-")
    marks = [
        "time" if figures["ratio"] > MOST_TIMES else "",
        "memory" if max(figures["more_peak_bytes"], figures["more_kept_bytes"]) > MOST_BYTES else "",
        f"no answer in {HANGS_AFTER:g} s" if figures["hung"] else "",
    ]
    over = ", ".join(mark for mark in marks if mark)
    return (
        f"{row.name:<30} {row.size:>7,} {row.descriptors:>4} {figures['microseconds']:>10,.1f}"
        f" {figures['dull_microseconds']:>9,.1f} {figures['ratio']:>7,.2f} {figures['more_peak_bytes'] / 1024:>9,.0f}"
        f" {figures['more_kept_bytes'] / 1024:>9,.0f}  {answer}{f'  << {over}' if over else ''}"
    )


def names_of(known: dict[str, Any]) -> Callable[[str], list[str]]:
    """Return what reads a list of names, or beginnings of names, with commas."""

    def parse(text: str) -> list[str]:
        beginnings = text.split(",")
        for beginning in beginnings:
            if not any(name.startswith(beginning) for name in known):
                raise argparse.ArgumentTypeError(f"nothing begins with {beginning!r}; there are {', '.join(known)}")
        return [name for name in known if name.startswith(tuple(beginnings))]

    return parse


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.refused",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", metavar="KIND,...", type=names_of(KINDS), default=list(KINDS), help="whose names begin so")
    add("--rounds", metavar="N", type=int, default=5, help="how many (default: %(default)s)")
    add("--packets", metavar="N", type=int, default=200, help="of one turn, at most (default: %(default)s)")
    add("--json", metavar="FILE", type=Path, help="write all figures there")
    return parser


def main() -> int:
    """Measure; return 1 if a kind costs more than it may."""
    parser = _options()
    args = parser.parse_args()
    if args.rounds < 1 or args.packets < 1:
        parser.error("--rounds and --packets are positive")
    if why_not := needs_root():
        print(f"nothing was measured: {why_not}", file=sys.stderr)
        return 2
    print(_heading(), flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="refused-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for kind in args.only:
            with Worker("sender", log=directory / "sender.said") as sender:
                rows.append(measure(KINDS[kind], sender, directory / kind, args.rounds, args.packets))
            print(_line(rows[-1]), flush=True)
    over = [row.name for row in rows if row.is_over()]
    print(
        f"\n{len(over)} of {len(rows)} cost more than {MOST_TIMES:g} times the dull packet, or than 256 KiB beside it"
    )
    if args.json is not None:
        told = {row.name: asdict(row) | row.figures() | {"over": row.is_over()} for row in rows}
        args.json.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
