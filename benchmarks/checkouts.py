"""What calls cost in one checkout of seqrpc, beside others: ``python -m benchmarks.checkouts OLD NEW``.

A checkout is a directory with the package ``seqrpc`` in it: a work tree of git, or where a wheel is unpacked. It may
have a name before it and variables of the environment behind it: ``pure=.:SEQRPC_PURE=1``. Each has a process of its
own, which stays, on the Python that this runs on, and is both sides of the calls: what is measured is the processor
time of that process, the kernel's part included, by a call. Rounds of all checkouts are interleaved, and what counts is
the ratio to the first checkout; what else the machine does matters less than to times by the clock, but it does matter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.report import machine
from benchmarks.workloads import IN_FLIGHT

KINDS = {
    "lone": "a typed call, one at a time",
    "in-flight": f"a typed call, {IN_FLIGHT} in flight on one connection",
    "policy-free": "a typed call that anyone may make, one at a time",
    "waits": "a handler that waits once",
    "deadline": "a typed call inside a deadline",
    "record": "a dataclass of twenty fields each way",
    "descriptor": "an open file to the handler",
    "stream": "an item of a stream",
    "notify": "a oneway call",
}
"""What can be measured, by name; ``benchmarks.driven`` has the calls."""

LOOPS = ("uvloop", "asyncio")

_PROGRAM = Path(__file__).with_name("driven.py")
_ANSWER_WITHIN = 90.0  # seconds
_END_WITHIN = 5.0


class FailedError(Exception):
    """A checkout could not be measured; the text says which and why."""


@dataclass(frozen=True)
class Checkout:
    """Where a seqrpc is, and in which environment it is to run."""

    name: str
    path: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Checkout:
        """Return what ``[NAME=]PATH[:VARIABLE=VALUE...]`` says.

        Raises:
            argparse.ArgumentTypeError: it does not say that, or there is no seqrpc.
        """
        path, *variables = text.split(":")
        named = re.match(r"([\w.+-]+)=(?=.)", path)
        path = os.path.abspath(path[named.end() :] if named else path)
        if not os.path.isfile(os.path.join(path, "seqrpc", "__init__.py")):
            raise argparse.ArgumentTypeError(f"{text!r}: there is no seqrpc/__init__.py in {path}")
        if wrong := [variable for variable in variables if not re.match(r"\w+=", variable)]:
            raise argparse.ArgumentTypeError(f"{text!r}: {wrong[0]!r} is not VARIABLE=VALUE")
        name = named[1] if named else ":".join([os.path.basename(path) or path, *variables])
        return cls(name, path, dict(variable.split("=", 1) for variable in variables))

    def pure(self) -> Checkout:
        """Return the same without its native part."""
        return Checkout(f"{self.name} (pure)", self.path, {**self.environment, "SEQRPC_PURE": "1"})

    def revision(self) -> str:
        """Return which commit it is, as git describes it, or "" if git does not know it."""
        command = ["git", "-C", self.path, "describe", "--always", "--dirty", "--exclude=*"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()


class Process:
    """The process that drives a checkout, which has its socket in a directory that is made here. Use it in ``with``."""

    def __init__(self, checkout: Checkout, directory: Path, loop: str, uid: int | None) -> None:
        self.checkout = checkout
        self._log = directory.with_suffix(".log")
        directory.mkdir()
        if uid is not None:
            os.chown(directory, uid, uid)
        arguments = [checkout.path, str(directory), loop, "" if uid is None else str(uid)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_PROGRAM), *arguments],
                env={**os.environ, **checkout.environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.about: dict[str, Any] = {}
        """What it says of itself, once it is there: version, twin, reason, loop."""

    def ask(self, **command: Any) -> dict[str, Any]:
        """Have it do something, and return its answer.

        Raises:
            FailedError: it could not.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _ANSWER_WITHIN)[0]:
            raise FailedError(f"{self.checkout.name} did not answer within {_ANSWER_WITHIN:g} s")
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace").splitlines()
            raise FailedError(f"{self.checkout.name} ended: {said[-1] if said else 'without a word'}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise FailedError(f"{self.checkout.name}: {answer['failed']}")
        return answer

    def __enter__(self) -> Self:
        try:
            self.about = self._hear()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Summary:
    """A kind of call in one checkout: microseconds of processor time a call, both sides, in each round."""

    rounds: list[float]
    first: list[float]
    """Those of the first checkout in the same rounds."""

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def ratio(self) -> float:
        """The ratio of medians, to the first checkout."""
        return self.median / statistics.median(self.first)

    @property
    def round_ratios(self) -> list[float]:
        """The ratio in each round."""
        return [mine / first for mine, first in zip(self.rounds, self.first, strict=True)]

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "median": self.median,
            "low": min(self.rounds),
            "high": max(self.rounds),
            "rounds": self.rounds,
            "ratio": self.ratio,
            "ratio_of_lowest": min(self.rounds) / min(self.first),
            "median_of_ratios": statistics.median(self.round_ratios),
            "low_ratio": min(self.round_ratios),
            "high_ratio": max(self.round_ratios),
        }


@dataclass
class Measured:
    """What was measured, by kind and name of the checkout, and what it is of."""

    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    kinds: dict[str, dict[str, Summary]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "machine": machine(),
            "python": platform.python_version(),
            "checkouts": self.about,
            "kinds": {
                kind: {name: summary.as_json() for name, summary in of_kind.items()}
                for kind, of_kind in self.kinds.items()
            },
        }

    def heading(self) -> str:
        """Return what the figures are of, as text."""
        where = machine()
        lines = [f"Python {platform.python_version()}, {where['system']}, {where['cpus']} CPUs, {where['processor']}"]
        for name, about in self.about.items():
            reason = f" ({about['reason']})" if about["reason"] else ""
            user = "" if about["uid"] is None else f", as user {about['uid']}"
            what = " ".join(filter(None, ("seqrpc", about["version"], about["revision"])))
            lines.append(f"{name}: {what}, {about['twin']}{reason}, on {about['loop']}{user}")
        return "\n".join(lines)

    def table(self, kind: str) -> str:
        """Return the figures of a kind as text."""
        titles = ("median", "lowest", "highest", "ratio", "of lowest", "of rounds", "lowest", "highest")
        lines = [f"\n{kind}: {KINDS[kind]}"]
        lines.append(f"{'  µs of processor time, both sides':<36}" + "".join(f"{title:>10}" for title in titles))
        for name, summary in self.kinds[kind].items():
            told = summary.as_json()
            times = "".join(f"{told[key]:>10.2f}" for key in ("median", "low", "high"))
            keys = ("ratio", "ratio_of_lowest", "median_of_ratios", "low_ratio", "high_ratio")
            lines.append(f"    {name:<32}{times}" + "".join(f"{told[key]:>10.3f}" for key in keys))
        return "\n".join(lines)


@dataclass(frozen=True)
class Settings:
    """How it is measured."""

    rounds: int = 5
    seconds: float = 0.3
    """Of processor time, about, that a round of a checkout takes."""
    loop: str = "uvloop"
    uid: int | None = None
    """Whose the processes become, if they do not stay this user's."""


def measure(
    checkouts: Sequence[Checkout], kinds: Iterable[str], settings: Settings, tell: Callable[[str], None] = print
) -> Measured:
    """Measure kinds of calls in all checkouts, and tell the heading and each table as it is there.

    Raises:
        FailedError: one of them cannot be measured.
    """
    measured = Measured()
    with tempfile.TemporaryDirectory(prefix="checkouts-") as made, ExitStack() as stack:
        os.chmod(made, 0o711)  # whoever the processes become has a directory in it
        processes = []
        for number, checkout in enumerate(checkouts):
            process = Process(checkout, Path(made, str(number)), settings.loop, settings.uid)
            processes.append(stack.enter_context(process))
            own = {"path": checkout.path, "revision": checkout.revision(), "environment": dict(checkout.environment)}
            measured.about[checkout.name] = {**process.about, **own, "uid": settings.uid}
        tell(measured.heading())
        for kind in kinds:
            measured.kinds[kind] = _measure_kind(processes, kind, settings)
            tell(measured.table(kind))
    return measured


def _measure_kind(processes: Sequence[Process], kind: str, settings: Settings) -> dict[str, Summary]:
    """Return the figures of one kind; who begins a round is another one each time."""
    counts = [process.ask(do="prepare", kind=kind, seconds=settings.seconds)["count"] for process in processes]
    figures: list[list[float]] = [[] for _ in processes]
    for number in range(settings.rounds):
        for turn in range(len(processes)):
            which = (number + turn) % len(processes)
            told = processes[which].ask(do="measure", kind=kind, count=counts[which])
            figures[which].append(told["seconds"] / counts[which] * 1e6)
    return {
        process.checkout.name: Summary(rounds, figures[0]) for process, rounds in zip(processes, figures, strict=True)
    }


def distinct(checkouts: Iterable[Checkout]) -> list[Checkout]:
    """Return the checkouts with a number behind a name that was there before."""
    there: dict[str, Checkout] = {}
    for checkout in checkouts:
        name, number = checkout.name, 2
        while name in there:
            name, number = f"{checkout.name} #{number}", number + 1
        there[name] = replace(checkout, name=name)
    return list(there.values())


def kinds_of(text: str) -> list[str]:
    """Return the kinds that a list with commas names.

    Raises:
        argparse.ArgumentTypeError: there is no such kind.
    """
    kinds = text.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}, but {', '.join(KINDS)}")
    return list(dict.fromkeys(kinds))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkouts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    place = "[NAME=]PATH[:VARIABLE=VALUE...]"
    add("first", metavar="OLD", type=Checkout.parse, help=f"the one that others are set beside: {place}")
    add("others", metavar="NEW", type=Checkout.parse, nargs="+", help="the others, in the same form")
    add("--rounds", metavar="N", type=int, default=5, help="how many (default: %(default)s)")
    add("--seconds", type=float, default=0.3, help="how long a round of each takes, about (default: %(default)s)")
    add("--loop", choices=LOOPS, default="uvloop", help="(default: %(default)s)")
    add("--kinds", metavar="KIND,...", type=kinds_of, default=list(KINDS), help=f"measure these of {', '.join(KINDS)}")
    add("--pure-too", action="store_true", help="measure the last NEW with SEQRPC_PURE=1, too")
    add("--uid", metavar="N", type=int, help="measure as this user; needs root, whom some policies cost less")
    add("--json", metavar="FILE", type=Path, help="write all figures there")
    return parser


def main() -> None:
    """Measure."""
    parser = _options()
    args = parser.parse_args()
    if args.rounds < 1 or args.seconds <= 0:
        parser.error("--rounds and --seconds are positive")
    if args.uid is not None and (args.uid < 0 or os.geteuid() != 0):
        parser.error("--uid is a number that is not negative, and needs root")
    checkouts = [args.first, *args.others]
    if args.pure_too:
        checkouts.append(checkouts[-1].pure())
    settings = Settings(args.rounds, args.seconds, args.loop, args.uid)
    try:
        measured = measure(distinct(checkouts), args.kinds, settings, lambda text: print(text, flush=True))
    except FailedError as exc:
        sys.exit(str(exc))
    if args.json is not None:
        args.json.write_text(json.dumps(measured.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
