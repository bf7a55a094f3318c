"""Each benchmark runs, with sizes so small that its figures mean nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WITHIN = 60.0  # seconds: far more than anything here takes

TINY = {
    "calls": ["--rounds", "1", "--calls", "64"],
    "payloads": ["--rounds", "1", "--mib", "0.0625", "0.5", "--large", "2"],
    "streams": ["--rounds", "1", "--items", "300", "--lone", "3"],
}


def test_every_benchmark_is_run_here() -> None:
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__"} == set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_it_runs_and_prints_what_it_measured(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"benchmarks.{name}", *TINY[name]],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    rows = [line for line in done.stdout.splitlines() if re.search(r": +[\d,.]+ .*\(.* to .*\)", line)]

    assert (done.returncode, done.stderr) == (0, "")
    assert len(rows) >= 3
    assert f"python -m benchmarks.{name}" in (ROOT / "benchmarks" / f"{name}.py").read_text()
