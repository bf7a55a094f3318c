"""What was measured, as JSON and as text.

The JSON is one object::

    {
      "machine": {"system": ..., "processor": ..., "cpus": ...},
      "python": "3.11.9",
      "versions": {"seqrpc": "seqrpc 0.1.0 (native)", "grpc.aio": "grpcio 1.70.0", ...},
      "settings": {"rounds": 5, "seconds": 0.3},
      "left_out": {"sdbus": "sdbus is not installed", ...},
      "workloads": {
        "lone": {
          "what": "one caller, one call at a time", "unit": "µs a call", "less_is_better": true,
          "floor": "floor", "beside": null, "reference": "lone",
          "best_other": {"peer": "handwritten.protocol", "seqrpc_is_better_by": 1.2},
          "left_out": {"rpyc": "why it failed in this one"},
          "peers": {
            "seqrpc": {
              "median": 45.1, "low": 44.0, "high": 47.9, "rounds": [45.1, ...],
              "to_seqrpc": 1.0, "to_floor": 1.7
            }, ...
          }
        }, ...
      }
    }

Where a workload has several figures each has an entry: ``memory/idle``, ``memory/in-flight``. Ratios are quotients of
medians: ``to_seqrpc`` of 6.7 says 6.7 times seqrpc's time, or 6.7 times its rate, as the unit is. The divisor is the
figure of seqrpc, or of the floor, in the row that ``reference`` names: most often the same row, and for a ``Buffer``
the upload of as many bytes. A ratio is null where there is nothing to divide by. ``best_other`` is the best of the
others in that row, floors apart; by more than 1 seqrpc is the better one, whatever the unit.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers.registry import FLOORS, OURS, OURS_OTHERWISE
from benchmarks.workloads import Workload


@dataclass
class Report:
    """The figures of a run, as they come, and what belongs with them."""

    rounds: int
    seconds: float
    versions: dict[str, str]
    """Which version of what each peer is."""
    left_out: dict[str, str]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, workload: Workload, figures: dict[str, dict[str, list[float]]], left_out: dict[str, str]) -> None:
        """Take the figures of a workload; those that it is to be set beside must have come before."""
        for row, by_peer in figures.items():
            variant = row.partition("/")[2]
            self.rows[row] = {
                "what": workload.variants.get(variant, workload.what),
                "unit": workload.unit,
                "less_is_better": workload.less_is_better,
                "floor": workload.floor,
                "beside": workload.beside,
                "reference": workload.reference(row),
                "left_out": left_out,
                "peers": {peer: _summary(rounds) for peer, rounds in by_peer.items()},
            }
        for row in figures:
            self._relate(self.rows[row])

    def _relate(self, row: dict[str, Any]) -> None:
        """Add ratios of medians."""
        reference = self.rows.get(row["reference"], row)["peers"]
        for peer in row["peers"].values():
            peer["to_seqrpc"] = _ratio(peer, reference.get(OURS))
            peer["to_floor"] = _ratio(peer, reference.get(row["floor"]))
        others = [name for name in reference if name not in (OURS, *OURS_OTHERWISE, *FLOORS)]
        ours = row["peers"].get(OURS)
        row["best_other"] = None
        if ours and others:
            pick = min if row["less_is_better"] else max
            best = pick(others, key=lambda name: float(reference[name]["median"]))
            ratio = _ratio(ours, reference[best])
            better = 1 / ratio if ratio and row["less_is_better"] else ratio
            row["best_other"] = {"peer": best, "seqrpc_is_better_by": better}

    def as_json(self) -> str:
        """Return all of it."""
        whole = {
            "machine": machine(),
            "python": platform.python_version(),
            "versions": self.versions,
            "settings": {"rounds": self.rounds, "seconds": self.seconds},
            "left_out": self.left_out,
            "workloads": self.rows,
        }
        return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"

    def heading(self) -> str:
        """Return what comes before the tables."""
        where = machine()
        lines = [f"Python {platform.python_version()}, {where['system']}, {where['cpus']} CPUs, {where['processor']}"]
        lines += [", ".join(f"{name}: {version}" for name, version in self.versions.items())]
        lines += [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        lines += [f"{self.rounds} interleaved rounds of about {self.seconds:g} s: median, lowest and highest"]
        return "\n".join(line for line in lines if line)

    def table(self, workload: Workload) -> str:
        """Return the figures of a workload as text."""
        lines = [f"\n{workload.name}: {workload.what}"]
        left_out: dict[str, str] = {}
        for name in workload.rows:
            row = self.rows[name]
            left_out |= row["left_out"]
            lines.append(_columns(row, name))
            lines += [_line(peer, figures, row) for peer, figures in _best_first(row)]
            if row["best_other"]:
                best = row["best_other"]
                lines.append(f"    seqrpc is {best['seqrpc_is_better_by']:.2f} times as good as {best['peer']}")
        lines += [f"  left out: {peer}: {why}" for peer, why in left_out.items()]
        return "\n".join(lines)


def _summary(rounds: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds), "rounds": rounds}


def _ratio(figures: dict[str, Any], to: dict[str, Any] | None) -> float | None:
    return float(figures["median"] / to["median"]) if to and to["median"] else None


def _best_first(row: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(row["peers"].items(), key=lambda item: item[1]["median"], reverse=not row["less_is_better"])


def _columns(row: dict[str, Any], name: str) -> str:
    title = f"  {row['what']}, {row['unit']}" if "/" in name else f"  {row['unit']}"
    beside = "" if row["reference"] == name else f" of {row['reference']}"
    floor = f"{'/ ' + row['floor']:>10}" if row["floor"] else ""
    return f"{title:<34}{'median':>12}{'lowest':>12}{'highest':>12}{'/ seqrpc':>12}{floor}{beside}"


def _line(peer: str, figures: dict[str, Any], row: dict[str, Any]) -> str:
    numbers = "".join(f"{_readable(figures[name]):>12}" for name in ("median", "low", "high"))
    ours = f"{_times(figures['to_seqrpc']):>12}"
    return f"    {peer:<30}{numbers}{ours}" + (f"{_times(figures['to_floor']):>10}" if row["floor"] else "")


def _readable(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.4g}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def machine() -> dict[str, Any]:
    """Return what the figures are from."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    except OSError:
        names = []
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": names[0] if names else processor,
        "cpus": os.cpu_count(),
    }
