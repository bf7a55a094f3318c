"""What a measurement gave, for people and for programs."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from seqrpc.cli.bars import WIDTH, bar, rows, spelled_duration
from seqrpc.cli.histogram import Histogram
from seqrpc.cli.outcomes import Outcomes
from seqrpc.cli.screen import Screen, Styled, columns

_PERCENTS: Final = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9}

SERVICE_TIME: Final = "service time"
SINCE_DUE: Final = "since due"

_MEANING: Final = {
    SERVICE_TIME: "service times: from when a call was sent, which is not before the last one was answered",
    SINCE_DUE: "latencies: from when a call was due, whether it could be sent then or not",
}

_IN_VAIN: Final = "no call succeeded: for how long they had waited when they were given up"


class Report(NamedTuple):
    """What is told."""

    method: str
    address: str
    connections: int
    in_flight: int
    """Of one connection."""

    rate: float | None
    """That was asked for; None is a closed loop."""

    outcomes: Outcomes
    processor: float
    """How much of a processor this process used."""

    ended: str = "done"
    """``done``, ``interrupted`` or ``lost``."""

    @property
    def kind(self) -> str:
        """What the latencies are."""
        return SERVICE_TIME if self.rate is None else SINCE_DUE

    def as_data(self) -> dict[str, Any]:
        """Return it as programs get it."""
        outcomes = self.outcomes
        return {
            "method": self.method,
            "address": self.address,
            "mode": "closed loop" if self.rate is None else "rate",
            "connections": self.connections,
            "in_flight": self.in_flight,
            "asked_rate": self.rate,
            "ended": self.ended,
            "seconds": round(outcomes.seconds, 6),
            "calls": outcomes.calls,
            "succeeded": outcomes.succeeded,
            "errors": dict(outcomes.errors),
            "unanswered": outcomes.unanswered,
            "unsent": outcomes.unsent,
            "rate": round(outcomes.rate, 3),
            "processor": round(self.processor, 3),
            "latency_is": self.kind,
            "latency_ns": _numbers(outcomes.latencies) or None,
            "sent_late_ns": _numbers(outcomes.lateness) or None,
            "histogram_ns": [[*bucket] for bucket in outcomes.latencies.buckets()],
        }

    def write(self, screen: Screen) -> None:
        """Write it: for people as tables and bars, else as one line of JSON."""
        if not screen.is_for_people:
            screen.value(self.as_data())
            return
        self._write_heading(screen)
        if self.outcomes.latencies.count:
            self._write_latencies(screen)
        if self.outcomes.errors:
            screen.line("")
            screen.line("errors")
            for code, number in columns([(code, f"{count:,}") for code, count in self.outcomes.errors.items()]):
                screen.line("  ", Styled(code, "bad"), "  ", number)

    def _write_heading(self, screen: Screen) -> None:
        outcomes = self.outcomes
        how = "closed loop" if self.rate is None else f"{self.rate:,g} calls/s asked for"
        over = f"{self.connections:,} connection{'s' if self.connections > 1 else ''}"
        most = "" if self.rate is None else "at most "
        screen.line(Styled(self.method, "name"), f": {how}, {over}, {most}{self.in_flight:,} in flight on each")
        errors = f", {outcomes.failed:,} of them errors" if outcomes.failed else ""
        screen.line(
            f"{outcomes.calls:,} calls in {outcomes.seconds:.2f} s{errors}: ",
            Styled(f"{outcomes.rate:,.0f} calls/s", "name"),
            f"; this process used {self.processor:.0%} of a processor",
        )
        if self.ended != "done":
            screen.line(f"ended early: {'Ctrl-C' if self.ended == 'interrupted' else 'the connection was lost'}")
        if outcomes.unanswered or outcomes.unsent:
            screen.line(
                f"not answered when it ended: {outcomes.unanswered:,}; due, and not sent: {outcomes.unsent:,}."
                " They count below with the time that they had waited"
            )

    def _write_latencies(self, screen: Screen) -> None:
        latencies = self.outcomes.latencies
        screen.line("")
        screen.line(_MEANING[self.kind] if self.outcomes.succeeded else _IN_VAIN)
        for name, value in columns([(name, spelled_duration(value)) for name, value in _numbers(latencies).items()]):
            screen.line("  ", Styled(name, "faint"), "  ", value)
        if self.rate is not None:
            late = self.outcomes.lateness
            typical, long = spelled_duration(late.percentile(50)), spelled_duration(late.percentile(99))
            screen.line(f"  of this, calls waited to be sent: p50 {typical}, p99 {long}")
        screen.line("")
        found = rows(latencies)
        most = max(row.number for row in found)
        cells = [(spelled_duration(row.low), f"{row.number:,}") for row in found]
        wide, long_count = max(len(low) for low, _ in cells), max(len(count) for _, count in cells)
        for row, (low, count) in zip(found, cells, strict=True):
            drawn = bar(row.number, most).ljust(WIDTH)
            screen.line(f"  ≥ {low.rjust(wide)}  ", Styled(drawn, "type"), f"  {count.rjust(long_count)}")


def _numbers(histogram: Histogram) -> dict[str, int]:
    """Return the numbers that tell of durations, in nanoseconds; there are none of no durations."""
    if not histogram.count:
        return {}
    return {
        "min": histogram.shortest,
        "mean": round(histogram.mean),
        **{name: histogram.percentile(percent) for name, percent in _PERCENTS.items()},
        "max": histogram.longest,
    }
