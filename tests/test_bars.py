"""The bars of the native part are judged by their bounds, whatever is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bars import BESIDE, OF_OLD, unpacked
from benchmarks.checkouts import KINDS, FailedError
from benchmarks.floors import Floor
from benchmarks.peers.registry import MODULES
from benchmarks.report import Report
from benchmarks.run import Run
from benchmarks.verdicts import Bar, Ratio, as_json, status, table
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parent.parent
WITHIN = 120.0  # seconds: far more than anything here takes


def bars(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.bars", "--rounds", "2", "--seconds", "0.001", *args],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def ratio(value: float) -> Ratio:
    return Ratio.of([value], [1.0])


@pytest.mark.parametrize(
    "at_least,figure,verdict",
    [
        (False, 0.6, "reached, and its stretch"),
        (False, 0.65, "reached, and its stretch"),
        (False, 0.72, "reached"),
        (False, 0.73, "MISSED"),
        (True, 0.73, "reached"),
        (True, 0.71, "MISSED"),
    ],
)
def test_a_bar_is_reached_within_its_bound(at_least: bool, figure: float, verdict: str) -> None:
    bar = Bar(1, "x", at_least, 0.72, None if at_least else 0.65, ratio(figure), ratio(9.0))

    assert bar.verdict == verdict
    assert re.fullmatch(rf"1 +x +{figure:.3f} .* 9\.000 +[≤≥] 0\.72 .*{verdict}", table([bar]).splitlines()[1])
    assert status([bar]) == (verdict == "MISSED")


def test_a_bar_that_was_not_measured_is_not_reached() -> None:
    missing, missed = Bar(1, "x", True, 1.0, why="no luck"), Bar(2, "y", True, 1.0, figure=ratio(0.9))
    open_one = Bar(1, "z", True, None, figure=ratio(0.1))

    assert missing.verdict == "not measured: no luck"
    assert open_one.verdict == "has no bound"
    assert (status([missing, open_one]), status([missing, missed]), status([open_one])) == (2, 1, 0)
    assert [bar["verdict"] for bar in json.loads(as_json([missing, missed]))["bars"]] == [missing.verdict, "MISSED"]


def test_the_ratio_is_that_of_medians() -> None:
    assert Ratio.of([10.0, 50.0, 20.0], [10.0, 20.0, 40.0]) == Ratio(1.0, 0.5, 2.5)


def report_of(**workloads: dict[str, list[float]]) -> Report:
    report = Report(rounds=2, seconds=0.3, versions={}, left_out={})
    for row, figures in workloads.items():
        report.add(WORKLOADS[row.partition("/")[0]], {row: figures}, {})
    return report


def test_rates_are_to_be_higher_and_times_lower() -> None:
    in_flight, deadline = BESIDE[0], next(bar for bar in BESIDE if bar.row == "features/deadline")
    figures = {"seqrpc": [200.0], "seqrpc.pure": [50.0], "handwritten.protocol": [100.0]}

    rate = in_flight.bar(report_of(**{"in-flight": figures}), {})
    time = deadline.bar(report_of(**{"features/off": {"seqrpc": [2.0]}, "features/deadline": {"seqrpc": [3.0]}}), {})

    assert (rate.figure, rate.pure, rate.verdict) == (ratio(2.0), ratio(0.5), "reached, and its stretch")
    assert (time.figure, time.pure, time.verdict) == (ratio(1.5), None, "MISSED")


def test_a_peer_that_is_left_out_is_the_reason() -> None:
    upload = next(bar for bar in BESIDE if bar.row == "upload-1m")

    bar = upload.bar(report_of(**{"upload-1m": {"seqrpc": [1.0]}}), {"pyzmq": "zmq is not installed"})

    assert bar.verdict == "not measured: pyzmq: zmq is not installed"


def test_bars_name_rows_and_peers_that_are_there() -> None:
    for bar in BESIDE:
        assert {bar.row, bar.to_row or bar.row} <= {row for name in bar.workloads for row in WORKLOADS[name].rows}
        assert bar.peer is None or bar.peer in MODULES
    assert OF_OLD.keys() <= KINDS.keys()


def test_what_peers_and_checkouts_decide_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "bars.json"

    done = bars("--bars", "3,1", "--old", f"old={ROOT}", "--json", str(file))

    assert (done.returncode in (0, 1), done.stderr) == (True, "")
    told = json.loads(file.read_text())["bars"]
    assert [bar["number"] for bar in told] == [1, 1, 3]
    assert all(bar["figure"]["low"] <= bar["figure"]["median"] <= bar["figure"]["high"] for bar in told[:2])
    assert re.search(r"^3   one call at a time: .* ≤ 1\.60", done.stdout, re.MULTILINE)


def test_workloads_that_are_set_beside_each_other_are_measured_in_turn(tmp_path: Path) -> None:
    file = tmp_path / "bars.json"

    done = bars("--bars", "4", "--json", str(file), "--processors", "one")

    assert done.stderr == ""
    told = {bar["what"]: bar for bar in json.loads(file.read_text())["bars"]}
    assert len(told) == 4
    assert told["1,000 connections: of the rate of 64"]["figure"]["median"] > 0
    assert len(re.findall(r"^features: ", done.stdout, re.MULTILINE)) == 1


def test_what_git_does_not_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=r"^no-such-commit cannot be had from git: .*no-such-commit"):
        unpacked("no-such-commit", tmp_path / "there")


def test_a_commit_is_unpacked(tmp_path: Path) -> None:
    if subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, check=False).returncode:
        pytest.skip("this is no work tree of git's")

    checkout = unpacked("HEAD", tmp_path / "there")

    assert Path(checkout.path, "seqrpc", "__init__.py").is_file()


@pytest.mark.parametrize(
    "args", [["--bars", "6"], ["--rounds", "0"], ["--uid", "-1"], ["--old", "tests"], ["--processors", "0"]]
)
def test_what_is_not_there_is_refused(args: list[str]) -> None:
    done = bars(*args)

    assert (done.returncode, done.stdout) == (2, "")


def test_processes_run_where_they_are_to(tmp_path: Path) -> None:
    processors = sorted(os.sched_getaffinity(0))
    wanted = processors[0], processors[-1]

    with Run({"floor": Floor()}, str(tmp_path), 0.001, wanted) as run:
        run.measure(WORKLOADS["lone"], 1, print)
        driver, server = run.pairs["floor"].processes()

        assert (os.sched_getaffinity(server.pid), os.sched_getaffinity(driver.pid)) == ({wanted[0]}, {wanted[1]})
