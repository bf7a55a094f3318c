"""The report as bar charts: one SVG a workload, drawn by matplotlib, which the extra ``seqrpc[bench]`` brings.

Bars start at zero, the best is on top, and each says its number, so there is no axis to read. The background is left
out and the colours are of middling lightness: the same file is legible on a light page and on a dark one. Nothing in a
file depends on when or where it was drawn, so the same report gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.peers.registry import FLOORS, OURS, OURS_OTHERWISE, PURE
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["seqrpc", "otherwise", "peer", "floor"]

TEXT = "#7a7f87"  # a contrast of 4 against white and against GitHub's dark background alike
SPREAD = "#666e78"
COLOURS: dict[Kind, str] = {"seqrpc": "#3d7fd9", "otherwise": "#86aede", "peer": "#9aa3ad", "floor": "none"}

WIDTH = 7.5  # inches, as all below
BAR = 0.27
ABOVE = 0.62
BELOW = 0.2
NOTE = 0.15
NOTE_CHARACTERS = 125
NAMES = 0.36  # of the width; the rest is for the bars
LONGEST = 0.86  # of the room for bars is what the longest takes; the rest is for its number

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.color": TEXT,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",  # text stays text: it can be searched, and the reader's fonts are as good as ours
    "svg.hashsalt": "seqrpc",  # else ids are random
}
NOTHING_OF_TODAY = {"Date": None, "Creator": None}  # a time, and a version of matplotlib


@dataclasses.dataclass(frozen=True)
class Bar:
    """One of those measured: the median of its rounds, and the lowest and the highest of them."""

    name: str
    median: float
    low: float
    high: float
    kind: Kind = "peer"


@dataclasses.dataclass
class Chart:
    """One workload, or several that are to be seen beside each other; ``notes`` are the lines below the bars."""

    name: str
    title: str
    unit: str
    less_is_better: bool
    bars: list[Bar] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def missing() -> str | None:
    """Why no charts can be drawn here, or None."""
    return None if importlib.util.find_spec("matplotlib") else "matplotlib is not installed"


def draw(report: Mapping[str, Any], directory: str) -> list[str]:
    """Draw what ``benchmarks.report`` describes, into a directory that is made if need be; return the files' paths."""
    os.makedirs(directory, exist_ok=True)
    return [draw_one(chart, os.path.join(directory, f"{chart.name}.svg")) for chart in charts_of(report)]


def charts_of(report: Mapping[str, Any]) -> list[Chart]:
    """Return the charts of a report: what only seqrpc has is put together, or beside what it belongs to."""
    charts: dict[str, Chart] = {}
    workloads: Mapping[str, Mapping[str, Any]] = report["workloads"]
    for figure, entry in workloads.items():
        workload, _, variant = figure.partition("/")
        together = workload if set(entry["peers"]) <= {OURS, PURE} else figure
        place = entry["beside"] if entry["beside"] in workloads else together
        if place not in charts:
            title = f"{WORKLOADS[workload].what}: {entry['what']}" if place == figure and variant else ""
            title = title or WORKLOADS[place].what
            charts[place] = Chart(
                place.replace("/", "-"), title[0].upper() + title[1:], entry["unit"], entry["less_is_better"]
            )
        which = "" if figure == place else f", {variant or workload}"
        charts[place].bars += bars_of(entry["peers"], which)
    for chart in charts.values():
        chart.notes = notes_of(report, {bar.name for bar in chart.bars})
    return [chart for chart in charts.values() if chart.bars]


def bars_of(peers: Mapping[str, Mapping[str, Any]], which: str) -> list[Bar]:
    """Return the bars of one workload; ``which`` is added to the names, where the chart is of several."""
    bars = []
    for name, figures in peers.items():
        kind: Kind = "otherwise" if name in OURS_OTHERWISE else "floor" if name in FLOORS else "peer"
        kind = "seqrpc" if name == OURS else kind
        bars.append(Bar(name + which, figures["median"], figures["low"], figures["high"], kind))
    return bars


def notes_of(report: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """Return what the numbers depend on: the versions of those in the chart, the machine, the rounds."""
    versions = sorted({version for name, version in report["versions"].items() if name in names})
    machine = [str(value) for value in report["machine"].values() if isinstance(value, str)]
    where = [f"Python {report['python']}", *versions, *machine, f"{report['machine']['cpus']} CPUs"]
    rounds = f"medians of {report['settings']['rounds']} interleaved rounds; lines from the lowest to the highest"
    return textwrap.wrap(f"{', '.join(where)}; {rounds}", NOTE_CHARACTERS)


def draw_one(chart: Chart, path: str) -> str:
    """Draw a chart as high as its bars need, and return the path."""
    import matplotlib as mpl  # noqa: PLC0415 - the rest of the benchmark runs without it
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    bars = sorted(chart.bars, key=lambda bar: (bar.median if chart.less_is_better else -bar.median, bar.name))
    below = BELOW + NOTE * len(chart.notes)
    height = ABOVE + BAR * len(bars) + below
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever this user's matplotlibrc says
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height))
        room = (NAMES, below / height, 1 - NAMES, BAR * len(bars) / height)
        draw_bars(figure.add_axes(room), bars)
        figure.text(0.01, 1 - 0.24 / height, chart.title, fontsize=10.5, fontweight="bold")
        figure.text(
            0.01, 1 - 0.44 / height, f"{chart.unit}, {'less' if chart.less_is_better else 'more'} is better", fontsize=9
        )
        figure.text(0.01, 0.08 / height, "\n".join(chart.notes), fontsize=8, va="bottom")
        figure.savefig(path, format="svg", transparent=True, metadata=NOTHING_OF_TODAY)
    return path


def draw_bars(axes: Axes, bars: Sequence[Bar]) -> None:
    """Draw the bars from top to bottom, each with a line from its lowest to its highest; the floors' are hatched."""
    axes.set_axis_off()
    end = max(bar.high for bar in bars) / LONGEST or 1.0
    axes.set_xlim(0, end)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    for row, bar in enumerate(bars):
        floor = bar.kind == "floor"
        axes.barh(
            row, bar.median, 0.66, color=COLOURS[bar.kind], edgecolor=TEXT, linewidth=0.8 if floor else 0.0,
            hatch="////" if floor else "",
        )  # fmt: skip
        axes.plot([bar.low, bar.high], [row, row], color=SPREAD, linewidth=1.6, solid_capstyle="butt")
        weight = "bold" if bar.kind in ("seqrpc", "otherwise") else "normal"
        axes.text(-0.01 * end, row, bar.name, ha="right", va="center", fontweight=weight)
        axes.text(max(bar.median, bar.high) + 0.01 * end, row, number(bar.median), va="center", fontweight=weight)


def number(value: float) -> str:
    """Three digits that count, and thousands in groups: ``0.123``, ``12.3``, ``123``, ``12,345``."""
    digits = next((digits for digits, least in ((0, 100), (1, 10), (2, 1)) if abs(value) >= least), 3)
    return f"{value:,.{digits}f}"
