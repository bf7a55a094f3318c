"""What a measurement gave, for people and for programs."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from seqrpc.cli.benchreport import Report
from seqrpc.cli.outcomes import Outcomes
from seqrpc.cli.screen import Screen
from seqrpc.errors import DeadlineExceeded, RpcError

MS = 1_000_000


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def some_figures() -> Outcomes:
    outcomes = Outcomes(0)
    for number in range(1, 100):
        outcomes.lateness.add(number * 1_000)
        outcomes.succeed(number * 10 * MS, number * MS)
    outcomes.fail(1_000 * MS, 5, RpcError("no", code="x.Busy\x1b[2J"))
    return outcomes


def report_of(outcomes: Outcomes, **changed: Any) -> Report:
    plain: dict[str, Any] = {"method": "Desk.add", "address": "/x", "connections": 1, "in_flight": 1, "rate": None}
    return Report(**{**plain, "outcomes": outcomes, "processor": 0.5, **changed})


def written(report: Report, *, json: bool = False) -> str:
    out = _Terminal()
    report.write(Screen(out, io.StringIO(), json=json))
    return out.getvalue()


@pytest.fixture(autouse=True)
def _no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


def test_programs_get_one_object() -> None:
    text = written(report_of(some_figures()), json=True)
    assert text.count("\n") == 1
    told = json.loads(text)
    buckets = told.pop("histogram_ns")
    assert sum(count for _low, _high, count in buckets) == 99
    assert told == {
        "method": "Desk.add",
        "address": "/x",
        "mode": "closed loop",
        "connections": 1,
        "in_flight": 1,
        "asked_rate": None,
        "ended": "done",
        "seconds": 1.0,
        "calls": 100,
        "succeeded": 99,
        "errors": {"x.Busy\\x1b[2J": 1},
        "unanswered": 0,
        "unsent": 0,
        "rate": 100.0,
        "processor": 0.5,
        "latency_is": "service time",
        "latency_ns": {
            "min": MS,
            "mean": 50 * MS,
            "p50": pytest.approx(50 * MS, rel=0.01),
            "p90": pytest.approx(90 * MS, rel=0.01),
            "p99": 99 * MS,
            "p99.9": 99 * MS,
            "max": 99 * MS,
        },
        "sent_late_ns": told["sent_late_ns"],
    }


def test_at_a_rate_it_says_since_when_latencies_count() -> None:
    told = report_of(some_figures(), rate=100.0).as_data()
    assert (told["mode"], told["latency_is"], told["asked_rate"]) == ("rate", "since due", 100.0)
    assert told["sent_late_ns"]["max"] == 99_000
    text = written(report_of(some_figures(), rate=1_000.0, in_flight=1_024))
    heading, _numbers, _empty, meaning = text.splitlines()[:4]
    assert heading == "Desk.add: 1,000 calls/s asked for, 1 connection, at most 1,024 in flight on each"
    assert meaning == "latencies: from when a call was due, whether it could be sent then or not"
    assert re.search(r"\n  of this, calls waited to be sent: p50 (49|50)\.\d µs, p99 9[89]\.\d µs\n", text)


def test_people_get_tables_and_bars() -> None:
    lines = written(report_of(some_figures(), connections=2)).splitlines()
    assert lines[:4] == [
        "Desk.add: closed loop, 2 connections, 1 in flight on each",
        "100 calls in 1.00 s, 1 of them errors: 100 calls/s; this process used 50% of a processor",
        "",
        "service times: from when a call was sent, which is not before the last one was answered",
    ]
    assert [line.split(maxsplit=1)[0] for line in lines[4:11]] == ["min", "mean", "p50", "p90", "p99", "p99.9", "max"]
    assert lines[4].split()[1:] == ["1.00", "ms"]
    bars = [line for line in lines if line.startswith("  ≥ ")]
    assert sum(int(line.split()[-1]) for line in bars) == 99
    assert max(line.count("█") for line in bars) == 40
    assert len({len(line) for line in bars}) == 1
    assert lines[-2:] == ["errors", "  x.Busy\\x1b[2J  1"]


def test_what_was_given_up_is_told() -> None:
    outcomes = some_figures()
    outcomes.give_up(1, 2_000 * MS)
    outcomes.leave_out(1_000, range(3), lambda number: number)
    text = written(report_of(outcomes, ended="interrupted"))
    assert "\nended early: Ctrl-C\n" in text
    assert "\nnot answered when it ended: 1; due, and not sent: 3. They count below with the time that" in text
    assert "\nended early: the connection was lost\n" in written(report_of(outcomes, ended="lost"))


def test_calls_that_all_timed_out_have_no_service_times() -> None:
    outcomes = Outcomes(0)
    outcomes.fail(1_000 * MS, 500 * MS, DeadlineExceeded("late"))
    text = written(report_of(outcomes))
    assert "no call succeeded: for how long they had waited when they were given up\n" in text
    assert "service times" not in text


def test_of_no_calls_there_are_no_latencies() -> None:
    assert written(report_of(Outcomes(0))).splitlines() == [
        "Desk.add: closed loop, 1 connection, 1 in flight on each",
        "0 calls in 0.00 s: 0 calls/s; this process used 50% of a processor",
    ]
    told = report_of(Outcomes(0)).as_data()
    assert (told["latency_ns"], told["sent_late_ns"], told["histogram_ns"]) == (None, None, [])
