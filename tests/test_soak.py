"""The soak script runs, and tells what is not as it should be."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak import MOST_GROWTH, State, faults

ROOT = Path(__file__).parent.parent
WITHIN = 120.0  # seconds: far more than it takes

FIRST = State(resident=1_000_000, descriptors=17, tasks=3, connections=1)


def test_a_short_soak_is_reported(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.05", "--clients", "6", "--json", str(report)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    told = json.loads(report.read_text())

    assert done.stderr == ""
    assert done.returncode == bool(told["faults"])  # what is started late may be more than 5 %, so soon
    assert [what for what in told["faults"] if not what.startswith("the memory")] == []
    assert told["first"]["tasks"] == told["last"]["tasks"]
    assert f"\n{told['killed']} times " in done.stdout


@pytest.mark.parametrize(
    "last, outcomes, said",
    [
        (FIRST, {"add: ok": 5, "fail: Internal": 7}, []),
        (replace(FIRST, resident=int(1_000_000 * (1 + MOST_GROWTH))), {}, []),
        (replace(FIRST, resident=1_060_000), {}, ["the memory grew by 6.0%"]),
        (replace(FIRST, tasks=4), {}, ["tasks were 3 and are 4"]),
        (replace(FIRST, descriptors=16), {}, ["descriptors were 17 and are 16"]),
        (FIRST, {"UNEXPECTED add: x": 2}, ["2 times UNEXPECTED add: x"]),
    ],
)
def test_it_says_what_is_wrong(last: State, outcomes: dict[str, int], said: list[str]) -> None:
    assert faults(FIRST, last, collections.Counter(outcomes)) == said
