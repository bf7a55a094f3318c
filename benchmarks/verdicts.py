"""What a bar is, and how it is judged: ``benchmarks.bars`` measures them."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.report import machine
from seqrpc.twin import TWIN


@dataclass(frozen=True)
class Ratio:
    """One ratio, and the lowest and the highest of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float], to: Sequence[float]) -> Ratio:
        """Return the ratio of one thing's rounds to another's."""
        each = [one / other for one, other in zip(rounds, to, strict=False)]  # one may have failed on the way
        return cls(statistics.median(rounds) / statistics.median(to), min(each), max(each))


@dataclass(frozen=True)
class Bar:
    """One bar; what was measured of it is None where nothing was."""

    number: int
    what: str
    at_least: bool
    bound: float | None
    stretch: float | None = None
    figure: Ratio | None = None
    pure: Ratio | None = None
    """The same of the pure twin, which is bound by bar 5 alone."""
    why: str = ""
    """Why it was not measured."""

    def holds(self, bound: float) -> bool:
        """Return whether what was measured is within a bound."""
        assert self.figure is not None
        return self.figure.median >= bound if self.at_least else self.figure.median <= bound

    @property
    def verdict(self) -> str:
        """Whether it is reached, in a word or two."""
        if self.figure is None:
            return f"not measured: {self.why}"
        if self.bound is None:
            return "has no bound"
        if not self.holds(self.bound):
            return "MISSED"
        return "reached, and its stretch" if self.stretch is not None and self.holds(self.stretch) else "reached"

    def columns(self) -> str:
        """Return its figures and bounds for reading."""
        sign = "≥" if self.at_least else "≤"
        figure = rounds = pure = ""
        if self.figure is not None:
            figure, rounds = f"{self.figure.median:.3f}", f"{self.figure.low:.2f} to {self.figure.high:.2f}"
        if self.pure is not None:
            pure = f"{self.pure.median:.3f}"
        bounds = ["" if bound is None else f"{sign} {bound:.2f}" for bound in (self.bound, self.stretch)]
        return f"{figure:>7}{rounds:>15}{pure:>8}{bounds[0]:>8}{bounds[1]:>9}"


HEADING = f"{'ratio':>7}{'rounds':>15}{'pure':>8}{'bound':>8}{'stretch':>9}"


def table(bars: Sequence[Bar]) -> str:
    """Return the bars as text."""
    width = max(len(bar.what) for bar in bars)
    lines = [f"bar {'':<{width}}{HEADING}"]
    lines += [f"{bar.number:<4}{bar.what:<{width}}{bar.columns()}  {bar.verdict}" for bar in bars]
    return "\n".join(lines)


def as_json(bars: Sequence[Bar]) -> str:
    """Return the bars as JSON."""
    told = [{**asdict(bar), "verdict": bar.verdict} for bar in bars]
    whole = {"machine": machine(), "python": platform.python_version(), "twin": TWIN, "bars": told}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def status(bars: Sequence[Bar]) -> int:
    """Return the exit status."""
    if any(bar.verdict == "MISSED" for bar in bars):
        return 1
    return 2 if any(bar.figure is None for bar in bars) else 0
