"""Calls of all kinds leave no reference, block of memory, object, byte or descriptor behind: what the script says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.footprint import FEW, Footprint, faults, footprint
from benchmarks.leaking import KINDS, Ends, Kind
from benchmarks.leaks import measured

ROOT = Path(__file__).parent.parent.parent
CALLS = max(2_000, int(os.environ.get("SEQRPC_LEAK_CALLS", "10000")) // 5)
"""Of each kind. In fewer, what the first threads of a process leave would weigh too much."""

WITHIN = 1200.0  # seconds
NOTHING = Footprint(0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_calls_of_all_kinds_leave_nothing(loop: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.leaks", "--calls", str(CALLS), "--loop", loop, "--json", str(report)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    found = json.loads(report.read_text())["kinds"]
    assert [each["kind"] for each in found] == list(KINDS)
    assert done.stdout.endswith("nothing is left behind\n")


async def test_what_calls_leave_is_found(socket_path: Path) -> None:
    kept: list[object] = []

    async def keeps(ends: Ends, number: int) -> None:
        kept.append([await ends.proxy.add(number, 1)])

    made, grown = await measured(Kind(keeps), socket_path, 1000)
    assert made == 1000
    assert grown.objects >= 990  # what there was before may go meanwhile
    assert any(what.endswith("objects more") for what in faults(grown, made))


async def test_a_descriptor_that_is_left_is_found(socket_path: Path) -> None:
    before = footprint()
    reader, writer = os.pipe()
    try:
        assert faults(replace(NOTHING, descriptors=footprint().since(before).descriptors), 1) == ["2 descriptors more"]
    finally:
        os.close(reader)
        os.close(writer)
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    "grown, calls, said",
    [
        (NOTHING, 1, []),
        (FEW, 1, []),
        (replace(NOTHING, references=-500, resident=-1), 1, []),
        (replace(NOTHING, blocks=FEW.blocks + 1), 1000, [f"{FEW.blocks + 1} blocks more"]),
        (replace(NOTHING, references=1000, blocks=1000, objects=1000), 1_000_000, []),
        (replace(NOTHING, references=1001), 1_000_000, ["1001 references more"]),
        (replace(NOTHING, descriptors=1), 1_000_000, ["1 descriptors more"]),
    ],
)
def test_a_few_are_no_fault(grown: Footprint, calls: int, said: list[str]) -> None:
    assert faults(grown, calls) == said
