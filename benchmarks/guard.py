"""The guard: what a call costs in things that can be counted, beside what was recorded: ``python -m benchmarks.guard``.

It counts, for one call of several kinds and both sides of it, the interpreter's instructions, the calls of functions
and the system calls. Unlike times these are the same in every run, under any load. It fails if one is more than 10 %
over its record in ``recorded.json``, and says if one is so much under it that the record can be lowered: ``--record``
writes the figures of the Python that it runs on. A Python of which nothing is recorded is not guarded. Both twins have
records of their own: ``SEQRPC_PURE=1`` in the environment guards the pure one where there is a native one. What C does
is none of the interpreter's instructions, and so a native call is guarded against what is left to Python.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.guarded import KINDS
from benchmarks.traced import COUNTING, CannotCountError, Figures, checked, grouped, machine_instructions, system_calls
from seqrpc.twin import TWIN

RECORDED = Path(__file__).with_name("recorded.json")
TOLERATED = 0.1
"""How far over the record is too far."""

LEAST = 0.02
"""How much is too much all the same, of what is recorded as next to nothing."""

LOOPS = ("asyncio", "uvloop")

MACHINE_INSTRUCTIONS = "machine instructions"
"""Are guarded if they were recorded. They are the same in every run, but not with another build of the interpreter."""


@dataclass
class Counted:
    """What was counted, and what is not guarded but tells where it comes from."""

    figures: Figures = field(default_factory=dict)
    where: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """By kind, heading and function or system call."""
    left_out: list[str] = field(default_factory=list)

    def add(self, kind: str, figures: dict[str, float], heading: str, where: dict[str, float]) -> None:
        """Add figures of a kind of calls."""
        self.figures.setdefault(kind, {}).update(figures)
        if where:
            self.where.setdefault(kind, {})[heading] = where


def count(kinds: Sequence[str], program: Sequence[str] = COUNTING) -> Counted:
    """Count all of these kinds of calls."""
    counted = Counted()
    for what in ("instructions", "functions"):
        told = json.loads(checked([sys.executable, *program, what, "asyncio", ",".join(kinds)]))
        for kind, of_kind in told.items():
            counted.add(kind, of_kind["figures"], what, of_kind["where"])
    for loop in LOOPS:
        try:
            calls = system_calls(kinds, loop, program)
        except CannotCountError as exc:
            counted.left_out.append(f"system calls: {exc}")
            break
        for kind, names in calls.items():
            groups = {f"{loop} {group}": number for group, number in grouped(names).items()}
            counted.add(kind, groups, f"system calls on {loop}", names)
    return counted


def add_machine_instructions(counted: Counted, kinds: Sequence[str]) -> None:
    """Count these, too, if they can be counted."""
    try:
        for kind in kinds:
            counted.figures[kind][MACHINE_INSTRUCTIONS] = machine_instructions(kind)
    except CannotCountError as exc:
        counted.left_out.append(f"{MACHINE_INSTRUCTIONS}: {exc}")


@dataclass(frozen=True)
class Finding:
    """A figure beside its record."""

    kind: str
    name: str
    figure: float
    recorded: float | None

    @property
    def bound(self) -> float:
        """The most that it may be."""
        return 0.0 if self.recorded is None else max(self.recorded * (1 + TOLERATED), self.recorded + LEAST)

    @property
    def worse(self) -> bool:
        """Whether it is over its bound, or has none."""
        return self.figure > self.bound or self.recorded is None

    @property
    def better(self) -> bool:
        """Whether the record can be lowered."""
        return self.recorded is not None and self.figure < min(self.recorded * (1 - TOLERATED), self.recorded - LEAST)

    def __str__(self) -> str:
        what = f"{self.kind} ({KINDS[self.kind].what}): {self.name}: {self.figure:,.10g}"
        if self.recorded is None:
            return f"{what}, of which nothing is recorded"
        share = f" ({self.figure / self.recorded - 1:+.0%})" if self.recorded else ""
        return f"{what}, recorded {self.recorded:,.10g}, bound {self.bound:,.10g}{share}"


def compare(figures: Figures, recorded: Figures) -> list[Finding]:
    """Return each figure beside its record."""
    findings = [
        Finding(kind, name, figure, recorded.get(kind, {}).get(name))
        for kind, of_kind in figures.items()
        for name, figure in of_kind.items()
    ]
    return [found for found in findings if found.recorded is not None or found.name != MACHINE_INSTRUCTIONS]


def versions() -> str:
    """Return of what the figures are."""
    packages = [f"{name} {version(name)}" for name in ("msgpack", "msgspec", "uvloop")]
    return ", ".join([f"Python {platform.python_version()}", TWIN, *packages])


def recorded_as(python: str, twin: str) -> str:
    """Return under which name the figures of a Python and a twin are recorded."""
    return python if twin == "pure" else f"{python} {twin}"


def record(file: Path, name: str, figures: Figures) -> None:
    """Write figures of a Python and a twin into the file, which keeps what else there is."""
    everything = json.loads(file.read_text()) if file.exists() else {}
    before = everything.get(name, {}).get("figures", {})
    kept = {kind: figures.get(kind) or before[kind] for kind in KINDS if kind in figures or kind in before}
    everything[name] = {"of": versions(), "figures": kept}
    file.write_text(json.dumps(dict(sorted(everything.items())), indent=1) + "\n")


def table(figures: Figures) -> str:
    """Return the figures for reading."""
    names = list(next(iter(figures.values())))
    lines = ["".join([" " * 24, *(f"{kind:>12}" for kind in figures)])]
    lines += ["".join([f"{name:<24}", *(f"{of[name]:>12,.10g}" for of in figures.values())]) for name in names]
    return "\n".join(lines)


def judge(counted: Counted, of_python: dict[str, Any]) -> bool:
    """Say what is better or worse than recorded; return whether nothing is worse."""
    findings = compare(counted.figures, of_python["figures"])
    worse = [finding for finding in findings if finding.worse]
    better = [finding for finding in findings if finding.better]
    for finding in better:
        print(f"BETTER: {finding}")
    if better:
        print("these records can be lowered: python -m benchmarks.guard --record")
    for finding in worse:
        print(f"FAILED: {finding}")
    if worse:
        print(f"the record is of {of_python['of']}; --where says what each call consists of")
    else:
        print(f"{len(findings)} figures are within {TOLERATED:.0%} of those of {of_python['of']}")
    return not worse


def same_in_all(kinds: Sequence[str], first: Figures, times: int) -> bool:
    """Count again and again; say which figures were not the same, and return whether there were none."""
    found = [first, *(count(kinds).figures for _ in range(times - 1))]
    differ = False
    for kind, of_kind in first.items():
        for name in of_kind:
            values = [figures[kind].get(name, of_kind[name]) for figures in found]
            if len(set(values)) > 1:
                differ = True
                print(f"DIFFERS: {kind}: {name}: {', '.join(f'{value:,.10g}' for value in values)}")
    if not differ:
        print(f"all {sum(map(len, first.values()))} figures were the same {times} times")
    return not differ


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--record", action="store_true", help="record the figures of this Python and twin, instead of comparing them")
    add("--kinds", metavar="KIND,...", default=",".join(KINDS), help=f"count these (default: {','.join(KINDS)})")
    add("--where", action="store_true", help="say also which functions and system calls they are")
    add("--times", metavar="N", type=int, default=1, help="count so often, and fail where figures differ")
    add("--machine-instructions", action="store_true", help="count these, too, with valgrind: 15 seconds a kind")
    add("--recorded", metavar="FILE", type=Path, default=RECORDED, help="the records (default: those beside this file)")
    return parser


def _print_where(counted: Counted) -> None:
    for kind, headings in counted.where.items():
        for heading, where in headings.items():
            print(f"\n{kind}: {heading}")
            print("\n".join(f"  {number:>10,.10g}  {name}" for name, number in where.items()))


def main() -> None:
    """Count, and compare or record."""
    parser = _options()
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"there is no {', '.join(unknown)}, but {', '.join(KINDS)}")
    name = recorded_as(f"{sys.version_info.major}.{sys.version_info.minor}", TWIN)
    counted = count(kinds)
    if args.machine_instructions:
        add_machine_instructions(counted, kinds)
    print(f"a call on {versions()}\n{table(counted.figures)}")
    for text in counted.left_out:
        print(f"not counted: {text}")
    if args.where:
        _print_where(counted)
    if args.times > 1 and not same_in_all(kinds, counted.figures, args.times):
        sys.exit(1)
    if args.record:
        if counted.left_out:
            sys.exit("nothing is recorded, since not everything could be counted")
        record(args.recorded, name, counted.figures)
        return
    of_python = json.loads(args.recorded.read_text()).get(name)
    if of_python is None:
        print(f"nothing is recorded of Python {name}, and so it is not guarded")
    elif not judge(counted, of_python):
        sys.exit(1)


if __name__ == "__main__":
    main()
