"""The benchmark runs, with rounds so short that its figures mean nothing, and says what it left out."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import seqrpc
from benchmarks.charts import charts_of
from benchmarks.checkouts import KINDS as CALLS
from benchmarks.driver import in_turn, shares
from benchmarks.peers.registry import FLOORS, MODULES, PURE
from benchmarks.peers.seqrpc_peer import PurePeer
from benchmarks.report import Report
from benchmarks.run import Run
from benchmarks.tables import sections
from benchmarks.workloads import WORKLOADS
from seqrpc.twin import TWIN

ROOT = Path(__file__).parent.parent
WITHIN = 120.0  # seconds: far more than anything here takes
LARGE = {
    "upload-64m",
    "buffer-64m",
    "buffer-64m-again",
    "buffer-unread",
}  # gigabytes of memory, and no code of their own
SMALL = [name for name in WORKLOADS if name not in LARGE]


def benchmark(*args: str, module: str = "benchmarks") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *args],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def measured(directory: Path, *args: str) -> tuple[str, dict[str, Any]]:
    """Return what is printed, and what is in the JSON."""
    file = directory / "figures.json"
    done = benchmark("--seconds", "0.001", "--json", str(file), *args)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, json.loads(file.read_text())


def test_every_workload_is_measured_of_seqrpc(tmp_path: Path) -> None:
    printed, figures = measured(tmp_path, "--rounds", "2", "--only", "seqrpc", "--workloads", ",".join(SMALL))

    rows = [row for name in SMALL for row in WORKLOADS[name].rows]
    assert list(figures["workloads"]) == rows
    for row, measured_there in figures["workloads"].items():
        assert measured_there["left_out"] == {}, row
        ours = measured_there["peers"]["seqrpc"]
        assert len(ours["rounds"]) == 2
        assert ours["low"] <= ours["median"] <= ours["high"]
    assert len(re.findall(r"^    seqrpc +[\d,.]+ +[\d,.]+ +[\d,.]+ ", printed, re.MULTILINE)) == len(rows)


def test_the_floors_are_measured_whatever_is_asked_for(tmp_path: Path) -> None:
    printed, figures = measured(tmp_path, "--rounds", "2", "--only", "seqrpc", "--workloads", "lone,upload-1m")

    lone, upload = figures["workloads"].values()
    assert lone["peers"]["floor"]["to_floor"] == 1
    assert upload["peers"]["memcpy"]["to_floor"] == 1
    assert lone["peers"]["seqrpc"]["to_floor"] == lone["peers"]["seqrpc"]["median"] / lone["peers"]["floor"]["median"]
    assert lone["peers"]["seqrpc"]["to_seqrpc"] == 1
    assert "/ floor" in printed
    assert "/ memcpy" in printed


@pytest.mark.parametrize("name", [name for name in MODULES if name not in {"seqrpc", *FLOORS}])
def test_a_peer_is_measured_or_left_out_with_a_reason(name: str, tmp_path: Path) -> None:
    printed, figures = measured(
        tmp_path, "--rounds", "1", "--only", name, "--workloads", "lone,record,stream,descriptors"
    )

    if name in figures["left_out"]:
        assert f"left out: {name}: {figures['left_out'][name]}" in printed
        assert figures["left_out"][name]
    else:
        lone = figures["workloads"]["lone"]
        assert [workload["left_out"] for workload in figures["workloads"].values()] == [{}] * 4
        assert lone["peers"][name]["median"] > 0
        assert lone["peers"][name]["to_seqrpc"] is None  # it was not asked for
        assert lone["peers"][name]["to_floor"] > 0


def test_without_a_c_compiler_the_floor_in_c_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    printed, figures = measured(tmp_path, "--rounds", "1", "--only", "seqrpc", "--workloads", "lone")

    assert figures["left_out"] == {"floor.c": "there is no C compiler"}
    assert "left out: floor.c: there is no C compiler" in printed
    assert figures["workloads"]["lone"]["peers"].keys() == {"seqrpc", "floor"}


def test_the_hand_written_ones_need_no_extra(tmp_path: Path) -> None:
    _printed, figures = measured(
        tmp_path,
        "--rounds",
        "1",
        "--only",
        "seqrpc,handwritten.protocol,handwritten.streams,multiprocessing.connection",
        "--workloads",
        "in-flight",
    )

    assert figures["left_out"].keys() <= {"floor.c"}
    in_flight = figures["workloads"]["in-flight"]
    assert in_flight["peers"].keys() == {
        "seqrpc",
        "handwritten.protocol",
        "handwritten.streams",
        "multiprocessing.connection",
        "floor",
    }
    assert in_flight["best_other"]["peer"] in in_flight["peers"].keys() - {"seqrpc", "floor"}


def test_the_json_says_where_it_is_from(tmp_path: Path) -> None:
    _printed, figures = measured(tmp_path, "--rounds", "1", "--only", "seqrpc", "--workloads", "lone")

    assert figures["machine"].keys() == {"system", "processor", "cpus"}
    assert figures["python"] == ".".join(map(str, sys.version_info[:3]))
    assert figures["versions"]["seqrpc"] == f"seqrpc {seqrpc.__version__} ({TWIN})"
    assert figures["settings"] == {"rounds": 1, "seconds": 0.001}


def test_the_list_has_every_workload_and_every_peer() -> None:
    done = benchmark("--list")

    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == [*WORKLOADS, *MODULES]


@pytest.mark.parametrize("args", [["--only", "nobody"], ["--workloads", "lone,nothing"], ["--rounds", "0"]])
def test_what_is_not_there_is_refused(args: list[str]) -> None:
    done = benchmark(*args)

    assert done.returncode == 2
    assert done.stdout == ""


def test_without_matplotlib_there_are_no_charts(tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib"):
        pytest.skip("matplotlib is there")

    done = benchmark("--workloads", "lone", "--charts", str(tmp_path))

    assert done.returncode == 2
    assert "matplotlib" in done.stderr


def test_charts_are_drawn_with_matplotlib(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    charts_there = ["--charts", str(tmp_path / "charts")]
    measured(tmp_path, "--rounds", "1", "--only", "seqrpc", "--workloads", "lone,features", *charts_there)

    charts = list((tmp_path / "charts").iterdir())
    assert charts
    assert all(chart.suffix == ".svg" and "<svg" in chart.read_text() for chart in charts)


def test_the_pure_twin_is_a_peer_of_its_own(tmp_path: Path) -> None:
    with Run({PURE: PurePeer()}, str(tmp_path), 0.001) as run:
        figures = run.measure(WORKLOADS["lone"], 2, print)

        assert len(figures["lone"][PURE]) == 2
        for process in run.pairs[PURE].processes():
            assert b"SEQRPC_PURE=1" in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    assert (PurePeer().missing() is None) is (TWIN == "native")  # else it would be measured twice


def test_where_seqrpc_is_pure_it_is_one_peer_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQRPC_PURE", "1")

    _printed, figures = measured(tmp_path, "--rounds", "1", "--only", "seqrpc,seqrpc.pure", "--workloads", "lone")

    assert figures["left_out"]["seqrpc.pure"] == "it is what seqrpc is here: SEQRPC_PURE is set"
    assert figures["versions"]["seqrpc"].endswith(" (pure)")


def test_both_twins_are_drawn_in_one_chart() -> None:
    report = report_of("lone", **{"seqrpc": [2.0], "seqrpc.pure": [3.0], "rpyc": [9.0], "floor": [1.0]})
    report.add(WORKLOADS["features"], {"features/off": {"seqrpc": [2.0], "seqrpc.pure": [3.0]}}, {})
    report.add(WORKLOADS["features"], {"features/deadline": {"seqrpc": [4.0], "seqrpc.pure": [5.0]}}, {})

    lone, features = charts_of(json.loads(report.as_json()))

    kinds = {"seqrpc": "seqrpc", "seqrpc.pure": "otherwise", "rpyc": "peer", "floor": "floor"}
    assert {bar.name: bar.kind for bar in lone.bars} == kinds
    names = ["seqrpc, off", "seqrpc.pure, off", "seqrpc, deadline", "seqrpc.pure, deadline"]
    assert [bar.name for bar in features.bars] == names


def report_of(name: str, **figures: list[float]) -> Report:
    report = Report(rounds=3, seconds=0.3, versions={}, left_out={})
    report.add(WORKLOADS[name], {name: figures}, {})
    return report


@pytest.mark.parametrize(
    "count, step, parts",
    [(10, 1, [2, 2, 2, 2, 2]), (7, 1, [1, 1, 2, 1, 2]), (3, 1, [1, 1, 1]), (300, 100, [100, 100, 100]), (1, 1, [1])],
)
def test_work_is_divided_into_equal_parts(count: int, step: int, parts: list[int]) -> None:
    assert shares(count, step, 5) == parts


async def test_variants_take_turns_and_the_first_work_does_not_count() -> None:
    done: list[tuple[str, int]] = []

    def loop_of(name: str, seconds: float) -> Callable[[int], Awaitable[float]]:
        async def go(count: int) -> float:
            done.append((name, count))
            return seconds * count

        return go

    counts = {"plain": 10, "rare": 2, "other": 5}
    taken = await in_turn({name: loop_of(name, 0.5) for name in counts}, counts, 1)
    assert taken == {"plain": 5.0, "rare": 1.0, "other": 2.5}
    assert done[0] == ("plain", 2)
    assert {name: sum(count for of, count in done[1:] if of == name) for name in counts} == counts
    assert sorted(done[1:4]) == [("other", 1), ("plain", 2), ("rare", 1)]
    assert sorted(done[-2:]) == [("other", 1), ("plain", 2)]


def test_ratios_are_those_of_medians() -> None:
    lone = report_of("lone", seqrpc=[40.0, 50.0, 90.0], floor=[20.0, 25.0, 26.0], rpyc=[200.0, 100.0, 99.0])

    row = lone.rows["lone"]
    assert row["peers"]["seqrpc"] | {"rounds": []} == {
        "median": 50.0,
        "low": 40.0,
        "high": 90.0,
        "rounds": [],
        "to_seqrpc": 1.0,
        "to_floor": 2.0,
    }
    assert (row["peers"]["rpyc"]["to_seqrpc"], row["peers"]["rpyc"]["to_floor"]) == (2.0, 4.0)
    assert row["best_other"] == {"peer": "rpyc", "seqrpc_is_better_by": 2.0}


def test_of_rates_the_best_is_the_highest() -> None:
    row = report_of("stream", seqrpc=[100.0], rpyc=[10.0], grpclib=[200.0]).rows["stream"]

    assert row["best_other"] == {"peer": "grpclib", "seqrpc_is_better_by": 0.5}


def test_a_buffer_is_set_beside_the_upload_of_as_many_bytes() -> None:
    report = report_of("upload-1m", seqrpc=[1.0], memcpy=[8.0], grpclib=[0.5])
    report.add(WORKLOADS["buffer-1m"], {"buffer-1m": {"seqrpc": [4.0]}}, {})

    row = report.rows["buffer-1m"]
    assert row["peers"]["seqrpc"]["to_seqrpc"] == 4.0
    assert row["peers"]["seqrpc"]["to_floor"] == 0.5
    assert row["best_other"] == {"peer": "grpclib", "seqrpc_is_better_by": 8.0}


def test_what_fails_in_one_workload_is_said_there() -> None:
    report = Report(rounds=1, seconds=0.3, versions={}, left_out={})
    report.add(WORKLOADS["lone"], {"lone": {"seqrpc": [50.0]}}, {"rpyc": "its server ended: no luck"})

    assert "left out: rpyc: its server ended: no luck" in report.table(WORKLOADS["lone"])
    assert json.loads(report.as_json())["workloads"]["lone"]["left_out"] == {"rpyc": "its server ended: no luck"}


def test_children_are_measured(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    options = ["--rounds", "1", "--calls", "70", "--array-bytes", "80000", "--json", str(told)]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.children", *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "64 in flight, /s: seqrpc.Worker is" in ran.stdout
    found = json.loads(told.read_text())
    assert list(found) == ["pipe", "pool", "futures", "seqrpc.Worker", "seqrpc.WorkerPool", "seqrpc.executor"]
    assert all(len(figures) == 1 for peer in found.values() for figures in peer.values())


def test_asking_for_a_document_is_set_beside_a_ping(tmp_path: Path) -> None:
    options = ["--methods", "8", "--rounds", "1", "--json", str(tmp_path / "figures")]
    done = benchmark(*options, module="benchmarks.discovery")
    assert done.stderr == ""
    assert re.match(
        r"8 methods, \d+ bytes, made in .* ms\ncaller: ping .* times\ndaemon: ping .* times\n$", done.stdout
    )
    figures = json.loads((tmp_path / "figures").read_text())
    assert figures["methods"] == 8
    assert figures["discover"] > 0
    assert figures["daemon_discover"] > 0


def test_checkouts_are_set_beside_each_other(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["--rounds", "2", "--seconds", "0.001", "--pure-too", "--json", str(file)]

    done = benchmark(str(ROOT), f"new={ROOT}", *options, module="benchmarks.checkouts")

    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(file.read_text())
    names = [ROOT.name, "new", "new (pure)"]
    assert list(figures["checkouts"]) == names
    assert figures["checkouts"]["new (pure)"]["twin"] == "pure"
    assert list(figures["kinds"]) == list(CALLS)
    for kind, of_kind in figures["kinds"].items():
        assert re.search(rf"^{kind}: {CALLS[kind]}$", done.stdout, re.MULTILINE)
        assert list(of_kind) == names
        assert of_kind[names[0]]["ratio"] == of_kind[names[0]]["low_ratio"] == 1
        for measured_there in of_kind.values():
            assert len(measured_there["rounds"]) == 2
            assert 0 < measured_there["low"] <= measured_there["median"] <= measured_there["high"]


def test_a_checkout_is_driven_with_its_own_seqrpc(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "seqrpc", tmp_path / "other/seqrpc", ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "other/seqrpc/__init__.py"
    package.write_text(package.read_text().replace("__version__ =", '__version__ = "0.0.99" or'))
    options = ["--rounds", "1", "--seconds", "0.001", "--kinds", "lone", "--loop", "asyncio"]

    done = benchmark(str(ROOT), f"{tmp_path / 'other'}:X=1", *options, module="benchmarks.checkouts")

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^other:X=1: seqrpc 0\.0\.99, .* on asyncio$", done.stdout, re.MULTILINE)
    assert len(re.findall(r"0\.0\.99", done.stdout)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_checkouts_are_measured_as_another_user(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["--rounds", "1", "--seconds", "0.001", "--kinds", "lone", "--uid", "12345", "--json", str(file)]

    done = benchmark(str(ROOT), str(ROOT), *options, module="benchmarks.checkouts")

    assert (done.returncode, done.stderr) == (0, "")
    assert ", as user 12345\n" in done.stdout
    assert list(json.loads(file.read_text())["checkouts"]) == [ROOT.name, f"{ROOT.name} #2"]


def test_a_checkout_that_cannot_be_driven_says_why(tmp_path: Path) -> None:
    (tmp_path / "seqrpc").mkdir()
    (tmp_path / "seqrpc/__init__.py").write_text("raise ImportError('of no use')")

    done = benchmark(str(ROOT), f"bad={tmp_path}", module="benchmarks.checkouts")

    assert done.returncode == 1
    assert done.stderr == "bad ended: ImportError: of no use\n"


@pytest.mark.parametrize(
    "args,said",
    [
        (["tests"], "there is no seqrpc/__init__.py in "),
        ([".:X"], "'X' is not VARIABLE=VALUE"),
        ([".", "--kinds", "lone,lonely"], "there is no lonely"),
        ([".", "--rounds", "0"], "are positive"),
        ([".", "--uid", "-1"], "--uid is a number"),
        ([], "NEW"),
    ],
)
def test_what_is_no_checkout_is_refused(args: list[str], said: str) -> None:
    done = benchmark(".", *args, module="benchmarks.checkouts")

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_the_page_has_the_tables_of_the_results(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(re.sub(r"^\| `seqrpc` \|.*\n", "", (ROOT / "docs/benchmarks.md").read_text(), flags=re.MULTILINE))
    results = sorted(map(str, (ROOT / "docs/results").glob("*.json")))

    done = benchmark(*results, "--into", str(page), module="benchmarks.tables")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    peers = (ROOT / "docs/benchmarks.md").read_text().partition("## Results")[2]
    assert page.read_text().partition("## Results")[2] == peers
    assert len(results) >= 2


def test_both_twins_have_columns_and_lines_of_their_own() -> None:
    report = json.loads(report_of("lone", **{"seqrpc": [2.0], "seqrpc.pure": [1234.5]}).as_json())
    report["workloads"]["features/off"] = report["workloads"]["lone"]
    python = ".".join(map(str, sys.version_info[:2]))

    told = sections([report])

    assert "| `seqrpc` | 2.00 |" in told[f"### Python {python}"]
    assert "| `seqrpc.pure` | 1,234 |" in told[f"### Python {python}"]
    assert told["### What only seqrpc has"].startswith(f"| | {python} | {python}, pure |\n")


def test_a_page_without_the_headings_is_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Nothing\n")

    done = benchmark(str(ROOT / "docs/results/3.11.json"), "--into", str(page), module="benchmarks.tables")

    assert (done.returncode, page.read_text()) == (1, "# Nothing\n")
    assert "has not one heading '### Python 3.11'" in done.stderr


@pytest.mark.skipif(TWIN == "pure", reason="there is no extension module")
def test_a_native_part_of_other_sources_is_not_measured(tmp_path: Path) -> None:
    for part in ("seqrpc", "native"):
        shutil.copytree(ROOT / part, tmp_path / "other" / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "other/native/module.c").write_text("/* nothing */")
    options = ["--rounds", "1", "--seconds", "0.001", "--kinds", "lone"]

    native = benchmark(str(ROOT), str(tmp_path / "other"), *options, module="benchmarks.checkouts")
    pure = benchmark(str(ROOT), f"{tmp_path / 'other'}:SEQRPC_PURE=1", *options, module="benchmarks.checkouts")

    assert (native.returncode, pure.returncode) == (1, 0)
    assert f"is not of the sources in {tmp_path / 'other'}: run native/build.py there" in native.stderr
