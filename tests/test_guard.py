"""The guard counts the same in each run, and fails when a call becomes dearer or a record is lower."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from benchmarks.guard import RECORDED, Counted, compare, count, judge, record, recorded_as
from benchmarks.guarded import KINDS
from benchmarks.traced import Figures, parsed
from seqrpc.twin import TWIN, native

ROOT = Path(__file__).parent.parent
WITHIN = 120.0  # seconds: far more than anything here takes
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
HERE = recorded_as(PYTHON, TWIN)

with_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def guard(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.guard", *args],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


@pytest.fixture(scope="module")
def lone() -> Figures:
    return count(["lone"]).figures


def with_handler(body: str) -> tuple[str, str]:
    """Return the program that makes the calls, with another handler."""
    program = """\
        import os
        import seqrpc
        from benchmarks import counting, guarded

        class Dearer(guarded.Guarded, name="Guarded"):
            @seqrpc.method
            async def add(self, a: int, b: int) -> int:
                {}
                return a + b

        guarded.Guarded = Dearer
        counting.main()
    """
    return "-c", textwrap.dedent(program).format(body)


def worse(figures: Figures, recorded: Figures) -> list[str]:
    return [finding.name for finding in compare(figures, recorded) if finding.worse]


@pytest.mark.parametrize("times", [0, 100])
def test_a_handler_with_more_instructions_fails(times: int, lone: Figures) -> None:
    dearer = count(["lone"], with_handler(f"for _ in range({times}): a += 1; a -= 1")).figures

    assert worse(dearer, lone) == (["byte code"] if times else [])  # the handler is none of seqrpc's own code


def test_a_handler_that_calls_more_functions_fails(lone: Figures) -> None:
    dearer = count(["lone"], with_handler("; ".join(["len('')"] * 10))).figures

    assert worse(dearer, lone) == ["C functions"]


@with_strace
def test_a_handler_with_one_more_system_call_fails(lone: Figures) -> None:
    dearer = count(["lone"], with_handler("os.stat('/')")).figures

    assert worse(dearer, lone) == ["asyncio others", "uvloop others"]


@with_strace
def test_the_figures_are_the_same_in_each_run_and_recorded_for_the_next(tmp_path: Path) -> None:
    file = tmp_path / "recorded.json"

    some = "--recorded", str(file), "--kinds", "in-flight,deadline,stream-lone"
    recorded = guard(*some, "--record", "--times", "2")
    compared = guard(*some)

    assert (recorded.returncode, recorded.stderr) == (0, "")
    assert "all 36 figures were the same 2 times" in recorded.stdout
    assert (compared.returncode, compared.stderr) == (0, "")
    assert "36 figures are within 10%" in compared.stdout


@with_strace
def test_a_record_that_is_lower_fails_and_one_that_is_higher_is_told(tmp_path: Path, lone: Figures) -> None:
    file = tmp_path / "recorded.json"
    changed = dict(lone["lone"])
    changed["byte code"] /= 1.11
    changed["uvloop receives"] -= 1
    changed["C functions"] *= 1.12
    record(file, HERE, {"lone": changed})

    done = guard("--recorded", str(file), "--kinds", "lone")

    assert (done.returncode, done.stderr) == (1, "")
    said = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "BETTER"))]
    assert [line.split(":")[:3] for line in said] == [
        ["BETTER", " lone (a typed call)", " C functions"],
        ["FAILED", " lone (a typed call)", " byte code"],
        ["FAILED", " lone (a typed call)", " uvloop receives"],
    ]
    assert f"recorded {changed['byte code']:,.10g}, bound {changed['byte code'] * 1.1:,.10g} (+11%)" in said[1]


@pytest.mark.parametrize(
    "figure, recorded, verdict",
    [
        (109.0, 100.0, "within 10%"),
        (111.0, 100.0, "FAILED: lone (a typed call): byte code: 111, recorded 100, bound 110 (+11%)"),
        (91.0, 100.0, "within 10%"),
        (89.0, 100.0, "BETTER: lone (a typed call): byte code: 89, recorded 100, bound 110 (-11%)"),
        (0.01, 0.0, "within 10%"),
        (1.0, 0.0, "FAILED: lone (a typed call): byte code: 1, recorded 0, bound 0.02"),
        (1.0, None, "FAILED: lone (a typed call): byte code: 1, of which nothing is recorded"),
    ],
)
def test_the_verdict_names_the_figure_its_record_and_its_bound(
    figure: float, recorded: float | None, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there: dict[str, Any] = {} if recorded is None else {"lone": {"byte code": recorded}}

    passed = judge(Counted({"lone": {"byte code": figure}}), {"of": "some Python", "figures": there})

    said = capsys.readouterr().out
    assert verdict in said
    assert passed is ("FAILED" not in said)


def test_machine_instructions_are_guarded_if_they_are_recorded() -> None:
    counted = {"lone": {"machine instructions": 150_000.0}}

    assert compare(counted, {"lone": {}}) == []
    assert worse(counted, {"lone": {"machine instructions": 100_000.0}}) == ["machine instructions"]


def test_a_python_without_a_record_is_not_guarded(tmp_path: Path) -> None:
    file = tmp_path / "recorded.json"
    file.write_text("{}")

    done = guard("--recorded", str(file), "--kinds", "lone")

    assert (done.returncode, done.stderr) == (0, "")
    assert f"nothing is recorded of Python {HERE}, and so it is not guarded" in done.stdout


def test_without_strace_the_rest_is_guarded_and_nothing_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lone: Figures
) -> None:
    file = tmp_path / "recorded.json"
    record(file, HERE, {"lone": {name: figure / 2 for name, figure in lone["lone"].items()}})
    before = file.read_text()
    monkeypatch.setenv("PATH", str(tmp_path))

    compared = guard("--recorded", str(file), "--kinds", "lone")
    recorded = guard("--recorded", str(file), "--kinds", "lone", "--record")

    assert "not counted: system calls: strace is not installed" in compared.stdout
    assert compared.returncode == 1
    assert len([line for line in compared.stdout.splitlines() if line.startswith("FAILED")]) == 4
    assert recorded.returncode == 1
    assert "nothing is recorded" in recorded.stderr
    assert file.read_text() == before


def test_recording_keeps_other_pythons_and_other_kinds(tmp_path: Path) -> None:
    file = tmp_path / "recorded.json"
    record(file, "3.10", {"lone": {"byte code": 1.0}})
    record(file, "3.11", {"lone": {"byte code": 2.0}, "record": {"byte code": 3.0}})
    record(file, "3.11", {"lone": {"byte code": 4.0}})

    recorded = {python: of_python["figures"] for python, of_python in json.loads(file.read_text()).items()}
    assert recorded == {
        "3.10": {"lone": {"byte code": 1.0}},
        "3.11": {"lone": {"byte code": 4.0}, "record": {"byte code": 3.0}},
    }


def test_each_twin_has_records_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "recorded.json"
    record(file, recorded_as(PYTHON, "native"), {"lone": {"byte code": 1.0}})
    record(file, recorded_as(PYTHON, "pure"), {"lone": {"byte code": 1e6}})
    monkeypatch.setenv("SEQRPC_PURE", "1")

    done = guard("--recorded", str(file), "--kinds", "lone")

    assert list(json.loads(file.read_text())) == [PYTHON, f"{PYTHON} native"]
    assert re.match(rf"a call on Python {re.escape(platform.python_version())}, pure, ", done.stdout)
    assert re.search(r"^BETTER: lone .*, recorded 1,000,000,", done.stdout, re.MULTILINE)


@pytest.mark.skipif(native is None, reason="there is no extension module")
@pytest.mark.parametrize("time,error", [("now", TypeError), (1.5, TypeError), (1 << 63, OverflowError)])
def test_the_native_clock_is_stopped_at_nanoseconds(time: object, error: type[Exception]) -> None:
    assert native is not None
    with pytest.raises(error):
        native.stop_clock(time)

    assert native.stop_clock(0) is None  # it goes, as before


def test_of_each_supported_python_everything_is_recorded() -> None:
    recorded = json.loads(RECORDED.read_text())

    assert recorded.keys() >= {recorded_as(f"3.{minor}", twin) for minor in (11, 12, 13) for twin in ("pure", "native")}
    for of_python in recorded.values():
        assert of_python["figures"].keys() == KINDS.keys()
        assert len({frozenset(figures) for figures in of_python["figures"].values()}) == 1


def test_a_log_of_system_calls_is_counted_between_its_marks() -> None:
    kind = KINDS["lone"]
    mark = 'newfstatat(AT_FDCWD, "/no-such-file-of-the-guard/lone/{}", 0x7ff, 0) = -1 ENOENT (No such file)'
    once = ["12 epoll_wait(3,  <unfinished ...>", "13 getpid() = 1", "12 <... epoll_wait resumed> [], 2, 0) = 0"]
    calls = [*once, '12 sendto(6, "x", 1, 0) = 1']
    short, long = (mark.format(length) for length in (kind.short, kind.long))

    short, long = f"12 {short}", f"12 {long}"

    log = [*once, short, *once, short, *calls, long, *calls * (int(kind.units) + 1), long, *calls]

    more = round(1 / kind.units, 3)
    assert parsed("\n".join(log)) == {"lone": {"epoll_wait": 1.0, "sendto": 1 + more}}, "of thread 12"


def test_a_log_of_a_process_that_has_one_thread_names_none() -> None:
    kind = KINDS["lone"]
    short, long = (f'openat(AT_FDCWD, "/no-such-file-of-the-guard/lone/{n}") = -1' for n in (kind.short, kind.long))
    call = "getpid() = 1"

    log = [short, call, short, long, *[call] * (int(kind.units) + 1), long]

    assert parsed("\n".join(log)) == {"lone": {"getpid": 1.0}}


def test_where_names_functions_and_system_calls() -> None:
    done = guard("--kinds", "lone", "--where")

    assert "seqrpc.aio.caller: Caller.request" in done.stdout
    assert ("system calls on uvloop" in done.stdout) is (shutil.which("strace") is not None)


def test_a_kind_that_is_not_there_is_refused() -> None:
    done = guard("--kinds", "lone,nothing")

    assert done.returncode == 2
    assert "there is no nothing" in done.stderr
