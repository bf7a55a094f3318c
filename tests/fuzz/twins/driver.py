"""Runs the same scripts on two twins, and says where they differ."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fuzz.twins.making import make

ROOT: Final = Path(__file__).parents[3]

_AT_ONCE: Final = 16
"""Cases that are run between two comparisons."""

_AGAIN: Final = 3
"""Times that what differs is run again; it is chance if it then comes to the same, or to something else on one side."""

_SURE: Final = 12
"""Times that it is run before it counts as a difference: chance goes the same way three times now and then."""


class Worker:
    """A process with one of the twins.

    Args:
        pure: whether it is to run the pure twin.
        tree: where its seqrpc is; by default where this one's is.
    """

    def __init__(self, *, pure: bool, tree: Path | None = None) -> None:
        """Start it."""
        environment = dict(os.environ, PYTHONPATH=f"{ROOT / 'tests'}:{tree or ROOT}", PYTHONHASHSEED="0")
        if tree is None and not (ROOT / "seqrpc").exists():  # an installed package is tested
            environment["PYTHONPATH"] = str(ROOT / "tests")
        environment.pop("SEQRPC_PURE", None)
        if pure:
            environment["SEQRPC_PURE"] = "1"
        self._environment = environment
        self._process: subprocess.Popen[bytes]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fuzz.twins.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment, cwd="/",
        )  # fmt: skip

    def ask(self, command: Mapping[str, Any]) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # reading tells how it ended
            pass

    def answer(self) -> bytes:
        """Return the answer; of a process that died how it did. Then another one is started."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.endswith(b"\n"):
            return line[:-1]
        self.close()
        status = self._process.returncode
        self._start()
        return json.dumps({"died": status}).encode()

    def run(self, script: Mapping[str, Any]) -> Any:
        """Run a script and return its report."""
        self.ask({"script": script})
        return json.loads(self.answer())

    def twin(self) -> dict[str, str]:
        """Return which twin it runs."""
        self.ask({"twin": True})
        found: dict[str, str] = json.loads(self.answer())
        return found

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # of what is not written yet
                pipe.close()
        self._process.wait()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """End it."""
        self.close()


@dataclass
class Figures:
    """What was done."""

    cases: int = 0
    packets: int = 0
    report_bytes: int = 0
    processor_seconds: float = 0.0
    differences: list[str] = field(default_factory=list)
    unsteady: int = 0

    def __str__(self) -> str:
        """Return all of it in a line."""
        return (
            f"{self.cases} cases, {self.packets} packets, {self.report_bytes >> 20} MiB compared, "
            f"{self.processor_seconds:.0f} s of processor time, "
            f"{len(self.differences)} differences, {self.unsteady} unsteady"
        )


class Twins:
    """Two workers that run the same.

    Args:
        tree: where the second has its seqrpc, if that is another.
        same: both are pure: what they then differ in is by chance.
        loose: the order of what happens in one step does not count.
    """

    def __init__(self, *, tree: Path | None = None, same: bool = False, loose: bool = False) -> None:
        """Start both."""
        self._loose = loose
        with ExitStack() as stack:
            self.pure = stack.enter_context(Worker(pure=True))
            self.native = stack.enter_context(Worker(pure=same, tree=tree))
            self._ending = stack.pop_all()
        self.figures = Figures()

    def close(self) -> None:
        """End both."""
        self._ending.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """End both."""
        self.close()

    def both(self, command: Mapping[str, Any]) -> tuple[Any, Any]:
        """Have both do something at once."""
        for worker in (self.pure, self.native):
            worker.ask(command)
        return json.loads(self.pure.answer()), json.loads(self.native.answer())

    def run(self, numbers: list[int], seed: int, profile: str = "") -> Iterator[tuple[int, Any, Any]]:
        """Run cases; yield the numbers of those that came to something else on each side, and both reports."""
        answers = self.both({"run": numbers, "seed": seed, "profile": profile})
        self.figures.cases += len(numbers)
        if any("died" in answer for answer in answers):
            yield from self._run_singly(numbers, seed, profile)
            return
        self.figures.packets += answers[0]["packets"]
        self.figures.report_bytes += answers[0]["bytes"]
        self.figures.processor_seconds += answers[0]["seconds"] + answers[1]["seconds"]
        for place, number in enumerate(numbers):
            digests = {answer["digests"][place] for answer in answers}
            if len(digests) > 1 or _left_more(*(answer["uncollected"][place] for answer in answers)):
                reports = self.both({"tell": place})
                if not self.are_same(*reports):
                    yield number, *reports

    def _run_singly(self, numbers: list[int], seed: int, profile: str) -> Iterator[tuple[int, Any, Any]]:
        for number in numbers:
            reports = self.both({"script": make(number, seed, profile)})
            if not self.are_same(*reports):
                yield number, *reports

    def are_same(self, one: Any, other: Any) -> bool:
        """Return whether reports of both twins tell the same: the second may leave less to collect."""
        if "diary" not in one or "diary" not in other:
            return bool(one == other)
        if _left_more(one["uncollected"], other["uncollected"]):
            return False
        one, other = {**one, "uncollected": {}}, {**other, "uncollected": {}}
        if self._loose:
            one, other = in_any_order(one), in_any_order(other)
        return bool(one == other)

    def differs(self, script: Mapping[str, Any], times: int = _AGAIN) -> bool:
        """Return whether a script comes to something else on each side, each time, and to the same on each of them."""
        reports = [self.both({"script": script}) for _ in range(times + 1)][1:]  # what the first one loads is loaded
        ones, others = [one for one, _other in reports], [other for _one, other in reports]
        if self.are_same(ones[0], others[0]):
            return False
        return all(one == ones[0] for one in ones) and all(other == others[0] for other in others)

    def shrink(self, script: dict[str, Any]) -> dict[str, Any]:
        """Return the shortest script found that still shows a difference."""
        while (smaller := self._shrunk(script)) is not None:
            script = smaller
        return script

    def _shrunk(self, script: dict[str, Any]) -> dict[str, Any] | None:
        for candidate in _smaller(script):
            if self.differs(candidate, 2):
                return candidate
        return None


_PLAIN: Final[Mapping[str, Any]] = {
    "debug": False, "factory": "", "interceptors": 0, "ended": False, "senders": False, "descriptors": None, "room": 0,
    "allow": "default", "collects": False, "traced": False, "ends": "", "loop": "asyncio",
}  # fmt: skip
_KEPT: Final = ("close_timeout", "drain_timeout", "lifespan_timeout", "stall_timeout", "low_water_bytes")


def _smaller(script: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield scripts with something left out, the most first."""
    steps = script["steps"]
    size = len(steps) // 2
    while size:
        for start in range(0, len(steps), size):
            yield {**script, "steps": steps[:start] + steps[start + size :]}
        size //= 2
    for number, step in enumerate(steps):
        for smaller in _smaller_steps(step):
            yield {**script, "steps": [*steps[:number], smaller, *steps[number + 1 :]]}
    for name, value in _PLAIN.items():
        if script.get(name, value) != value:
            yield {**script, name: value}
    for name in script["limits"]:
        if name not in _KEPT:
            yield {**script, "limits": {each: value for each, value in script["limits"].items() if each != name}}


def _smaller_steps(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    ops = step["do"]
    if "turns" in step:
        yield {"do": ops}
    for place, op in enumerate(ops):
        before, after = ops[:place], ops[place + 1 :]
        if len(ops) > 1:
            yield {**step, "do": [*before, *after]}
        if op[0] == "send" and len(op[2]) > 1:
            half = len(op[2]) // 2
            singly = [op[2][:at] + op[2][at + 1 :] for at in range(len(op[2]))]
            for packets in (op[2][:half], op[2][half:], *singly):
                yield {**step, "do": [*before, [*op[:2], packets, *op[3:]], *after]}


def difference(one: Any, other: Any, most: int = 40) -> list[str]:
    """Return the lines in which two reports differ, with what is around them."""
    return list(difflib.unified_diff(_lines(one), _lines(other), "pure", "native", lineterm="", n=4))[:most]


def _left_more(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Return whether the second left more to the garbage collector than the first."""
    return any(count > one.get(name, 0) for name, count in other.items())


def in_any_order(report: Any) -> Any:
    """Return a report in which what happened in one step stands in an order that says nothing."""
    steps: list[list[str]] = [[]]
    for line in report["diary"]:
        if line[0] == "step":
            steps.append([])
        steps[-1].append(json.dumps(line))
    return {**report, "diary": [sorted(step) for step in steps], "log": sorted(map(json.dumps, report["log"]))}


def _lines(report: Any) -> list[str]:
    found = []
    for part, content in report.items():
        items = content if isinstance(content, list) else [content]
        found += [f"{part}: {json.dumps(item, ensure_ascii=False)[:1500]}" for item in items]
    return found


def hunt(
    twins: Twins, *, seed: int, first: int = 0, seconds: float = float("inf"), cases: int, most: int, profile: str = "",
    into: Path, every: float = 60.0, shrinks: bool = True,
) -> Figures:  # fmt: skip
    """Run case after case, and write down what differs; a line of figures now and then.

    Args:
        twins: run them.
        seed: of all cases.
        first: the number of the first.
        seconds: how long.
        cases: how many at most.
        most: differences after which it ends.
        profile: what scripts mostly have.
        into: a directory for what differs.
        every: seconds between lines of figures.
        shrinks: whether scripts are shrunk.
    """
    began = told = time.monotonic()
    number, figures = first, twins.figures
    while time.monotonic() - began < seconds and number - first < cases:
        numbers = list(range(number, min(number + _AT_ONCE, first + cases)))
        number = numbers[-1] + 1
        for found, one, other in twins.run(numbers, seed, profile):
            _tell(twins, (found, seed, profile), (one, other), into, shrinks=shrinks)
            if len(figures.differences) >= most:
                return figures
        if time.monotonic() - told >= every:
            told = time.monotonic()
            print(f"{told - began:.0f} s: {figures}; next case {number}", flush=True)
    return figures


def _tell(twins: Twins, case: tuple[int, int, str], reports: tuple[Any, Any], into: Path, *, shrinks: bool) -> None:
    """Write a difference into a file, shrunk if it shows itself each time."""
    number, seed, profile = case
    script = make(number, seed, profile)
    steady = twins.differs(script) and twins.differs(script, _SURE)
    name = f"{'difference' if steady else 'unsteady'}-{seed}-{number}{'-' + profile if profile else ''}.json"
    if steady:
        twins.figures.differences.append(name)
        shrunk = twins.shrink(script) if shrinks else script
        script = shrunk if twins.differs(shrunk, _SURE) else script  # what was left out last may have left chance
        reports = twins.both({"script": script})
    else:
        twins.figures.unsteady += 1
    into.mkdir(parents=True, exist_ok=True)
    lines = difference(*reports)
    (into / name).write_text(json.dumps({"script": script, "differs": lines}, indent=1, ensure_ascii=False) + "\n")
    print(f"case {number} of seed {seed} differs ({into / name}):", *lines[:14], sep="\n  ", flush=True)
